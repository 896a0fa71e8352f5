"""A check and its findings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["FAULT", "WARNING", "Check", "Finding"]

FAULT, WARNING = "fault", "warning"


class Finding(NamedTuple):
    """One thing that a check found.

    Args:
        check: the check's name.
        severity: ``fault`` or ``warning``.
        file: the file concerned.
        detail: what was found.
        hint: what to do; empty if the detail says so.
    """

    check: str
    severity: str
    file: str
    detail: str
    hint: str

    @property
    def line(self) -> str:
        """One line: file, what was found, what to do."""
        return f"{self.file}: {self.detail}" + (f"; {self.hint}" if self.hint else "")


@dataclass(frozen=True)
class Check:
    """A named check.

    Args:
        name: a unique name, as shown.
        severity: ``fault``: training would fail or its results would be wrong; ``warning``: inspect by hand.
        looks_at: what it examines, in words.
        find: the check itself. For a file or a pair it returns what it found, or an empty string. For a dataset it
            yields pairs of a file and what was found in it.
        hint: what to do about it; empty if that depends on what was found.
    """

    name: str
    severity: str
    looks_at: str
    find: Callable[[Any], Any]
    hint: str

    def finding(self, file: Any, detail: str) -> Finding:
        """Make a finding of this check."""
        return Finding(self.name, self.severity, str(file), detail, self.hint)
