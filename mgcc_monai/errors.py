"""The one kind of error that a user can cause."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["MGCCError", "one_line", "plain_os_errors", "raise_errors", "tell_os_errors"]

_SHOWN = 50


class MGCCError(SystemExit):
    """A mistake in data, options or weights, told in plain lines.

    It derives from ``SystemExit`` so that, raised anywhere below ``python -m monai.bundle run`` or
    ``python -m mgcc_monai``, it ends the process with exit code 1 and prints its message and nothing else. MONAI and
    ignite wrap or log every ``Exception``; they let this one through.

    Args:
        message: what was found, where, and what to do about it. One line a fault.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


def one_line(error: BaseException, longest: int = 200) -> str:
    """Return what another library's error says as one line, at most so long; its type where it says nothing."""
    return " ".join(str(error).split())[:longest] or type(error).__name__


def _os_error(error: OSError) -> MGCCError:
    name = error.filename2 or error.filename
    where = name if isinstance(name, str) else "the output" if name is None else str(name)
    reason = error.strerror or one_line(error)
    return MGCCError(f"{where}: cannot be read or written ({reason}); check its name, permissions and free space.")


@contextmanager
def plain_os_errors() -> Iterator[None]:
    """Turn what the operating system refuses into one plain line; a decorator of functions too.

    Raises:
        MGCCError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise _os_error(error) from None


def tell_os_errors(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Show an error that ends the process, as ``sys.excepthook``: one line where an OSError is at its bottom."""
    bottom = error
    while bottom.__cause__ is not None and not isinstance(bottom, OSError):
        bottom = bottom.__cause__
    told = re.findall(r"\[Errno \d+\] ([^\n]+)", str(bottom))  # MONAI and workers hand it on as text
    if isinstance(bottom, OSError):
        print(_os_error(bottom), file=sys.stderr)
    elif told:
        first = str(bottom).splitlines()[0].rstrip(".")
        print(f"{first}: {told[-1]}; check its name, permissions and free space.", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def raise_errors(faults: Sequence[str], where: str = "") -> None:
    """Raise one :class:`MGCCError` that lists every fault, a line each; do nothing when there is none.

    Args:
        faults: messages, each with the file, what is wrong and what to do.
        where: what was examined, for the heading over several faults.

    Raises:
        MGCCError: if ``faults`` is not empty.
    """
    if not faults:
        return
    if len(faults) == 1:
        raise MGCCError(faults[0])
    shown = [f"  {fault}" for fault in faults[:_SHOWN]]
    if len(faults) > _SHOWN:
        shown.append(f"  ... and {len(faults) - _SHOWN} more")
    raise MGCCError("\n".join([f"{where + ': ' if where else ''}{len(faults)} faults:", *shown]))
