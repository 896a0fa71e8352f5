"""Names that configs of version 0.1 use: the ``inference.json`` beside the weights of its runs goes on working."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mgcc_monai.parse import parse_bool
from mgcc_monai.runs.preflight import leftovers, segmentation, shapes, weights
from mgcc_monai.runs.settings import config_folder, own_weights

__all__ = ["options", "preflight"]


def _check_options(bundle_root: str, standalone: bool = False) -> None:
    (segmentation.check_standalone if standalone else segmentation.check_bundle_root)(bundle_root)


def _check_aspect(image_size: Any, keep_aspect: Any) -> None:
    if parse_bool(keep_aspect, "keep_aspect"):
        shapes.check_square(image_size)


options = SimpleNamespace(boolean=parse_bool)
preflight = SimpleNamespace(
    check_aspect=_check_aspect,
    check_inference=segmentation.check_inference,
    check_leftovers=leftovers.check_leftovers,
    check_options=_check_options,
    check_output=segmentation.check_output,
    check_segmenter_shape=shapes.check_segmenter_shape,
    check_weights=weights.check_weights,
    config_folder=config_folder,
    own_weights=own_weights,
)
