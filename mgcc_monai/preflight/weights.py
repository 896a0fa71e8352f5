"""Checks of a segmenter's weights, and of the settings that belong to them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from mgcc_monai import networks
from mgcc_monai.errors import MGCCError, plain_os_errors, raise_faults
from mgcc_monai.files import sha256
from mgcc_monai.handlers.best_weights import inferring_network
from mgcc_monai.options import active_parser, active_workflow, boolean, literal
from mgcc_monai.preflight.segmentation import TRAIN_FIRST
from mgcc_monai.security.weights import check_fits, check_sha256

__all__ = ["build", "check_weights", "config_folder", "own_weights", "read_settings"]

logger = logging.getLogger(__name__)

_SETTINGS = ("network_def", "image_size", "keep_aspect", "image_mean", "image_std")
"""What belongs to weights as they were trained; the threshold does too, and may be chosen."""


def config_folder() -> str:
    """Return the folder of the config that is being run, its first file's where there are several."""
    workflow = active_workflow()
    return os.path.abspath(workflow.config_root_path if workflow is not None else ".")


def own_weights(ckpt_sha256: str = "") -> str:
    """Return the weights of a run's ``inference.json``: ``model.pt`` beside it, wherever the two lie now.

    Args:
        ckpt_sha256: of the weights that the config was written for.

    Raises:
        MGCCError: when they are missing, or are others.
    """
    path = Path(config_folder()) / "model.pt"
    if not path.is_file():
        raise MGCCError(
            f"{path}: there is no such file of weights; keep it beside its inference.json, and name that one first in "
            "--config_file."
        )
    check_sha256(path, ckpt_sha256)
    return str(path)


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
    check_fits(network, path)
    if uses:
        _check_settings(parser, Path(path))


def _check_origin(path: Path, ckpt_sha256: str) -> None:
    """Check that weights are those that the running config was written for, as far as it says."""
    own = Path(config_folder()) / "model.pt"
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
    settings = _read(file)
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
    """Whether a config says a setting itself: a network that is built by an expression comes from the settings."""
    return value is not None and (name != "network_def" or isinstance(value, Mapping))


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give settings one form, the network's one by one."""
    found = {name: value for name, value in settings.items() if name != "network_def"}
    if "keep_aspect" in found:
        found["keep_aspect"] = boolean(found["keep_aspect"], "keep_aspect")
    network = settings.get("network_def", {})
    return found | {f"network_def#{name}": value for name, value in inferring_network(network).items()}


@plain_os_errors()
def read_settings(path: str, default: str) -> dict[str, Any]:
    """Read a run's own ``inference.json``: network, sizes, statistics and threshold of its weights.

    Args:
        path: the run's file.
        default: the bundle's file, read where there is no run yet, so that clients can look at the workflow.

    Raises:
        MGCCError: when there is neither.
    """
    for file in (Path(path), Path(default)):
        if file.is_file():
            return _read(file)
    raise MGCCError(f"{path}: there is no such file; {TRAIN_FIRST}")


def _read(file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise MGCCError(f"{file}: cannot be read as JSON settings; copy it again from the run that made the weights.")
    return settings


def build(definition: Mapping[str, Any]) -> Any:
    """Build the network that a run's settings describe.

    Args:
        definition: a ``_target_`` dictionary of plain values; settings come with weights, perhaps from a stranger.

    Raises:
        MGCCError: when it names anything but the networks of this package, or holds an expression.
    """
    raise_faults([f"the run's inference.json: {fault}" for fault in _foreign(definition)], "network_def")
    return ConfigParser({"component": dict(definition)}).get_parsed_content("component")


def _foreign(value: Any, place: str = "network_def", key: str = "") -> list[str]:
    """Whatever would run other code than ours, a line each."""
    advice = "use the settings that a training of yours wrote."
    if isinstance(value, Mapping):
        return [fault for k, v in value.items() for fault in _foreign(v, f"{place}#{k}", str(k))]
    if isinstance(value, list):
        return [fault for number, v in enumerate(value) for fault in _foreign(v, f"{place}#{number}")]
    if key == "_target_":
        ours = str(value).removeprefix("mgcc_monai.networks.") in networks.__all__
        return [] if ours else [f"{place}: {value!r} is no network of mgcc_monai; {advice}"]
    if key.startswith("_") or (isinstance(value, str) and value[:1] in ("$", "@", "%")):
        return [f"{place}: {value!r} is no plain value; {advice}"]
    return []
