"""Losses are computed in float32, whatever the precision of the network before them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["in_float32"]

_HALF = (torch.float16, torch.bfloat16)


def in_float32(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a loss's ``forward(output, target)``: outputs in half precision become float32, and autocast is off.

    A sum of a million pixels, or a variance as the difference of two large numbers, has no digit left in bfloat16.
    """

    @functools.wraps(forward)
    def precise(self: Any, output: Any, target: Any) -> Any:
        parts = [output] if isinstance(output, torch.Tensor) else list(output)
        exact = [part.float() if part.dtype in _HALF else part for part in parts]
        with torch.autocast(exact[0].device.type, enabled=False):
            return forward(self, exact[0] if isinstance(output, torch.Tensor) else exact, target)

    return precise
