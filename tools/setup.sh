#!/bin/sh
# Finds a Python that can run the set-up, and runs it. PYTHON=… names another one.
for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
  if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
    exec "$python" "$(dirname "$0")/setup.py" "$@"
  fi
done
echo "Drumbeat needs Python 3.11, 3.12, 3.13 or 3.14, and none was found${PYTHON:+ at $PYTHON}." >&2
echo "Install one, or say where it is: make PYTHON=/path/to/python3 …" >&2
exit 1
