"""How the threads of a stage wait for each other: spinning on free processors, sleeping on shared ones.

PyTorch's OpenMP threads spin while they wait, which is fastest on a free machine. Where other processes need the
processors, a spinning thread keeps the one that it waits for from running: a step can take twenty times as long.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

__all__ = ["busy_processors", "waiting"]

_SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_SPINS = "1000"  # rounds, some microseconds, before a thread sleeps
_SHARED = 0.4  # processors in use by others from which sleeping pays
_SAMPLE = 0.5  # seconds


def busy_processors(stat: str = "/proc/stat", seconds: float = _SAMPLE) -> float | None:
    """Measure how many of the processors that this process may use are busy, while it does nothing.

    Args:
        stat: the system's counters.
        seconds: how long to measure.

    Returns:
        a number of processors; None where the system does not say.
    """
    try:
        before = _ticks(stat)
        time.sleep(seconds)
        after = _ticks(stat)
    except OSError:
        return None
    busy = 0.0
    for name in before.keys() & after.keys():
        total, idle = (after[name][part] - before[name][part] for part in (0, 1))
        busy += 1 - idle / total if total > 0 else 0
    return busy


def _ticks(stat: str) -> dict[str, tuple[int, int]]:
    """Return ticks in all and idle of each usable processor."""
    usable = {f"cpu{number}" for number in os.sched_getaffinity(0)} if hasattr(os, "sched_getaffinity") else None
    ticks = {}
    for line in Path(stat).read_text().splitlines():
        name, *columns = line.split()
        if name != "cpu" and name.startswith("cpu") and (usable is None or name in usable):
            numbers = [int(column) for column in columns[:8]]
            ticks[name] = sum(numbers), numbers[3] + numbers[4]
    return ticks


def waiting(environment: Mapping[str, str], busy: float | None) -> tuple[dict[str, str], str]:
    """Choose how a stage's threads wait.

    Args:
        environment: of the stage; a setting of the user's is left as it is.
        busy: processors that others use; see :func:`busy_processors`.

    Returns:
        what to add to the environment, and a line that says so; both empty where nothing is changed.
    """
    if busy is None or busy < _SHARED or any(name in environment for name in _SETTINGS):
        return {}, ""
    told = f"other processes use {busy:.1f} processors: waiting threads sleep (GOMP_SPINCOUNT={_SPINS})"
    return {"GOMP_SPINCOUNT": _SPINS}, told
