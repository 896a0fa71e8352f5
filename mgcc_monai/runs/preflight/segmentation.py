"""Checks of the segmentation stage, and those that every stage needs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgcc_monai.data.checks import check_dataset
from mgcc_monai.data.contents import ALL_LISTS
from mgcc_monai.data.dataset import load_datalist
from mgcc_monai.data.formats.images import image_stem, read_image, read_mask
from mgcc_monai.data.formats.limits import wrong_sides
from mgcc_monai.data.formats.nifti import lay_on
from mgcc_monai.distributed import is_main_process, rank_and_size
from mgcc_monai.errors import MGCCError, plain_os_errors, raise_errors
from mgcc_monai.files import try_writable
from mgcc_monai.runs.checked import is_checked, remember
from mgcc_monai.runs.config import check_config
from mgcc_monai.runs.settings import TRAIN_FIRST
from mgcc_monai.runs.words import check_call

__all__ = [
    "check_data",
    "check_evaluation",
    "check_inference",
    "check_bundle_root",
    "check_output",
    "check_standalone",
    "check_training",
]

logger = logging.getLogger(__name__)

_COMPARED = 2000  # images up to which near-duplicates are looked for before a training


def check_bundle_root(bundle_root: str) -> None:
    """Refuse options that did not arrive as typed, a ``bundle_root`` that is none, and misspelt options.

    Args:
        bundle_root: the bundle's folder, which holds ``configs``.

    Raises:
        MGCCError: see :func:`mgcc_monai.runs.words.check_call` and :func:`mgcc_monai.runs.config.check_config`.
    """
    check_call(bundle_root)
    if not (Path(str(bundle_root)) / "configs" / "metadata.json").is_file():
        raise MGCCError(
            f"--bundle_root {bundle_root}: there is no configs/metadata.json in it; run from the bundle's folder or "
            "give its path."
        )
    check_config(bundle_root)


def check_standalone(bundle_root: str) -> None:
    """Check options as :func:`check_bundle_root` does, for a config that needs no bundle around it."""
    check_call(bundle_root)
    check_config(bundle_root)


def check_output(folder: str) -> None:
    """Check, before any work, that the folder of results can be written; see :func:`mgcc_monai.files.try_writable`."""
    if is_main_process():
        try_writable(folder)


def check_items(items: Sequence[Mapping[str, Any]], crop: Any = None) -> list[str]:
    """Read every image and label once and return what is wrong with them, a line a fault."""
    faults = []
    for item in items:
        try:
            image = read_image(item["image"], crop=crop)
            if wrong := wrong_sides(image.shape):
                faults.append(f"{item['image']}: {wrong}")
            if "label" in item:
                label = read_mask(item["label"])
                if label.shape != image.shape:
                    faults.append(
                        f"{item['label']}: the mask has {label.shape[1]} x {label.shape[0]} pixels, its image "
                        f"{image.shape[1]} x {image.shape[0]}; give masks of their images' size."
                    )
                if lay_on(item["image"], item["label"], label) is not label:
                    faults.append(
                        f"{item['label']}: its axes run otherwise than its image's; run prepare, which turns it."
                    )
        except MGCCError as error:
            faults.append(error.message)
    return list(dict.fromkeys(faults))  # what is wrong with a file is told once, not for every frame of it


@plain_os_errors()
def check_data(datalist: Mapping[str, Any], items: Sequence[Mapping[str, Any]], output_dir: str = "") -> None:
    """Make every check of ``python -m mgcc_monai check`` before a training, once as long as the files stay the same.

    Args:
        datalist: a dataset as :func:`mgcc_monai.data.load_datalist` reads it.
        items: what is trained on; those that are not of the dataset, such as generated images, are read too.
        output_dir: where it is noted that the dataset has passed; empty for nowhere.

    Raises:
        MGCCError: lists every error.
    """
    listed = {item["image"] for name in ALL_LISTS for item in datalist.get(name, [])}
    errors = check_items([item for item in items if item["image"] not in listed])
    if not is_checked(datalist, output_dir):
        report = check_dataset(datalist["file"], near_copies=len(listed) <= _COMPARED)
        if len(listed) > _COMPARED:
            logger.warning("%d images: only `python -m mgcc_monai check` looks for near-duplicates.", len(listed))
        if report.warnings:
            count = len(report.warnings)
            logger.warning("%s: %d warnings; `python -m mgcc_monai check` shows them.", report.file, count)
        errors = [*(finding.line for finding in report.faults), *errors]
        if not report.faults:
            remember(datalist, output_dir)
    raise_errors(errors, "training data")


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
            f"{unlabeled_batch_size}; lower --unlabeled_batch_size, raise --num_images, or give --generated_fraction 0 "
            "to train on real images alone."
            if generated
            else f"list 'unlabeled': {len(unlabeled)} images for batches of {unlabeled_batch_size}, while the "
            f"consistency weight is {consistency_weight:g}; prepare with --label_fraction below 1 or with --unlabeled "
            "FOLDER, or train with configs/methods/supervised.yaml."
        )
    if not validation:
        faults.append("list 'validation': empty, so no best weights can be chosen; prepare more images.")
    raise_errors(faults, "training data")


@plain_os_errors()
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
    if not paths:
        raise MGCCError("--dataset_dir: missing; give the folder of images to segment.")
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
    raise_errors(faults + check_items([{"image": path} for path in paths], crop), f"images in {dataset_dir}")


def check_evaluation(
    datalist: Mapping[str, Any], items: Sequence[Mapping[str, Any]], name: str, run: Mapping[str, Any], threshold: float
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
        raise MGCCError(f"{run['missing']}: there is no such file; {TRAIN_FIRST}")
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
    raise_errors(check_items(items), f"list '{name}'")
