"""What a check is, and what it finds."""

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
        file: the file it is in.
        detail: what was found.
        hint: what to do; empty where the detail tells it.
    """

    check: str
    severity: str
    file: str
    detail: str
    hint: str

    @property
    def line(self) -> str:
        """One line: where, what was found, what to do."""
        return f"{self.file}: {self.detail}" + (f"; {self.hint}" if self.hint else "")


@dataclass(frozen=True)
class Check:
    """A named check.

    Args:
        name: unique, as it is shown.
        severity: ``fault``: training would fail or its figures be wrong; ``warning``: a person should look.
        looks_at: what it examines, in words.
        find: the check itself. Of a file or a pair it returns what it found, or nothing; of a dataset it yields pairs
            of a file and what was found in it.
        hint: what to do about it; empty where that depends on what was found.
    """

    name: str
    severity: str
    looks_at: str
    find: Callable[[Any], Any]
    hint: str

    def finding(self, file: Any, detail: str) -> Finding:
        """Make a finding of this check."""
        return Finding(self.name, self.severity, str(file), detail, self.hint)
