#!/bin/sh
# Installs or updates Aozora; asks for the attention backend.
exec python3 "$(dirname -- "$0")/bootstrap.py" setup "$@"
