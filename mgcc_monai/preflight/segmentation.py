"""Checks of the segmentation stage, and those that every stage needs."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from mgcc_monai import options
from mgcc_monai.data.datalist import ALL_LISTS, load_datalist
from mgcc_monai.data.integrity import check_dataset
from mgcc_monai.data.reader import image_stem, read_image, read_mask
from mgcc_monai.distributed import rank_and_size
from mgcc_monai.errors import MGCCError, raise_faults
from mgcc_monai.handlers.checkpoint import newest_checkpoint
from mgcc_monai.security import weights
from mgcc_monai.security.bundle_check import check_definition

__all__ = [
    "build",
    "check_data",
    "check_evaluation",
    "check_inference",
    "check_options",
    "check_resume",
    "check_training",
    "check_weights",
    "read_run",
    "read_settings",
]

logger = logging.getLogger(__name__)

_COMPARED = 2000  # images up to which near-duplicates are looked for before a training

_TRAIN_FIRST = "train first, or give the --output_dir of a finished training."


def check_options(bundle_root: str, standalone: bool = False) -> None:
    """Refuse a ``bundle_root`` that is none, and misspelt options.

    Args:
        bundle_root: the bundle's folder, which holds ``configs``.
        standalone: the config needs no other file of the bundle, so that ``bundle_root`` may be any folder.

    Raises:
        MGCCError: see :func:`mgcc_monai.options.check_options`.
    """
    configs = Path(bundle_root) / "configs"
    if not standalone and not (configs / "metadata.json").is_file():
        raise MGCCError(
            f"--bundle_root {bundle_root}: there is no configs/metadata.json in it; run from the bundle's folder or "
            "give its path."
        )
    options.check_options(configs)


def check_items(items: Sequence[Mapping[str, Any]], crop: Any = None) -> list[str]:
    """Read every image and label once and return what is wrong with them, a line a fault."""
    faults = []
    for item in items:
        try:
            image = read_image(item["image"], crop=crop)
            if "label" in item:
                label = read_mask(item["label"])
                if label.shape != image.shape:
                    faults.append(
                        f"{item['label']}: the mask has {label.shape[1]} x {label.shape[0]} pixels, its image "
                        f"{image.shape[1]} x {image.shape[0]}; give masks of their images' size."
                    )
        except MGCCError as error:
            faults.append(error.message)
    return list(dict.fromkeys(faults))  # what is wrong with a file is told once, not for every frame of it


def check_data(datalist: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> None:
    """Run every check of ``python -m mgcc_monai check`` before a training.

    Args:
        datalist: a dataset as :func:`mgcc_monai.data.load_datalist` reads it.
        items: what is trained on; those that are not of the dataset, such as generated images, are read too.

    Raises:
        MGCCError: lists every fault.
    """
    listed = {item["image"] for name in ALL_LISTS for item in datalist.get(name, [])}
    report = check_dataset(datalist["file"], near_copies=len(listed) <= _COMPARED)
    if len(listed) > _COMPARED:
        logger.warning("%d images: near-duplicates are looked for by `python -m mgcc_monai check` only.", len(listed))
    if report.warnings:
        logger.warning(
            "%s: %d warnings, to be seen by `python -m mgcc_monai check`.", report.file, len(report.warnings)
        )
    others = check_items([item for item in items if item["image"] not in listed])
    raise_faults([*(finding.line for finding in report.faults), *others], "training data")


def check_training(
    datalist: Mapping[str, Any],
    unlabeled: Sequence[Mapping[str, Any]],
    batch_size: int,
    unlabeled_batch_size: int,
    consistency_weight: float,
) -> None:
    """Check that the lists can feed the batches.

    Args:
        datalist: a dataset as :func:`mgcc_monai.data.load_datalist` reads it.
        unlabeled: the items of the unlabelled stream.
        batch_size: labelled images a batch, of each process.
        unlabeled_batch_size: unlabelled images a batch, of each process.
        consistency_weight: final weight of the consistency.

    Raises:
        MGCCError: lists every fault.
    """
    faults = []
    training, validation = datalist["training"], datalist["validation"]
    ranks = rank_and_size()[1]
    batch_size, unlabeled_batch_size = int(batch_size) * ranks, int(unlabeled_batch_size) * ranks
    if len(training) < batch_size:
        faults.append(
            f"list 'training': {len(training)} labelled images for batches of {batch_size}; lower --batch_size or "
            "raise --label_fraction when preparing."
        )
    if consistency_weight > 0 and len(unlabeled) < unlabeled_batch_size:
        listed = {item["image"] for name in ALL_LISTS for item in datalist.get(name, [])}
        generated = sum(item["image"] not in listed for item in unlabeled)
        faults.append(
            f"unlabelled images: {len(unlabeled)}, {generated} of them generated, for batches of "
            f"{unlabeled_batch_size}; lower --unlabeled_batch_size, raise --count, or give --generated_fraction 0 to "
            "train on real images alone."
            if generated
            else f"list 'unlabeled': {len(unlabeled)} images for batches of {unlabeled_batch_size}, while the "
            f"consistency weight is {consistency_weight:g}; prepare with --label_fraction below 1 or with --unlabeled "
            "FOLDER, or train with configs/methods/supervised.yaml."
        )
    if not validation:
        faults.append("list 'validation': empty, so no best weights can be chosen; prepare more images.")
    raise_faults(faults, "training data")


def check_resume(folder: str, resume: Any) -> None:
    """Check, before anything is written, that there is a checkpoint in ``folder`` where one is to be resumed from."""
    if options.boolean(resume, "resume"):
        newest_checkpoint(folder)


def check_weights(network: torch.nn.Module, path: str) -> None:
    """Check that weights, if any are named, belong to the network; see ``security.weights.check_fits``."""
    if path:
        weights.check_fits(network, path)


def check_inference(paths: Sequence[str], dataset_dir: str, output_dir: str, crop: Any = None) -> None:
    """Check the images to segment, and that no mask would overwrite an image or another mask.

    Args:
        paths: the images.
        dataset_dir: the folder that they come from.
        output_dir: the folder that the masks go to.
        crop: what is cut out of the images; see :class:`mgcc_monai.data.UltrasoundReader`.

    Raises:
        MGCCError: lists every fault.
    """
    faults = []
    if Path(output_dir).resolve() in {Path(path).resolve().parent for path in paths}:
        faults.append(f"--output_dir {output_dir}: holds the images themselves; give another folder for the masks.")
    seen: dict[str, str] = {}
    for path in paths:
        stem = image_stem(path)
        if stem in seen:
            faults.append(f"{path}: its mask would have the same name as that of {seen[stem]}; rename one.")
        seen[stem] = path
    for stem, path in seen.items():
        for postfix in ("_overlay", "_prob"):
            if stem.endswith(postfix) and stem.removesuffix(postfix) in seen:
                faults.append(f"{path}: its mask would have the name of another image's {postfix[1:]}; rename it.")
    raise_faults(faults + check_items([{"image": path} for path in paths], crop), f"images in {dataset_dir}")


def check_evaluation(
    datalist: Mapping[str, Any],
    items: Sequence[Mapping[str, Any]],
    name: str,
    run: Mapping[str, Any],
    threshold: float,
) -> None:
    """Check the images to evaluate on, and that none of them trained the weights.

    Args:
        datalist: the dataset to evaluate on.
        items: its items to evaluate.
        name: the list that they are of.
        run: the ``run.json`` of the weights.
        threshold: probability from which a pixel is lesion.

    Raises:
        MGCCError: when the threshold is none, there was no training, or the weights were trained on another split of
            these images; or lists every unreadable file.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold < 1:
        raise MGCCError(f"--threshold {threshold}: give a number between 0 and 1.")
    if "missing" in run:
        raise MGCCError(f"{run['missing']}: there is no such file; {_TRAIN_FIRST}")
    if run.get("dataset_hash") != datalist["hash"] and not Path(run.get("dataset", "")).exists():
        logger.warning(
            "The weights were trained on another dataset, %s, which is gone: that none of these images is in it cannot "
            "be checked.",
            run.get("dataset"),
        )
    elif run.get("dataset_hash") != datalist["hash"]:
        trained = load_datalist(run["dataset"])
        if trained["hash"] != run.get("dataset_hash"):
            raise MGCCError(
                f"{run['dataset']}: was changed since the weights were trained on it; train again, or evaluate on "
                "the data as they were."
            )
        seen = [item for part in ("training", "unlabeled") for item in trained[part]]
        keys = ["sha256", "group"] if trained["folder"] == datalist["folder"] else ["sha256"]
        known = {(key, item[key]) for item in seen for key in keys}
        shared = sum(any((key, item[key]) in known for key in keys) for item in datalist[name])
        if shared:
            raise MGCCError(
                f"list '{name}': {shared} of its {len(datalist[name])} images, or near-duplicates of them, trained the "
                f"weights, in another split; evaluate on {run['dataset']}."
            )
    raise_faults(check_items(items), f"list '{name}'")


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
            return json.loads(file.read_text())
    raise MGCCError(f"{path}: there is no such file; {_TRAIN_FIRST}")


def read_run(folder: str) -> dict[str, Any]:
    """Read a run's ``run.json``; where there is none, what is needed to look at the workflow, without a ``stage``."""
    path = Path(folder) / "run.json"
    none = {"preset": "", "method": "", "seed": 0, "unlabeled_lists": []}
    return json.loads(path.read_text()) if path.is_file() else {**none, "missing": str(path)}


def build(definition: Mapping[str, Any]) -> Any:
    """Build the component that a ``_target_`` dictionary of a run's settings describes.

    Raises:
        MGCCError: when it names anything that ``check-bundle`` would not let pass; settings come with weights.
    """
    check_definition(definition, "the run's inference.json")
    return ConfigParser({"component": dict(definition)}).get_parsed_content("component")
