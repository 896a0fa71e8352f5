"""A training step of the segmenter, 4 + 4 images, and the memory that it needs."""

from __future__ import annotations

from benchmarks.measure import Row, peak_mb, rows
from benchmarks.plain import Step, mgcc, plain

_MEMORY = """import torch; from benchmarks.plain import Step, mgcc, plain
step = Step({network}, side={side})
step(); step()"""


def measure(device: str, repeats: int, rate: float) -> list[Row]:
    """Time the switches of a training, each alone and together."""
    side, channels = (256, (64, 128, 256, 512, 1024)) if device == "cuda" else (128, (16, 32, 64, 128, 256))
    here = {"device": device, "side": side}
    one = {"auxiliary_per_step": 1}
    variants = {
        "plain": Step(plain(mgcc(channels)), **here),
        "fused upsampling": Step(mgcc(channels), **here),
        "+ one auxiliary decoder": Step(mgcc(channels, **one), **here),
        "+ channels last": Step(mgcc(channels, **one), **here, channels_last=True),
        "+ bfloat16": Step(mgcc(channels, **one), **here, amp=True),
        "+ bfloat16, channels last": Step(mgcc(channels, **one), **here, amp=True, channels_last=True),
        "recomputed decoders": Step(mgcc(channels, recompute_decoders=True), **here),
    }
    if device == "cuda":
        fast = {"amp": True, "channels_last": True, "fused": True}
        variants["all decoders, bfloat16, channels last, fused optimizer"] = Step(mgcc(channels), **here, **fast)
        return rows("training step", variants, repeats, rate)
    networks = {
        "plain": "plain(mgcc())",
        "fused upsampling": "mgcc()",
        "+ one auxiliary decoder": "mgcc(auxiliary_per_step=1)",
        "recomputed decoders": "mgcc(recompute_decoders=True)",
    }
    peaks = {name: peak_mb(_MEMORY.format(network=network, side=side)) for name, network in networks.items()}
    return rows("training step", variants, repeats, rate, peaks)
