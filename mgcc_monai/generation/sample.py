"""Generating a folder of images: by several processes, and so that a stopped run goes on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import SchedulerMixin

from mgcc_monai.data.contents import image_sha256
from mgcc_monai.data.formats.images import read_image
from mgcc_monai.distributed import barrier, is_main_process, rank_and_size
from mgcc_monai.errors import MGCCError, plain_os_errors
from mgcc_monai.files import set_aside, write_json
from mgcc_monai.generation import manifest
from mgcc_monai.generation.pipeline import LatentDiffusionPipeline
from mgcc_monai.handlers.memory import is_out_of_memory
from mgcc_monai.lock import held
from mgcc_monai.parse import parse_int
from mgcc_monai.pictures import write_picture
from mgcc_monai.progress import progress_bar

__all__ = ["check_request", "generate"]

logger = logging.getLogger(__name__)

SETTINGS = "generation.json"


def check_request(
    pipeline: LatentDiffusionPipeline,
    num_images: int | None = None,
    indices: Sequence[int] | None = None,
    seed: int = 0,
    class_proportions: Sequence[float] | None = None,
    class_labels: str | int | Sequence[str | int] | None = None,
    batch_size: int = 16,
    num_inference_steps: int = 25,
    guidance_scale: float = 1.0,
    scheduler: Any = None,
) -> tuple[dict[int, str], SchedulerMixin]:
    """Check what a pipeline is asked for, without drawing; arguments as of :func:`generate`.

    Returns:
        the class of each image by its index, empty where the model knows none; and the sampler.

    Raises:
        MGCCError: for an argument that cannot be.
    """
    if indices is None and num_images is None:
        raise MGCCError("num_images: say how many images to make, or name their indices.")
    if indices is None:
        wanted = list(range(parse_int(num_images, "num_images", 1)))
    else:
        wanted = [parse_int(index, "indices", 0) for index in ([indices] if np.ndim(indices) == 0 else indices)]
    if not wanted:
        raise MGCCError("indices: no image is asked for; name at least one.")
    numbers = pipeline.class_ids(wanted, seed, class_labels, class_proportions)
    names = [""] * len(wanted) if numbers is None else [pipeline.config.classes[number] for number in numbers]
    classes = dict(sorted(zip(wanted, names)))
    if len(classes) < len({*zip(wanted, names)}):
        raise MGCCError("indices: an image is named twice, with two classes; name it once.")
    if class_labels is None and "None" in pipeline.config.classes:
        logger.warning("No --class_labels: classes are drawn. For the class 'None' give --class_labels \"'None'\".")
    if guidance_scale != 1 and not pipeline.config.classes:
        raise MGCCError(f"guidance_scale {guidance_scale}: the model knows no classes to guide by; give 1.")
    pipeline.group_size(batch_size)
    return classes, pipeline.sampler(scheduler, num_inference_steps)


@plain_os_errors()
def generate(
    pipeline: str | os.PathLike | LatentDiffusionPipeline,
    folder: str | os.PathLike,
    num_images: int | None = None,
    indices: Sequence[int] | None = None,
    seed: int = 0,
    batch_size: int = 16,
    class_proportions: Sequence[float] | None = None,
    class_labels: str | int | Sequence[str | int] | None = None,
    num_inference_steps: int = 25,
    guidance_scale: float = 1.0,
    scheduler: Any = None,
    device: str | torch.device | None = None,
    dataset_hash: str | None = None,
) -> list[dict[str, Any]]:
    """Write generated images as 8-bit grey PNG, ``images/000006.png``, and their manifest.

    Image i is a function of (seed, i), and with ``torch.distributed`` rank r of n makes those of ``i mod n = r``. A
    folder of the same model, seed and settings is gone on with: images that are there, with the pixels that the
    manifest says, are not made again and keep their decisions. Any other folder is moved to ``<folder>.previous-N``.

    Args:
        pipeline: the pipeline, or its folder.
        folder: where the images go.
        num_images: make the images 0 to num_images - 1; the manifest lists them and no others.
        indices: make these instead; what else the manifest lists stays in it.
        seed: seed of all images.
        batch_size: images at a time on a GPU.
        class_proportions: share of each class; None takes the model's.
        class_labels: name of the class, of all images or of each; None draws by ``class_proportions``. See
            :func:`mgcc_monai.generation.classes.class_ids`.
        num_inference_steps: steps of the sampler.
        guidance_scale: weight of the class against the null class.
        scheduler: the sampler, an object or the name of a class of diffusers; None takes the model's.
        device: where to compute; None leaves the pipeline where it is.
        dataset_hash: hash of the dataset that the model learned from; None takes the pipeline's.

    Returns:
        the manifest's lines, by index.

    Raises:
        MGCCError: for an argument that cannot be, a folder that another run is using, a full disk or too little
            memory. What was finished is kept.
    """
    if not isinstance(pipeline, LatentDiffusionPipeline):
        pipeline = LatentDiffusionPipeline.from_pretrained(pipeline)
    if device is not None:
        pipeline.to(device)
    options = {
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "scheduler": scheduler,
        "batch_size": batch_size,
    }
    # refused here, before anything is written
    classes, sampler = check_request(pipeline, num_images, indices, seed, class_proportions, class_labels, **options)
    plan = json.dumps({k: v for k, v in sampler.config.items() if k[0] != "_"}, sort_keys=True, default=str)
    settings = {
        "model": pipeline.fingerprint(),
        "seed": parse_int(seed, "seed", 0),
        "num_inference_steps": int(num_inference_steps),
        "guidance_scale": float(guidance_scale),
        "scheduler": type(sampler).__name__,
        "scheduler_config": hashlib.sha256(plan.encode()).hexdigest()[:16],
        "class_proportions": pipeline.class_probabilities(class_proportions),
        "dataset_hash": dataset_hash or pipeline.config.provenance.get("dataset_hash", ""),
    }
    folder = Path(folder).absolute()
    with held(folder):
        if is_main_process():
            _open(folder, settings)
        barrier()
        _make(pipeline, folder, classes, settings, options)
        barrier()
        if is_main_process():
            manifest.merge(folder, classes if indices is None else None)
        barrier()
    return manifest.read(folder)


def _open(folder: Path, settings: Mapping[str, Any]) -> None:
    """Prepare the folder: as it is where it has the same settings, a new one otherwise."""
    if folder.is_dir() and any(folder.iterdir()):
        if _settings(folder) == settings:
            if manifest.parts(folder):
                manifest.merge(folder)
            return
        set_aside(folder)
    write_json(folder / SETTINGS, settings)


def _settings(folder: Path) -> Any:
    try:
        return json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _make(
    pipeline: LatentDiffusionPipeline,
    folder: Path,
    classes: Mapping[int, str],
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """Make this process's share of the images, those that are missing or damaged."""
    rank, ranks = rank_and_size()
    share = [index for index in classes if index % ranks == rank]
    known = (folder / manifest.FILE_NAME).is_file()
    rows = {row["index"]: row for row in manifest.read(folder, check_images=False)} if known else {}
    missing = [index for index in share if not _is_made(folder, rows.get(index), settings, classes[index])]
    size = pipeline.group_size(options["batch_size"])
    done = len(share) - len(missing)
    with progress_bar(total=len(share), initial=done, desc="generating", unit="image", disable=rank != 0) as bar:
        for first in range(0, len(missing), size):
            batch = missing[first : first + size]
            labels = [classes[index] for index in batch] if pipeline.config.classes else None
            try:
                images = pipeline(indices=batch, seed=settings["seed"], class_labels=labels, **options)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise MGCCError(
                    f"Out of memory after {done + first} of {len(share)} images: lower --generation_batch_size, or "
                    "train with a smaller --image_size or --diffusion_channels; what was finished is kept."
                ) from None
            for index, image in zip(batch, images):
                manifest.append(folder, [_write(folder, index, image, classes[index], settings)], rank)
                bar.update()


def _is_made(folder: Path, row: Mapping[str, Any] | None, settings: Mapping[str, Any], name: str) -> bool:
    """Whether an image is there as it would be made."""
    if row is None or (row["seed"], row["model"], row["class"]) != (settings["seed"], settings["model"], name):
        return False
    try:
        return image_sha256(read_image(folder / row["image"])) == row["sha256"]
    except MGCCError:
        return False


def _write(folder: Path, index: int, image: torch.Tensor, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write one image, 1HW in [0, 1], and return its line of the manifest."""
    pixels = (image[0] * 255).round().to(torch.uint8).numpy()
    path = f"images/{index:06d}.png"
    write_picture(folder / path, pixels)
    return {
        "image": path,
        "index": index,
        "seed": settings["seed"],
        "class": name,
        "model": settings["model"],
        "sha256": image_sha256(pixels),
        "scores": {},
        "decision": "pending",
        "reason": "",
    }
