"""Stands in for `python -m cli`: the least that the stack expects of each command.

Each start leaves a line in the file RECORD: the command, its process id and what it was told. The
command that FAIL names fails.
"""

import http.server
import json
import os
import signal
import sys

TOLD = ("DRUMBEAT_", "TEMPORAL_")


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    command = sys.argv[1]
    told = {name: value for name, value in os.environ.items() if name.startswith(TOLD)}
    with open(os.environ["RECORD"], "a") as record:  # noqa: PTH123
        record.write(json.dumps({"command": sys.argv[1:], "pid": os.getpid(), "told": told}) + "\n")
    if os.environ.get("FAIL") == command:
        sys.exit(f"{command} cannot go on")
    if command == "migrate":
        return
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if command == "api":
        address = (os.environ["DRUMBEAT_API_HOST"], int(os.environ["DRUMBEAT_API_PORT"]))
        http.server.HTTPServer(address, Answer).serve_forever()
    print("starting", json.dumps({"event": "ready"}), sep="\n", flush=True)  # noqa: T201
    signal.pause()


main()
