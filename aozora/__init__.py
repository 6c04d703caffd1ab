"""Aozora: a desktop trainer for SDXL."""

from __future__ import annotations

import os

# Set before anything imports the hub client: a trainer never fetches at run time, and without this
# a missing file costs 23 seconds of retries before the error shows.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DISABLE_TELEMETRY", "YES")

__version__ = "0.1.0"
