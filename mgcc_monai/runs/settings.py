"""What belongs to weights and runs that are there already: read from their JSON files, and built of what these say."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from mgcc_monai import networks
from mgcc_monai.errors import MGCCError, plain_os_errors, raise_errors
from mgcc_monai.parse import parse_bool
from mgcc_monai.runs.config import active_workflow, literal
from mgcc_monai.weights import check_fits, check_sha256, load_state_dict, weights_in

__all__ = [
    "build",
    "bundle_folder",
    "config_folder",
    "network_settings",
    "own_weights",
    "read_run",
    "read_settings",
    "read_trained",
    "resize",
]

TRAIN_FIRST = "train first, or give the --output_dir of a finished training."
_TRANSFORMS = ("Compose", "Resized", "SpatialPadd")


def config_folder() -> str:
    """Return the folder of the config that is being run, its first file's where there are several."""
    workflow = active_workflow()
    return os.path.abspath(workflow.config_root_path if workflow is not None else ".")


def bundle_folder() -> str:
    """Return the folder of the bundle whose config is being run: the nearest above it with ``configs``."""
    folder = Path(config_folder())
    above = (parent for parent in (folder, *folder.parents) if (parent / "configs" / "metadata.json").is_file())
    return str(next(above, folder.parent if folder.name == "configs" else folder))


def own_weights(ckpt_sha256: str = "") -> str:
    """Return the weights beside a run's ``inference.json``, wherever the two lie now.

    Args:
        ckpt_sha256: of the weights that the config was written for.

    Raises:
        MGCCError: when they are missing, or are others.
    """
    path = weights_in(config_folder())
    if not path.is_file():
        raise MGCCError(
            f"{path}: there is no such file of weights; keep it beside its inference.json, and name that one first in "
            "--config_file."
        )
    check_sha256(path, ckpt_sha256)
    return str(path)


@plain_os_errors()
def read_run(folder: str) -> dict[str, Any]:
    """Read a run's ``run.json``; where there is none, what is needed to look at the workflow, without a ``stage``."""
    path = Path(folder) / "run.json"
    none = {
        **{"preset": "", "method": "", "seed": 0, "unlabeled_lists": []},
        **{"image_size": [256, 256], "trained_lists": ["training", "unlabeled"]},
    }
    return json.loads(path.read_text()) if path.is_file() else {**none, "missing": str(path)}


@plain_os_errors()
def read_settings(segmentation_dir: str, bundle_root: str) -> dict[str, Any]:
    """Read a run's own ``inference.json``: network, sizes, statistics and threshold of its weights.

    Args:
        segmentation_dir: the run's folder.
        bundle_root: the bundle's folder, whose file is read where there is no run yet, so that clients can look at the
            workflow.

    Raises:
        MGCCError: when there is neither.
    """
    own, shipped = Path(segmentation_dir) / "inference.json", Path(bundle_root) / "configs" / "inference.json"
    if own.is_file():
        return read_json(own)
    if not shipped.is_file():
        raise MGCCError(f"{own}: there is no such file; {TRAIN_FIRST}")
    parser = ConfigParser(read_json(shipped))
    return {**parser.config, "resize": literal(parser, "resize")}


def read_trained(folder: str | Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Return a run's network with its weights, in evaluation mode, and its settings.

    Args:
        folder: with ``model.pt`` and its ``inference.json``.

    Raises:
        MGCCError: when one is missing, or the weights are others than those of the settings, or of another network.
    """
    weights, file = weights_in(folder), Path(folder) / "inference.json"
    errors = [
        f"{path}: there is no such file; give --weights the segmentation folder of a finished run."
        for path in (weights, file)
        if not path.is_file()
    ]
    raise_errors(errors, str(folder))
    settings = read_json(file)
    network = build(settings["network_def"])
    check_sha256(weights, str(settings.get("ckpt_sha256", "")), file)
    check_fits(network, weights)
    network.load_state_dict(load_state_dict(weights))
    return network.eval(), settings


def read_json(file: Path) -> dict[str, Any]:
    """Read settings.

    Raises:
        MGCCError: when the file cannot be read, or holds no object.
    """
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
    ours = {f"mgcc_monai.networks.{name}" for name in networks.__all__}
    return _build(definition, {*ours, "torch.nn.Identity"}, "network_def", "network of mgcc_monai")


def network_settings(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a ``network_def`` counts when images are segmented: of perturbations, their number alone.

    Args:
        definition: a ``_target_`` dictionary of plain values; arguments of MGCC that it leaves out have their defaults.
    """
    settings = dict(definition)
    if settings.get("_target_") == "mgcc_monai.networks.MGCC":
        defaults = {name: option.default for name, option in inspect.signature(networks.MGCC).parameters.items()}
        settings = {**defaults, **settings}
        perturbations = definition.get("perturbations")
        settings["perturbations"] = len(settings["mixer_depths"] if perturbations is None else perturbations)
        for name in ("auxiliary_per_step", "recompute_decoders"):  # of training steps
            settings.pop(name)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def resize(settings: Mapping[str, Any], pad_value: float = 0.0) -> Any:
    """Build the transform that brings images to the size of a run.

    Args:
        settings: of the run, with ``resize``; or ``keep_aspect`` and ``image_size``, as version 0.1 wrote them.
        pad_value: value of padding, for the latter.

    Raises:
        MGCCError: when it names anything but MONAI's resizing and padding, or holds an expression.
    """
    definition = settings.get("resize")
    if definition is None:
        size, keep = settings["image_size"], parse_bool(settings.get("keep_aspect", False), "keep_aspect")
        both: dict[str, Any] = {"keys": ["image", "label"], "allow_missing_keys": True}
        definition = {"_target_": "Resized", **both, "mode": ["bilinear", "nearest"], "anti_aliasing": [True, False]}
        definition |= {"spatial_size": max(size), "size_mode": "longest"} if keep else {"spatial_size": size}
        if keep:
            pad = {"_target_": "SpatialPadd", **both, "spatial_size": size, "value": pad_value}
            definition = {"_target_": "Compose", "transforms": [definition, pad]}
    return _build(definition, set(_TRANSFORMS), "resize", "resizing transform of MONAI")


def _build(definition: Any, allowed: set[str], place: str, what: str) -> Any:
    raise_errors([f"the run's settings: {error}" for error in _foreign(definition, allowed, place, what)], place)
    return ConfigParser({"component": dict(definition)}).get_parsed_content("component")


def _foreign(value: Any, allowed: set[str], place: str, what: str, key: str = "") -> list[str]:
    """Return whatever would run other code than what is allowed, one line each."""
    advice = "use the settings that a training of yours wrote."
    if isinstance(value, Mapping):
        return [error for k, v in value.items() for error in _foreign(v, allowed, f"{place}#{k}", what, str(k))]
    if isinstance(value, list):
        return [error for number, v in enumerate(value) for error in _foreign(v, allowed, f"{place}#{number}", what)]
    if key == "_target_":
        return [] if value in allowed else [f"{place}: {value!r} is no {what}; {advice}"]
    if key.startswith("_") or (isinstance(value, str) and value[:1] in ("$", "@", "%")):
        return [f"{place}: {value!r} is no plain value; {advice}"]
    return []
