"""Downloads the `temporal` command with the SDK: `python -m runtime.sdk_download FOLDER VERSION`.

Prints the program's path. The SDK can only download by starting what it downloads, and a failed start
can crash the process, so this is a process of its own.
"""

import asyncio
import sys
from pathlib import Path

from temporalio.testing import WorkflowEnvironment

from runtime.ending import end


async def _download(folder: str, version: str) -> None:
    environment = await WorkflowEnvironment.start_local(download_dest_dir=folder, dev_server_download_version=version)
    await environment.shutdown()


def main() -> None:
    """Print the path, or say in one line why there is none, with exit code 1."""
    try:
        asyncio.run(_download(sys.argv[1], sys.argv[2]))
        (program,) = Path(sys.argv[1]).iterdir()
    except (RuntimeError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        end(1)
    sys.stdout.write(f"{program}\n")
    end(0)


if __name__ == "__main__":
    main()
