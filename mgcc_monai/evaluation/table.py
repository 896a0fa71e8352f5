"""The summary of an evaluation as a table for the terminal; nothing heavy is imported for it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any

__all__ = ["DISTANCES", "format_table"]

DISTANCES = ("hd95", "assd")
_HEADER = ("protocol", "split", "preset", "method", "split_seed", "seed", "label_fraction", "threshold")
_WIDTH = 100


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _interval(figure: Mapping[str, Any], digits: int) -> str:
    low, high = (_number(figure[key], digits) for key in ("low", "high"))
    return "-" if "-" in (low, high) else f"{low} to {high}"


def _heading(summary: Mapping[str, Any]) -> list[str]:
    named = [
        f"{key.replace('_', ' ')} {summary[key]}" for key in (*_HEADER, "runs") if summary.get(key) not in (None, "")
    ]
    what = (
        f"{summary['n']} lesion images in {summary['groups']} groups at their original size, distances in "
        f"{summary['distance_unit']} (network size: pixels of the network's grid). Intervals: {summary['interval']}."
    )
    # a line may end between two of them, not inside one
    line = ", ".join(part.replace(" ", "\xa0") for part in named)
    return [part.replace("\xa0", " ") for part in (*textwrap.wrap(line, _WIDTH), *textwrap.wrap(what, _WIDTH))]


def format_table(summary: Mapping[str, Any]) -> str:
    """The summary for a terminal, at most 100 columns wide.

    Args:
        summary: as :func:`mgcc_monai.evaluation.summary.summarise` returns it.
    """
    unit = summary["distance_unit"]
    lines = [*_heading(summary), "", f"{'metric':<15}{'mean':>9}  {'95 % interval':^20}{'n':>6}{'network size':>15}"]
    for metric, figure in summary["metrics"].items():
        digits = 2 if metric in DISTANCES else 4
        name = f"{metric} ({unit})" if metric in DISTANCES else metric
        network = _number(summary["network_size"]["metrics"][metric]["mean"], digits)
        lines.append(
            f"{name:<15}{_number(figure['mean'], digits):>9}  {_interval(figure, digits):^20}"
            f"{figure['n']:>6}{network:>15}"
        )
    left_out = [f"{name} {summary[f'{name}_left_out']}" for name in DISTANCES if summary[f"{name}_left_out"]]
    if left_out:
        lines.append(f"left out, since a mask is empty: {', '.join(left_out)}")
    small, large = (f"{100 * limit:g} %" for limit in summary["size_limits"])
    lines += ["", f"{'class or size':<15}{'n':>9}{'dice':>9}  {'95 % interval':^20}{'iou':>6}{f'hd95 ({unit})':>15}"]
    for kind in ("by_class", "by_size"):
        for name, part in summary[kind].items():
            dice, iou, hd95 = (part["metrics"][key] for key in ("dice", "iou", "hd95"))
            lines.append(
                f"{name[:15]:<15}{part['n']:>9}{_number(dice['mean'], 4):>9}  {_interval(dice, 4):^20}"
                f"{_number(iou['mean'], 2):>6}{_number(hd95['mean'], 2):>15}"
            )
    found, normal = summary["lesion_sensitivity"], summary["normal"]
    lines += [
        f"lesion area: small below {small} of the image, medium to {large}, large above",
        "",
        f"lesions found: {found['found']} of {found['total']}, "
        f"rate {_number(found['rate'], 4)} ({_interval(found, 4)})",
    ]
    if normal["n"]:
        lines.append(
            f"normal images with a false positive: {normal['false_positives']} of {normal['n']}, rate "
            f"{_number(normal['false_positive_rate'], 4)} ({_interval(normal, 4)})"
        )
    return "\n".join(lines)
