"""Progress bars: drawn in a terminal, and a line every tenth of the way where the output goes to a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

__all__ = ["progress_bar"]

_LINES = 10


class _Lines:
    """Makes lines for a file of what tqdm draws over itself; what is drawn twice, or blank, is left out."""

    def __init__(self) -> None:
        self.last = ""

    def write(self, text: str) -> None:
        """Write a line."""
        line = text.strip()
        counted = line.partition("[")[0]  # without times and figures, which change at the end
        if counted and counted != self.last:
            self.last = counted
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        """Hand on what was written."""
        sys.stderr.flush()


def progress_bar(items: Iterable[Any] | None = None, total: int | None = None, **options: Any) -> tqdm:
    """Return a tqdm over some items, or one to be moved on by ``update``.

    Args:
        items: what to go through, if it is not moved on by hand.
        total: how many there are; by default the number of items.
        options: of tqdm: ``desc``, ``unit``, ``initial``, ``disable``; ``delay``: seconds before anything is shown.
    """
    if sys.stderr.isatty():
        return tqdm(items, total=total, **options)
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    steps = {"miniters": max(1, -(-(total or 0) // _LINES)), "mininterval": 0, "maxinterval": float("inf")}
    return tqdm(items, total=total, file=_Lines(), position=0, **steps, **options)  # below no other bar
