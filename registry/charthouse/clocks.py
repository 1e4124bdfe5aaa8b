"""Clocks: the one that people set, and one that nobody does."""

import secrets
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

Clock = Callable[[], float]  # seconds; Unix seconds, as time.time, for what is written down

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def steady() -> float:
    """Seconds since this machine was started, those that it slept included."""
    if hasattr(time, "CLOCK_BOOTTIME"):  # Linux, whose CLOCK_MONOTONIC stands still meanwhile
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


@cache
def boot() -> str:
    """Tells this machine, and this start of it, from all others; where that cannot be told, this process."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return secrets.token_hex(16)
