"""The figures of the gate as lines for the terminal; nothing heavy is imported for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["LEAST", "format_gate"]

LEAST = 10  # images of a kind that the figures of quality need


def format_gate(result: Mapping[str, Any]) -> str:
    """Return the figures of ``gate.json`` as lines for the terminal; real-against-real stands beside each."""
    audited = result["memorisation"]
    lines = [
        f"generated images       {result['generated']}: {result['kept']} kept, {result['dropped_quality']} dropped for "
        f"quality, {result['dropped_copies']} as copies",
        f"reconstruction PSNR    {result['reconstruction_psnr']:.2f} dB on {audited['calibration_images']} held-out "
        "images",
        f"copies                 {audited['copies_generated']} generated images copy one of "
        f"{audited['copied_training_images']} training images (of {audited['training']}; expected of novel images: "
        f"{audited['expected_false_positive_rate']:.0%})",
        "planted copies found   " + ", ".join(f"{kind} {found:.0%}" for kind, found in audited["recall"].items()),
    ]
    quality = result["quality"]
    if quality is None:
        return "\n".join(
            [*lines, f"quality                not measured: needs {LEAST} images kept and {LEAST} held out"]
        )
    for name, digits in (("kid", 4), ("fid", 1), ("precision", 2), ("recall", 2)):
        shown = []
        for kind in ("generated", "real"):
            figure = quality[name][kind]
            low, high = figure["low"], figure["high"]
            shown.append(f"{figure['value']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})")
        lines.append(f"{name.upper() if len(name) == 3 else name:<23}{shown[0]}; real against real {shown[1]}")
    for name, title in (("", "power, made over real"), ("_axial", "  along the beam"), ("_lateral", "  across it")):
        if f"power_ratio{name}" not in quality:  # of a run before directions were told apart
            continue
        ratio = quality[f"power_ratio{name}"]
        bands = [f"{band} {value:.2f} ({ratio['real'][band]:.2f})" for band, value in ratio["generated"].items()]
        lines.append(f"{title:<23}{', '.join(bands)} by cycles a pixel (real over real)")
    return "\n".join(lines)
