"""Contours of the prediction and the reference, drawn over each image."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from mgcc_monai.data.formats.images import image_stem, read_image
from mgcc_monai.errors import MGCCError
from mgcc_monai.evaluation.cases import file_name, items_of, to_hw
from mgcc_monai.pictures import overlay, write_picture

__all__ = ["OverlayHandler"]


def _stretch(array: np.ndarray) -> np.ndarray:
    low, high = float(array.min()), float(array.max())
    return np.round((array - low) / ((high - low) or 1.0) * 255).astype(np.uint8)


def _grey(source: str, shape: tuple[int, ...], crop: Any) -> np.ndarray | None:
    """The image of a file, or what is cut out of it, as 8-bit grey, HW; None where there is none of that shape."""
    try:
        image = read_image(source, "middle", crop)
    except MGCCError:
        return None
    return image if image.shape == shape else None


class OverlayHandler:
    """Writes a PNG of every image of an evaluator with the contour of what was found.

    The picture is the image's file where that has the size of the mask, else the image in the evaluator's hands.

    Args:
        output_dir: folder of the pictures.
        postfix: put behind the image's name: ``image{postfix}.png``.
        pred_key: mask or probabilities, at the size to draw in.
        label_key: reference mask of the same size; ``""`` draws none.
        image_key: its meta data name the file.
        threshold: a pixel is lesion where ``pred_key`` is at least this.
        data_root_dir: the folders below it are kept below ``output_dir``, as ``SaveImage`` does.
        limit: write the first so many pictures (of each process) only; 0 writes all.
        crop: what the evaluator's reader cuts out; see :class:`mgcc_monai.data.UltrasoundReader`.
    """

    def __init__(
        self,
        output_dir: str,
        postfix: str = "_overlay",
        pred_key: str = "pred",
        label_key: str = "",
        image_key: str = "image",
        threshold: float = 0.5,
        data_root_dir: str = "",
        limit: int = 0,
        crop: Any = "none",
    ) -> None:
        self.output_dir = Path(output_dir)
        self.postfix = postfix
        self.pred_key = pred_key
        self.label_key = label_key
        self.image_key = image_key
        self.threshold = threshold
        self.data_root_dir = data_root_dir
        self.limit = limit
        self.crop = crop
        self._written = 0
        self._sources: dict[Path, str] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._written, self._sources = 0, {}

    def _path(self, source: str) -> Path:
        path, root = Path(os.path.abspath(source)), os.path.abspath(self.data_root_dir)
        folder = path.parent.relative_to(root) if self.data_root_dir and path.is_relative_to(root) else ""
        return self.output_dir / folder / f"{image_stem(path)}{self.postfix}.png"

    def _draw(self, item: Mapping[str, Any], source: str) -> np.ndarray:
        mask = to_hw(item[self.pred_key]) >= self.threshold
        label = to_hw(item[self.label_key]) > 0.5 if self.label_key and item.get(self.label_key) is not None else None
        grey = _grey(source, mask.shape, self.crop) if source else None
        if grey is None:
            grey = _stretch(to_hw(item[self.image_key]))
        if grey.shape != mask.shape or (label is not None and label.shape != mask.shape):
            raise MGCCError(
                f"{source or 'an image'}: '{self.pred_key}' is {mask.shape[1]}x{mask.shape[0]}, unlike the image or "
                f"the label; bring it to the size of the image (Invertd) before the overlay."
            )
        return overlay(grey, mask, label)

    def _write(self, engine: Engine) -> None:
        for item in items_of(engine):
            if self.limit and self._written >= self.limit:
                return
            source = file_name(item, self.image_key)
            path = self._path(source or f"image_{self._written:06d}")
            if self._sources.setdefault(path, source) != source:
                raise MGCCError(f"{path}: {self._sources[path]} and {source} would share it; set data_root_dir.")
            write_picture(path, self._draw(item, source))
            self._written += 1
