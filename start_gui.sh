#!/bin/sh
# Opens the window.
exec python3 "$(dirname -- "$0")/bootstrap.py" gui "$@"
