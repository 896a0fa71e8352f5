"""Memory that a process keeps for its next tensors, instead of giving it back after each."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_memory"]

# numbers of glibc's malloc.h, and what they are set to
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_SETTINGS = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 << 20}


def keep_memory() -> bool:
    """Let the C library keep what is freed.

    By default glibc fetches each tensor over 32 MB from the system and returns it when it is freed, and the system
    clears every page anew. At 256 x 256 that is up to half the time of a step on the CPU; see docs/performance.md.
    No result changes. Peak memory grows by up to a third. A ``MALLOC_...`` variable or ``GLIBC_TUNABLES`` of the
    user's stands.

    Returns:
        whether it was set: only on Linux with glibc.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all([mallopt(name, value) for name, value in _SETTINGS.items()])
