"""Checks of the stages that learn to make images and make them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgcc_monai.data.contents import ALL_LISTS
from mgcc_monai.distributed import rank_and_size
from mgcc_monai.errors import MGCCError, raise_errors
from mgcc_monai.gate import limits as gate
from mgcc_monai.gate import memorisation
from mgcc_monai.generation.classes import class_probabilities
from mgcc_monai.generation.storage import load_autoencoder, weights_hash
from mgcc_monai.runs.settings import read_run

__all__ = [
    "check_autoencoder",
    "check_classes",
    "check_gate",
    "check_generator",
    "check_generator_data",
    "check_origin",
]


def check_generator_data(datalist: Mapping[str, Any], items: Sequence[Mapping[str, Any]], batch_size: int) -> None:
    """Check that there are enough images for autoencoder and denoiser to learn from, and some to judge them by.

    Args:
        datalist: a dataset as :func:`mgcc_monai.data.load_datalist` reads it.
        items: the images to train on.
        batch_size: images a batch, of each process.

    Raises:
        MGCCError: lists every fault.
    """
    faults, batch_size = [], int(batch_size) * rank_and_size()[1]
    if len(items) < 2:
        faults.append(
            f"lists 'training' and 'unlabeled': {len(items)} image in all; a generator would learn it by heart. "
            "Prepare more images."
        )
    elif len(items) < batch_size:
        faults.append(
            f"lists 'training' and 'unlabeled': {len(items)} images for batches of {batch_size}; lower the batch size "
            "or prepare more images."
        )
    held_out = datalist["validation"]
    if not held_out:
        faults.append("list 'validation': empty, so nothing can judge the generator; prepare more images.")
    raise_errors(faults, "images to learn")


def check_classes(classes: Sequence[str], mix: Sequence[float]) -> None:
    """Check that there is a share of each class to draw.

    Args:
        classes: names of the classes that the denoiser learns.
        mix: share of each.

    Raises:
        MGCCError: when there is not.
    """
    class_probabilities(mix, classes)


def check_gate(
    datalist: Mapping[str, Any], items: Sequence[Mapping[str, Any]], held_out: Sequence[Mapping[str, Any]]
) -> None:
    """Check that there are enough images to judge the generated ones by.

    Args:
        datalist: a dataset as :func:`mgcc_monai.data.load_datalist` reads it.
        items: the images that the generator learns from.
        held_out: those that it does not.

    Raises:
        MGCCError: lists every fault.
    """
    pixels = {item["image"]: item["sha256"] for name in ALL_LISTS for item in datalist.get(name, [])}
    counts = Counter(pixels[item["image"]] for item in items)
    copied = sum(count for count in counts.values() if count > 1)
    faults = [*gate.too_few(len(items), copied), *memorisation.too_few(len(held_out), len(items))]
    raise_errors(faults, "images to judge by")


def check_autoencoder(folder: str, datalist: Mapping[str, Any], image_size: Sequence[int], record: Any = None) -> None:
    """Check that an autoencoder was trained, to its end, on these data and this size.

    Args:
        folder: the autoencoder's folder.
        datalist: the data of this stage.
        image_size: the size of the images in this stage.
        record: the record of a denoiser's training, which may be resumed.

    Raises:
        MGCCError: when it was not, or the denoiser to be resumed is for another autoencoder.
    """
    load_autoencoder(folder)
    run = read_run(folder)
    check_origin(run, datalist, folder, "autoencoder")
    if list(run.get("image_size", image_size)) != list(image_size):
        raise MGCCError(
            f"{folder}: the autoencoder is for images of {run['image_size']}, this stage has {list(image_size)}; give "
            "both the same preset and --image_size."
        )
    if record is not None and record.resume:
        wanted = read_run(record.folder).get("autoencoder")
        if wanted != weights_hash(Path(folder) / "vae"):
            raise MGCCError(
                f"{record.folder}: its denoiser learned the latents of another autoencoder than {folder}; leave "
                "--resume out to train it anew, or put the autoencoder back."
            )


def check_generator(
    folder: str, run: Mapping[str, Any], datalist: Mapping[str, Any], image_size: Sequence[int]
) -> None:
    """Check that a denoiser was trained, to its end, on these data and this size.

    Args:
        folder: the denoiser's folder.
        run: its ``run.json``.
        datalist: the data at hand.
        image_size: the size of the images at hand.

    Raises:
        MGCCError: when it was not.
    """
    check_origin(run, datalist, folder, "denoiser")
    if list(run["image_size"]) != list(image_size):
        raise MGCCError(
            f"{folder}: the denoiser makes images of {run['image_size']}, --image_size is {list(image_size)}; give the "
            "preset that it was trained with."
        )


def check_origin(run: Mapping[str, Any], datalist: Mapping[str, Any], folder: str, what: str) -> None:
    """Check that a stage was finished on the data at hand.

    Args:
        run: its ``run.json``.
        datalist: the data at hand.
        folder: its folder, for the message.
        what: what it made, for the message.

    Raises:
        MGCCError: when it was not finished, or learned from another dataset or another split of this one.
    """
    if "missing" in run:
        raise MGCCError(f"{run['missing']}: there is no such file; run the stage of the {what} first.")
    if run.get("status") != "finished":
        raise MGCCError(f"{folder}: the {what} is not finished; resume its stage with --resume true.")
    if run.get("dataset_hash") != datalist["hash"]:
        raise MGCCError(
            f"{folder}: the {what} learned from another dataset, or another split of it ({run.get('dataset')}); it may "
            "have seen what is held out here. Give that dataset, or another --output_dir to train anew."
        )
