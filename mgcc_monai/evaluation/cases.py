"""One row a case, from a stock evaluator to ``cases.csv`` and ``summary.json``."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor

from mgcc_monai.distributed import gather, is_main_process, rank_and_size
from mgcc_monai.errors import MGCCError
from mgcc_monai.evaluation.metrics import METRICS, case_metrics, lesion_sensitivity
from mgcc_monai.evaluation.summary import NORMAL, size_bin, summarise, to_json
from mgcc_monai.evaluation.table import format_table
from mgcc_monai.evaluation.threshold import foreground
from mgcc_monai.files import write_file, write_table

__all__ = ["COLUMNS", "CaseMetricsHandler", "case_row", "file_name", "image_name", "items_of", "pixel_spacing", "to_hw"]

_MM = ("hd95_mm", "assd_mm")
COLUMNS = (
    *("list", "image", "original", "class", "group", "width", "height", "spacing_row", "spacing_col", "threshold"),
    *("label_area", "pred_area", "label_fraction", "pred_fraction", "size", "lesions", "lesions_found"),
    *METRICS,
    *_MM,
    *(f"network_{metric}" for metric in METRICS),
)


def to_hw(array: Any) -> np.ndarray:
    """The lesion channel of a channel-first MONAI array as HW, as a viewer shows it.

    MONAI's readers give (x, y), so a PNG of 60 rows and 80 columns arrives as (1, 80, 60).

    Args:
        array: WH; or CWH: one channel, or at least two with the background first.

    Returns:
        HW float32.
    """
    tensor = array.as_tensor() if isinstance(array, MetaTensor) else torch.as_tensor(array)
    tensor = tensor.detach().cpu().float()
    if tensor.ndim == 2:
        return tensor.numpy().T
    if tensor.ndim != 3:
        raise ValueError(f"an image must be channel, width, height, but has shape {tuple(tensor.shape)}.")
    return foreground(tensor)[0].numpy().T


def file_name(item: Mapping[str, Any], image_key: str = "image") -> str:
    """The file that the image of an item was read from, or ``""``."""
    image = item.get(image_key)
    return str(image.meta.get("filename_or_obj") or "") if isinstance(image, MetaTensor) else ""


def image_name(item: Mapping[str, Any], data_root_dir: str = "", image_key: str = "image") -> str:
    """Name of the image of an item: its path below ``data_root_dir``, or the whole path, or ``""``."""
    name = file_name(item, image_key)
    if not name or not data_root_dir:
        return name
    path, root = Path(os.path.abspath(name)), Path(os.path.abspath(data_root_dir))
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else name


def pixel_spacing(item: Mapping[str, Any], image_key: str = "image") -> tuple[float, float] | None:
    """(row, column) spacing of an item in mm, or None where two positive numbers are nowhere to be found.

    Its own ``spacing`` goes before that which :class:`mgcc_monai.data.UltrasoundReader` found in the image's file.
    """
    image = item.get(image_key)
    for value in (item.get("spacing"), image.meta.get("spacing") if isinstance(image, MetaTensor) else None):
        numbers = [] if value is None else [float(number) for number in value]
        if len(numbers) == 2 and all(np.isfinite(number) and number > 0 for number in numbers):
            return numbers[0], numbers[1]
    return None


def items_of(engine: Engine) -> list[dict[str, Any]]:
    """What an evaluator knows of each image of the iteration, batch keys first, outputs over them.

    Raises:
        MGCCError: if the evaluator does not decollate.
    """
    batch, output = engine.state.batch, engine.state.output
    if not isinstance(output, list) or not isinstance(batch, list):
        raise MGCCError("the evaluator hands over whole batches; set decollate to true, so that it hands over images.")
    return [{**known, **made} for known, made in zip(batch, output, strict=True)]


def _text(item: Mapping[str, Any], key: str, default: str = "") -> str:
    """A batch turns numbers into tensors: give them back as text."""
    value = item.get(key)
    value = value.item() if isinstance(value, torch.Tensor) else value
    return default if value is None or value == "" else str(value)


def _maps(item: Mapping[str, Any], suffix: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    pred, label = item.get(f"pred{suffix}"), item.get(f"label{suffix}")
    if pred is None:
        raise MGCCError(f"{name}: there is no 'pred{suffix}'; the evaluator's postprocessing must make it.")
    prob = to_hw(pred)
    if not np.isfinite(prob).all():
        raise MGCCError(f"{name}: 'pred{suffix}' holds NaN or infinity; the weights or the image are broken.")
    if prob.min() < 0 or prob.max() > 1:
        raise MGCCError(f"{name}: 'pred{suffix}' must be probabilities, but runs from {prob.min()} to {prob.max()}.")
    if label is None:
        if item.get("list") != NORMAL:
            raise MGCCError(f"{name}: there is no 'label{suffix}', and the image is not of the list '{NORMAL}'.")
        return prob, np.zeros(prob.shape, dtype=bool)
    mask = to_hw(label) > 0.5
    if mask.shape != prob.shape:
        sizes = " and ".join(f"{array.shape[1]}x{array.shape[0]}" for array in (prob, mask))
        raise MGCCError(f"{name}: 'pred{suffix}' and 'label{suffix}' differ in size: {sizes}.")
    return prob, mask


def case_row(item: Mapping[str, Any], threshold: float = 0.5, data_root_dir: str = "") -> dict[str, Any]:
    """Everything that is measured on one image, with the keys of ``COLUMNS``.

    Args:
        item: ``pred`` and ``label`` at the network's size, ``pred_original`` and ``label_original`` at the image's:
            probabilities and masks, CWH; ``image`` (a MetaTensor, for its file name), ``list``, ``class``, ``group``,
            ``original`` and ``spacing`` ((row, column) in mm) where known. Without a group an image is its own.
        threshold: a pixel is lesion where its probability is at least this.
        data_root_dir: images are named by their path below it.

    Raises:
        MGCCError: if an array is missing, of another size than its partner, or no probability.
    """
    name = image_name(item, data_root_dir) or _text(item, "original")
    spacing = pixel_spacing(item)
    prob, label = _maps(item, "_original", name or "an image")
    small_prob, small_label = _maps(item, "", name or "an image")
    pred = prob >= threshold
    found, lesions = lesion_sensitivity(pred, label)
    row: dict[str, Any] = {
        "list": _text(item, "list", "test"),
        "image": name,
        "original": _text(item, "original"),
        "class": _text(item, "class", "unknown"),
        "group": _text(item, "group", name),
        "width": pred.shape[1],
        "height": pred.shape[0],
        "spacing_row": spacing[0] if spacing else None,
        "spacing_col": spacing[1] if spacing else None,
        "threshold": float(threshold),
        "label_area": int(label.sum()),
        "pred_area": int(pred.sum()),
        "label_fraction": float(label.mean()),
        "pred_fraction": float(pred.mean()),
        "size": size_bin(float(label.mean())),
        "lesions": lesions,
        "lesions_found": found,
        **case_metrics(pred, label),
    }
    in_mm = case_metrics(pred, label, spacing) if spacing else {}
    row |= {column: in_mm.get(column.removesuffix("_mm"), float("nan")) for column in _MM}
    network = case_metrics(small_prob >= threshold, small_label)
    row |= {f"network_{metric}": value for metric, value in network.items()}
    return row


class CaseMetricsHandler:
    """Measures every image of a ``SupervisedEvaluator`` and writes ``cases.csv`` and ``summary.json`` at its end.

    The evaluator's postprocessing leaves probabilities in ``pred`` and the keys that :func:`case_row` lists. The means
    over the lesion images are put into the evaluator's metrics too, for clients that read them there.

    Args:
        output_dir: folder of the two files.
        threshold: a pixel is lesion where its probability is at least this.
        header: what is evaluated, put first in the summary (protocol, split, seeds, dataset_hash, ...).
        data_root_dir: images are named by their path below it.
        postfix: put behind the names of the files: ``cases{postfix}.csv``.
        print_table: print the figures too.
    """

    def __init__(
        self,
        output_dir: str,
        threshold: float = 0.5,
        header: Mapping[str, Any] | None = None,
        data_root_dir: str = "",
        postfix: str = "",
        print_table: bool = True,
    ) -> None:
        if not 0 < threshold < 1:
            raise MGCCError(f"threshold must lie between 0 and 1, but is {threshold}.")
        self.output_dir = Path(output_dir)
        self.threshold = float(threshold)
        self.header = dict(header or {})
        self.data_root_dir = data_root_dir
        self.postfix = postfix
        self.print_table = print_table
        self.summary: dict[str, Any] = {}
        self._rows: dict[str, dict[str, Any]] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self._rows, self.summary = {}, {}

    def _collect(self, engine: Engine) -> None:
        for item in items_of(engine):
            row = case_row(item, self.threshold, self.data_root_dir)
            rank = rank_and_size()[0]
            row["image"] = row["image"] or f"case_{rank}_{len(self._rows)}"
            row["group"] = row["group"] or row["image"]
            self._rows[f"{row['list']}/{row['image']}"] = row

    def _finish(self, engine: Engine) -> None:
        rows = [row for _, row in sorted(gather(self._rows).items())]
        self.summary = summarise(rows, {**self.header, "threshold": self.threshold})
        means = {name: float(figure["mean"]) for name, figure in self.summary["metrics"].items()}
        engine.state.metrics |= {name: mean for name, mean in means.items() if math.isfinite(mean)}
        if not is_main_process():
            return
        write_table(self.output_dir / f"cases{self.postfix}.csv", COLUMNS, rows)
        write_file(self.output_dir / f"summary{self.postfix}.json", to_json(self.summary))
        if self.print_table:
            print(format_table(self.summary), flush=True)
