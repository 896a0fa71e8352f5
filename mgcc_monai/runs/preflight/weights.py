"""Checks of a segmenter's weights, and of the settings that belong to them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from mgcc_monai.errors import MGCCError
from mgcc_monai.files import sha256
from mgcc_monai.runs.config import active_parser, active_workflow, literal
from mgcc_monai.runs.settings import config_folder, network_settings, read_json
from mgcc_monai.weights import check_fits, check_sha256, weights_in

__all__ = ["check_weights"]

logger = logging.getLogger(__name__)

_SETTINGS = ("network_def", "image_size", "resize", "image_mean", "image_std")
"""What belongs to weights as they were trained; the threshold does too, and may be chosen."""


def check_weights(network: torch.nn.Module, path: str, ckpt_sha256: str = "") -> None:
    """Check that weights, if any are named, belong to the network and, in a config that uses them, to its settings.

    Args:
        network: the network to fill.
        path: the weights.
        ckpt_sha256: of the weights that the settings belong to; empty where no one knows.

    Raises:
        MGCCError: when they are others, are of another network, or lie beside an ``inference.json`` with other
            settings than this run's.
    """
    if not path:
        return
    parser = active_parser()
    uses = parser is not None and "ckpt_path" in parser.config  # a training from ``pretrained`` has its own settings
    if uses:
        _check_origin(Path(path), ckpt_sha256)
    exported = getattr(network, "ckpt_sha256", None)  # an engine holds its weights itself
    if exported is None:
        check_fits(network, path)
    elif ckpt_sha256 and exported != ckpt_sha256:
        raise MGCCError("--engine: was exported from other weights than the config's; export these, or leave it out.")
    if uses:
        _check_settings(parser, Path(path))


def _check_origin(path: Path, ckpt_sha256: str) -> None:
    """Check that weights are those that the running config was written for, as far as it says."""
    own = weights_in(config_folder())
    if ckpt_sha256:
        if path.is_file():
            check_sha256(path, ckpt_sha256)
    elif active_workflow() is not None and own.is_file() and not (path.is_file() and path.samefile(own)):
        raise MGCCError(  # an older config that was copied or moved, which names its weights by their absolute path
            f"--ckpt_path {path}: the config in use belongs to {own}, beside it; give --ckpt_path {own}, or as "
            f"--config_file the inference.json of {path}."
        )


def _check_settings(parser: ConfigParser, path: Path) -> None:
    """Compare the running config with the ``inference.json`` beside the weights."""
    file = path.with_name("inference.json")
    if not file.is_file():
        return
    settings = read_json(file)
    if settings.get("ckpt_sha256"):
        if settings["ckpt_sha256"] != sha256(path) and path.name != "model.pt":
            return  # of other weights in this folder
        check_sha256(path, settings["ckpt_sha256"], file)
    elif path.name != "model.pt":
        return
    names = [name for name in _SETTINGS if _is_plain(name, settings.get(name)) and _is_plain(name, parser.get(name))]
    there = _comparable({name: settings[name] for name in names})
    here = _comparable({name: literal(parser, name) for name in names})
    faults = [
        f"{name} is {there.get(name)}, here {here.get(name)}"
        for name in {**there, **here}
        if there.get(name) != here.get(name)
    ]
    if faults:
        raise MGCCError(
            f"{file}: says of {path.name} that {'; '.join(faults)}. Use the settings that the weights were trained "
            f"with: --config_file {file} to segment, --segmentation_dir {file.parent} to evaluate, and no option that "
            "changes them."
        )
    threshold = literal(parser, "threshold") if "threshold" in parser.config else None
    if "threshold" in settings and threshold != settings["threshold"]:
        logger.warning("threshold %s is used; %s has %s for these weights.", threshold, file, settings["threshold"])


def _is_plain(name: str, value: Any) -> bool:
    """Whether a config says a setting itself: a part that is built by an expression comes from the settings."""
    return value is not None and (name not in ("network_def", "resize") or isinstance(value, Mapping))


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give settings one form, the network's one by one."""
    found = {name: value for name, value in settings.items() if name != "network_def"}
    network = settings.get("network_def", {})
    return found | {f"network_def#{name}": value for name, value in network_settings(network).items()}
