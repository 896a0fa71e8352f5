"""Outline lesions in any images by one command: the workflow ``inferring`` on files, folders and patterns."""

from __future__ import annotations

import glob
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from mgcc_monai.data.contents import FILE_NAME
from mgcc_monai.data.formats.frames import is_image, read_tree, video
from mgcc_monai.data.items import frames_of
from mgcc_monai.errors import MGCCError, plain_os_errors, raise_errors
from mgcc_monai.evaluation.lesions import LesionTableHandler
from mgcc_monai.runs.find_weights import find_weights
from mgcc_monai.runs.options import find_bundle
from mgcc_monai.runs.preflight.segmentation import check_items
from mgcc_monai.runs.words import monai_text

__all__ = ["images_by_folder", "lesion_table", "segment"]

_FORMATS = ("png", "nii.gz")


@plain_os_errors()
def segment(
    path: list[str],
    output: str,
    weights: str = "",
    recursive: bool = False,
    format: str = "png",
    overlay: bool = False,
    prob: bool = False,
    threshold: float | None = None,
    frame: str = "all",
    crop: str = "none",
    device: str = "",
    overwrite: bool = False,
    bundle_root: str = "",
) -> None:
    """Outline lesions in images, and print what was found.

    Args:
        path: images, folders of images, or patterns such as 'scans/*.png'.
        output: the folder for masks, overlays and lesions.csv.
        weights: breast, a run's folder, or a file of weights beside its inference.json. By default the run in the
            folder runs, where there is one, else breast.
        recursive: take the images of subfolders too; their masks go to subfolders of the same names.
        format: png or nii.gz; a NIfTI mask has its image's shape and affine.
        overlay: also write each image with the outlines.
        prob: also write the probabilities.
        threshold: probability from which a pixel is lesion, between 0 and 1; by default that of the weights.
        frame: of a file with several frames: all, first, middle or a number from 1.
        crop: part of each image to look at: none, region (DICOM), or left, top, width, height in pixels.
        device: cpu, cuda or cuda:1; by default the first GPU, or the CPU.
        overwrite: remove masks of an earlier run from the folder.
        bundle_root: the bundle's folder; by default the one at hand.

    Raises:
        MGCCError: when a path, an option or the weights cannot be used; every image that cannot be read is named.
    """
    if format not in _FORMATS:
        raise MGCCError(f"--format {format}: give one of {', '.join(_FORMATS)}.")
    if threshold is not None and not 0 < threshold < 1:
        raise MGCCError(f"--threshold {threshold}: give a number between 0 and 1.")
    root = find_bundle(bundle_root or None)
    found = find_weights(weights, root)
    groups = images_by_folder(path, output, recursive)
    options: dict[str, Any] = {"save_overlay": overlay, "save_prob": prob, "overwrite": overwrite, "crop": crop}
    options |= {"output_ext": f".{format}", "ckpt_path": monai_text(str(found.weights))}
    options |= {} if threshold is None else {"threshold": threshold}
    options |= {"device": device} if device else {}
    _tell_one_line()
    begun, rows = time.perf_counter(), []
    frames = {folder: [str(one) for one in frames_of(images, frame)] for folder, images in groups.items()}
    if len(frames) > 1:  # each folder is checked before its first mask; so are all of them before that of the first
        items = [{"image": one} for paths in frames.values() for one in paths]
        raise_errors(check_items(items, crop), "images to segment")
    for folder, paths in frames.items():
        target = Path(output) / folder
        handler = _run(root, found.config, paths, target, options)
        for image in sorted(handler.lesions):
            rows.append({"image": Path(folder, image).as_posix(), "lesions": handler.lesions[image]})
            rows[-1]["seconds"] = handler.seconds[image]
    seconds = time.perf_counter() - begun
    print(lesion_table(rows))
    count = "1 image" if len(rows) == 1 else f"{len(rows)} images"
    print(f"\n{count} in {seconds:.1f} s, with {found.weights}")
    print(f"masks and lesions.csv: {output}")


def _run(
    root: Path, config: Path, paths: Sequence[str], target: Path, options: Mapping[str, Any]
) -> LesionTableHandler:
    """Run ``inferring`` on the images of one folder, and return what filled its table."""
    own = {
        "datalist": [monai_text(path) for path in paths],
        "dataset_dir": monai_text(os.path.dirname(paths[0]) or "."),
    }
    own["output_dir"] = monai_text(str(target))
    metadata = str(root / "configs" / "metadata.json")
    workflow = ConfigWorkflow(
        str(config), meta_file=metadata, workflow_type="infer", logging_file=False, **own, **options
    )
    workflow.initialize()
    workflow.run()
    handlers = workflow.parser.get_parsed_content("handlers")
    workflow.finalize()
    return next(handler for handler in handlers if isinstance(handler, LesionTableHandler))


def _tell_one_line() -> None:
    """Let the package's messages reach the terminal as plain lines."""
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # it warns that it sets up no log file
    logger = logging.getLogger("mgcc_monai")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def images_by_folder(paths: Sequence[str], output: str, recursive: bool = False) -> dict[str, list[Path]]:
    """Return the images that a user names, by the subfolder of the output that their masks go to.

    Args:
        paths: files, folders and patterns.
        output: the folder for masks; files in it are skipped.
        recursive: look into subfolders.

    Raises:
        MGCCError: lists every path that is missing, is no image, or is a folder without one.
    """
    groups: dict[str, list[Path]] = {}
    faults: list[str] = []
    for name in [str(name) for name in ([paths] if isinstance(paths, str) else paths)]:
        matches = [name] if os.path.lexists(name) else sorted(glob.glob(name, recursive=True))
        if not matches:
            faults.append(f"{name}: there is no such file or folder")
        for path in map(Path, matches):
            if path.is_dir():
                faults += _of_folder(path, output, recursive, groups)
            elif wrong := video(path):
                faults.append(f"{path}: {wrong}")
            elif not is_image(path):
                faults.append(f"{path}: is no image that can be read (PNG, JPEG, BMP, TIFF, WebP, GIF, NIfTI, DICOM)")
            elif path not in groups.setdefault("", []):
                groups[""].append(path)
    raise_errors(faults, "images to segment")
    return groups


def _of_folder(path: Path, output: str, recursive: bool, groups: dict[str, list[Path]]) -> list[str]:
    """Add the images of a folder to the groups, and return what is wrong with it."""
    if (path / FILE_NAME).is_file() and (path / "images").is_dir():
        path = path / "images"  # of a prepared dataset
    tree = read_tree(path, (output,))
    tree.tell_unread()
    if not tree.images and not tree.faults:
        return [f"{path}: holds no image (PNG, JPEG, BMP, TIFF, WebP, GIF, NIfTI or DICOM)"]
    deeper = [] if recursive else sorted(set(tree.images) - {path})
    if deeper:
        tree.faults.append(f"{deeper[0]}: is a subfolder with images; add --recursive, or name it alone")
    for folder, images in tree.images.items():
        groups.setdefault("" if folder == path else folder.relative_to(path).as_posix(), []).extend(images)
    return tree.faults


def lesion_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what was found, a line an image: lesions, their area, mean probability in them, and seconds.

    Args:
        rows: ``image``, ``lesions`` (the image's lines of lesions.csv) and ``seconds``.
    """
    width = max(5, *(len(row["image"]) for row in rows))
    lines = [f"{'image':{width}}  lesions  area (px)  area (mm2)  probability  seconds"]
    for row in rows:
        lesions = [lesion for lesion in row["lesions"] if lesion["lesion"]]
        pixels = sum(lesion["area_pixels"] for lesion in lesions)
        known = bool(lesions) and math.isfinite(lesions[0]["area_mm2"])
        area = f"{sum(lesion['area_mm2'] for lesion in lesions):.1f}" if known else "-"
        inside = sum(lesion["area_pixels"] * lesion["mean_probability"] for lesion in lesions)
        mean = f"{inside / pixels:.2f}" if pixels else "-"
        note = f"  {row['lesions'][0]['note']}" if row["lesions"][0].get("note") else ""
        lines.append(
            f"{row['image']:{width}}  {len(lesions):7}  {pixels:9}  {area:>10}  {mean:>11}  {row['seconds']:7.2f}{note}"
        )
    return "\n".join(lines)
