"""What was found in each image, as a table: place, size and probability of every lesion."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from skimage.measure import label as connected_components
from skimage.measure import regionprops

from mgcc_monai.distributed import gather, is_main_process
from mgcc_monai.evaluation.cases import image_name, items_of, pixel_spacing, to_hw
from mgcc_monai.files import write_table

__all__ = ["COLUMNS", "LesionTableHandler", "lesion_rows", "measure_lesions"]

COLUMNS = (
    *("image", "width", "height", "lesions", "lesion", "area_pixels", "area_fraction", "x", "y"),
    *("box_width", "box_height", "mean_probability", "area_mm2", "note", "mask"),
)
_DIGITS = 7  # significant ones of areas and probabilities, all that 32-bit numbers hold


def measure_lesions(
    mask: np.ndarray, spacing: Sequence[float] | None = None, prob: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """Area and bounding box of every lesion, an 8-connected component, the largest first.

    Args:
        mask: HW, nonzero is lesion.
        spacing: (row, column) size of a pixel in mm.
        prob: HW probabilities, for the mean inside each lesion.

    Returns:
        A dictionary a lesion: lesion (1, 2, ...), area_pixels, area_fraction (of the image), x, y (left and top pixel
        of its box), box_width, box_height in pixels, mean_probability and area_mm2 (NaN where unknown).

    Raises:
        ValueError: if the mask is not HW, or the probabilities are of another shape.
    """
    mask = np.asarray(mask, dtype=bool)
    if mask.ndim != 2 or (prob is not None and np.shape(prob) != mask.shape):
        raise ValueError(f"mask must be HW, and prob the same, but they have {mask.shape} and {np.shape(prob)}.")
    pixel = float("nan") if spacing is None else float(spacing[0]) * float(spacing[1])
    found = []
    for region in regionprops(connected_components(mask, connectivity=2), intensity_image=prob):
        top, left, bottom, right = region.bbox
        found.append(
            {
                "area_pixels": int(region.area),
                "area_fraction": float(region.area) / mask.size,
                "x": left,
                "y": top,
                "box_width": right - left,
                "box_height": bottom - top,
                "mean_probability": float("nan") if prob is None else float(region.intensity_mean),
                "area_mm2": float(region.area) * pixel,
            }
        )
    found.sort(key=lambda lesion: (-lesion["area_pixels"], lesion["y"], lesion["x"]))
    return [{"lesion": number, **lesion} for number, lesion in enumerate(found, start=1)]


def lesion_rows(
    name: str, mask: np.ndarray, spacing: Sequence[float] | None = None, prob: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """The lines of the table for one image: one a lesion, or one that says 0 lesions.

    Args:
        name: of the image.
        mask: HW, nonzero is lesion.
        spacing: (row, column) size of a pixel in mm.
        prob: HW probabilities.
    """
    lesions = measure_lesions(mask, spacing, prob)
    known = {"image": name, "width": mask.shape[1], "height": mask.shape[0], "lesions": len(lesions)}
    none = {"lesion": 0, "area_pixels": 0, "area_fraction": 0.0, "area_mm2": 0.0 if spacing else None}
    rows = [{**known, **lesion} for lesion in lesions or [none]]
    return [{k: float(f"{v:.{_DIGITS}g}") if isinstance(v, float) else v for k, v in row.items()} for row in rows]


class LesionTableHandler:
    """Writes a CSV of the lesions of all images at the end of an inference evaluator, and removes an earlier one first.

    x and y count from the left and the top of the image as a viewer shows it. ``note`` says what makes a line
    worthless: an image of one value. ``mask`` is the file that ``SaveImage`` wrote, where its meta data say so.

    ``lesions`` has the lines by image, and ``seconds`` what each image took, reading and writing included.

    Args:
        output_dir: folder of the file.
        filename: its name.
        pred_key: mask (0 and 1) or probabilities, at the size to measure in.
        prob_key: probabilities, where ``pred_key`` is already a mask; without them the mean probability stays empty.
        threshold: a pixel is lesion where ``pred_key`` is at least this.
        image_key: its meta data name the image.
        data_root_dir: images are named by their path below it.
    """

    def __init__(
        self,
        output_dir: str,
        filename: str = "lesions.csv",
        pred_key: str = "pred",
        prob_key: str = "prob",
        threshold: float = 0.5,
        image_key: str = "image",
        data_root_dir: str = "",
    ) -> None:
        self.path = Path(output_dir) / filename
        self.pred_key = pred_key
        self.prob_key = prob_key
        self.threshold = threshold
        self.image_key = image_key
        self.data_root_dir = data_root_dir
        self.lesions: dict[str, list[dict[str, Any]]] = {}
        self.seconds: dict[str, float] = {}
        self._begun = 0.0

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self.lesions, self.seconds = {}, {}
        if is_main_process():  # masks of this run must not stand beside figures of another
            self.path.unlink(missing_ok=True)

    def _measure(self, item: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
        pred = to_hw(item[self.pred_key])
        prob = to_hw(item[self.prob_key]) if item.get(self.prob_key) is not None else None
        if prob is None and np.any((pred != 0) & (pred != 1)):
            prob = pred
        image, saved = item.get(self.image_key), getattr(item[self.pred_key], "meta", {}).get("saved_to")
        constant = image is not None and bool((image == image.flatten()[0]).all())
        more = {
            "note": "constant image" if constant else "",
            "mask": Path(os.path.relpath(saved, self.path.parent)).as_posix() if saved else "",
        }
        rows = lesion_rows(name, pred >= self.threshold, pixel_spacing(item, self.image_key), prob)
        return [row | more for row in rows]

    def _begin(self, engine: Engine) -> None:
        self._begun = time.perf_counter()

    def _collect(self, engine: Engine) -> None:
        items = list(items_of(engine))
        seconds = (time.perf_counter() - self._begun) / max(1, len(items))
        for number, item in enumerate(items, start=len(self.lesions)):
            name = image_name(item, self.data_root_dir, self.image_key) or f"image_{number:06d}"
            self.lesions[name], self.seconds[name] = self._measure(item, name), seconds

    def _finish(self, engine: Engine) -> None:
        images = gather(self.lesions)
        if is_main_process():
            write_table(self.path, COLUMNS, [row for name in sorted(images) for row in images[name]])
