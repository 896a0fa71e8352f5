"""From a table of cases to the figures that are reported."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mgcc_monai.evaluation.metrics import METRICS
from mgcc_monai.evaluation.statistics import bootstrap_mean, wilson_interval
from mgcc_monai.evaluation.table import DISTANCES

__all__ = ["NORMAL", "SIZE_LIMITS", "size_bin", "summarise", "to_json"]

NORMAL = "normal"
SIZE_LIMITS = (0.03, 0.10)
_REPEATS = 2000

Row = Mapping[str, Any]


def size_bin(fraction: float) -> str:
    """Name of a lesion area: small below 3 % of the image, medium up to 10 %, large above.

    The limits are fixed, so that figures of different splits and data sets stay comparable.

    Args:
        fraction: area of all lesions of the image over the area of the image, in [0, 1]; 0 has no size, ``""``.
    """
    if fraction <= 0:
        return ""
    return "small" if fraction < SIZE_LIMITS[0] else "medium" if fraction <= SIZE_LIMITS[1] else "large"


def _figures(rows: Sequence[Row], column: Callable[[str], str]) -> dict[str, dict[str, float | int]]:
    """Mean, interval and number of cases of every metric; ``column`` says which column holds a metric."""
    groups = [row["group"] for row in rows]
    result = {}
    for metric in METRICS:
        values = [float(row[column(metric)]) for row in rows]
        mean, low, high = bootstrap_mean(values, groups, _REPEATS)
        result[metric] = {"mean": mean, "low": low, "high": high, "n": sum(not math.isnan(v) for v in values)}
    return result


def _by(rows: Sequence[Row], key: str, names: Iterable[str], column: Callable[[str], str]) -> dict[str, Any]:
    chosen = {name: [row for row in rows if row[key] == name] for name in names}
    return {name: {"n": len(part), "metrics": _figures(part, column)} for name, part in chosen.items() if part}


def summarise(rows: Sequence[Row], header: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The figures of an evaluation.

    The headline is the mean over the lesion images (every row whose ``list`` is not ``normal``) at their original
    size. Distances are in mm where every one of them has a spacing, else in pixels for all. An image of ``normal`` is
    a false positive when a single pixel of it is called lesion.

    Args:
        rows: as :func:`mgcc_monai.evaluation.cases.case_row` makes them; their order does not matter.
        header: what was evaluated (protocol, split, preset, method, seeds, threshold, dataset_hash, ...); it is put
            first, as given; ``runs`` is 1 unless it says otherwise.

    Returns:
        A dictionary for :func:`to_json` and :func:`format_table`; figures that do not exist are NaN.
    """
    rows = sorted(rows, key=lambda row: (str(row["list"]), str(row["image"])))
    lesion = [row for row in rows if row["list"] != NORMAL]
    normal = [row for row in rows if row["list"] == NORMAL]
    in_mm = bool(lesion) and all(row["spacing_row"] is not None for row in lesion)

    def original(metric: str) -> str:
        return f"{metric}_mm" if in_mm and metric in DISTANCES else metric

    metrics = _figures(lesion, original)
    found, total = sum(row["lesions_found"] for row in lesion), sum(row["lesions"] for row in lesion)
    found_low, found_high = wilson_interval(found, total)
    false = sum(row["pred_area"] > 0 for row in normal)
    false_low, false_high = wilson_interval(false, len(normal))
    nan = float("nan")
    return {
        "runs": 1,
        **(header or {}),
        "n": len(lesion),
        "groups": len({row["group"] for row in lesion}),
        "distance_unit": "mm" if in_mm else "pixels",
        "interval": f"95 % percentile bootstrap over groups, {_REPEATS} repeats; rates: 95 % Wilson",
        "size_limits": list(SIZE_LIMITS),
        "metrics": metrics,
        **{f"{name}_left_out": len(lesion) - int(metrics[name]["n"]) for name in DISTANCES},
        "network_size": {"distance_unit": "pixels", "metrics": _figures(lesion, lambda metric: f"network_{metric}")},
        "by_class": _by(lesion, "class", sorted({row["class"] for row in lesion}), original),
        "by_size": _by(lesion, "size", ("small", "medium", "large"), original),
        "lesion_sensitivity": {
            "found": found,
            "total": total,
            "rate": found / total if total else nan,
            "low": found_low,
            "high": found_high,
        },
        "normal": {
            "n": len(normal),
            "false_positives": false,
            "false_positive_rate": false / len(normal) if normal else nan,
            "low": false_low,
            "high": false_high,
            "mean_area_fraction": float(np.mean([row["pred_fraction"] for row in normal])) if normal else nan,
        },
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(summary: Mapping[str, Any]) -> str:
    """The summary as strict JSON: NaN becomes null."""
    return json.dumps(_plain(summary), indent=4, allow_nan=False, ensure_ascii=False) + "\n"
