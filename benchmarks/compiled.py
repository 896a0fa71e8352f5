"""A compiled training step of the paper's segmenter on a GPU; compiling takes a minute or more."""

from __future__ import annotations

import torch

from benchmarks.measure import Row, rows
from benchmarks.plain import Step, mgcc, plain

_PAPER = (64, 128, 256, 512, 1024)


def measure(device: str, repeats: int, rate: float) -> list[Row]:
    """Time the step, plain, as fast as it is without a compiler, and compiled; on a CPU nothing."""
    if device != "cuda":
        return []
    here = {"device": device, "side": 256}
    fast = {"amp": True, "channels_last": True, "fused": True}
    compiled = Step(mgcc(_PAPER), **here, **fast)
    compiled.network = torch.compile(compiled.network)
    variants = {
        "plain": Step(plain(mgcc(_PAPER)), **here),
        "bfloat16, channels last, fused optimizer": Step(mgcc(_PAPER), **here, **fast),
        "the same, compiled": compiled,
    }
    return rows("compiled training step", variants, repeats, rate)
