"""Select the items of a dataset that each workflow reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgcc_monai.data.contents import FILE_NAME
from mgcc_monai.data.formats.frames import frame_path, read_tree
from mgcc_monai.data.formats.source import count_frames, frame_index
from mgcc_monai.data.phantom.write import write_phantoms
from mgcc_monai.distributed import barrier, is_main_process
from mgcc_monai.errors import MGCCError, plain_os_errors, raise_errors

__all__ = [
    "embedded_phantoms",
    "mixed_items",
    "evaluation_items",
    "frames_of",
    "generated_share",
    "held_out_items",
    "images_to_segment",
    "unlabeled_items",
    "unlabeled_stream",
]

_EVALUATED = ("validation", "test")


def unlabeled_items(datalist: Mapping[str, Any], lists: Sequence[str]) -> list[dict[str, str]]:
    """Return the images of some lists, with their classes but without their labels.

    Images of ``normal`` that share a group with a validation or test image are left out.

    Args:
        datalist: what :func:`mgcc_monai.data.load_datalist` returns.
        lists: any of "unlabeled", "training" and "normal".

    Raises:
        MGCCError: for any other name; images of validation and test are never trained on.
    """
    for name in lists:
        if name not in ("unlabeled", "training", "normal"):
            raise MGCCError(f"list '{name}': cannot be trained on; give unlabeled, training or normal.")
    held_out = {item["group"] for name in _EVALUATED for item in datalist[name]}
    return [
        {"image": item["image"], "class": item.get("class", "")}
        for name in lists
        for item in datalist[name]
        if name != "normal" or item["group"] not in held_out
    ]


def generated_share(generated: Sequence[Any], generated_fraction: Any = None) -> float:
    """Return the share of generated images in the unlabelled stream.

    Args:
        generated: generated images that passed the gate.
        generated_fraction: the share, from 0 to 1; None means 1 if there are generated images, else 0.

    Raises:
        MGCCError: if it is not a number from 0 to 1, or is over 0 without generated images.
    """
    if generated_fraction is None:
        return 1.0 if generated else 0.0
    try:
        share = float(generated_fraction)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise MGCCError(f"--generated_fraction {generated_fraction}: give a number from 0 to 1.")
    if share > 0 and not generated:
        raise MGCCError(
            f"--generated_fraction {generated_fraction}: there is no generated image; run 'generating' with "
            "configs/generate.json first, or give 0 to train on real images alone."
        )
    return share


def mixed_items(
    real: Sequence[Mapping[str, Any]], generated: Sequence[Mapping[str, Any]], generated_fraction: Any = None
) -> list[dict[str, Any]]:
    """Return the unlabelled stream: real images, generated ones, or both in a given ratio.

    A mixture contains every image; images of the scarcer kind are repeated as evenly as possible.

    Args:
        real: real images.
        generated: generated images that passed the gate.
        generated_fraction: see :func:`generated_share`.

    Raises:
        MGCCError: if the share is invalid, or there is no image of a kind that it requires.
    """
    share = generated_share(generated, generated_fraction)
    if 0 < share < 1 and not real:
        raise MGCCError(f"--generated_fraction {generated_fraction}: there is no real unlabelled image; give 1.")
    if share in (0, 1):
        return [{"image": item["image"]} for item in (generated if share else real)]
    generated_count = max(len(generated), round(len(real) * share / (1 - share)))
    real_count = max(len(real), round(len(generated) * (1 - share) / share))
    chosen = [*_again(generated, generated_count), *_again(real, real_count)]
    return [{"image": item["image"]} for item in chosen]


def unlabeled_stream(
    datalist: Mapping[str, Any],
    lists: Sequence[str],
    generated: Sequence[Mapping[str, Any]],
    generated_fraction: Any = None,
    consistency_weight: float = 1.0,
) -> list[dict[str, Any]]:
    """Return the images of the unlabelled stream: see :func:`unlabeled_items` and :func:`mixed_items`.

    Args:
        consistency_weight: final weight of the consistency loss; at 0 there is no stream and the list is empty.
    """
    if not consistency_weight:
        return []
    return mixed_items(unlabeled_items(datalist, lists), generated, generated_fraction)


def _again(items: Sequence[Any], count: int) -> list[Any]:
    return [items[index % len(items)] for index in range(count)]


def held_out_items(datalist: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the images of ``validation`` without their labels, to evaluate a generator; it never trains on them."""
    return [{"image": item["image"], "class": item.get("class", "")} for item in datalist["validation"]]


def unseen_items(datalist: Mapping[str, Any], trained_lists: Sequence[str]) -> list[dict[str, str]]:
    """Return the images of ``normal`` that share no file and no group with the lists a generator trained on."""
    trained = [item for name in trained_lists for item in datalist[name]]
    seen = {item[key] for item in trained for key in ("image", "group")}
    return [{"image": item["image"]} for item in datalist["normal"] if not {item["image"], item["group"]} & seen]


def evaluation_items(datalist: Mapping[str, Any], name: str, trained_lists: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the labelled images of a list, followed by those of ``normal``, each with its list's name.

    Images of ``normal`` that were trained on as unlabelled images are left out.

    Args:
        datalist: what :func:`mgcc_monai.data.load_datalist` returns.
        name: "test" or "validation".
        trained_lists: the ``unlabeled_lists`` of the training.

    Raises:
        MGCCError: for any other name, or if the list is empty.
    """
    if name not in _EVALUATED:
        raise MGCCError(f"--evaluate_list {name}: give one of {', '.join(_EVALUATED)}.")
    if not datalist[name]:
        raise MGCCError(f"list '{name}': empty, so there is nothing to evaluate; prepare more images.")
    trained = {item["image"] for item in unlabeled_items(datalist, trained_lists)}
    keys = ("image", "label", "class", "group", "original", "spacing")
    return [
        {**{key: item[key] for key in keys}, "list": part}
        for part in (name, "normal")
        for item in datalist[part]
        if part == name or item["image"] not in trained
    ]


@plain_os_errors()
def images_to_segment(
    folder: str | Path | None, frame: Any = "all", output_dir: str | Path | None = None
) -> list[Path]:
    """Return the images of a folder, or of its ``images`` if it is a prepared dataset; subfolders must hold none.

    A file of several frames gives one path per frame (``NAME_frame0001.dcm`` and so on), which
    :class:`mgcc_monai.data.UltrasoundReader` understands. No pixels are read.

    Args:
        folder: where to look; None for no image.
        frame: for files with several frames: ``all``, ``first``, ``middle`` or a number from 1.
        output_dir: where the masks are written; files in it are skipped.

    Raises:
        MGCCError: if the folder does not exist, contains videos, broken links or no image, its subfolders contain
            images, or a file has no such frame.
    """
    if folder is None:
        return []
    path = Path(folder)
    if path.is_file():
        raise MGCCError(f"--dataset_dir {folder}: is a file; give the folder of images.")
    if not path.is_dir():
        raise MGCCError(f"--dataset_dir {folder}: there is no such folder; give one with images.")
    if (path / FILE_NAME).is_file() and (path / "images").is_dir():
        path = path / "images"
    tree = read_tree(path, (output_dir,))
    tree.tell_unread()
    raise_errors([*tree.faults, *tree.elsewhere([path], str(path))], str(path))
    images = tree.images.get(path)
    if not images:
        raise MGCCError(
            f"{path}: holds no image (PNG, JPEG, BMP, TIFF, WebP, GIF, NIfTI or DICOM); give a folder with images."
        )
    return frames_of(images, frame)


def frames_of(images: Sequence[Path], frame: Any = "all") -> list[Path]:
    """Return a path for each frame of some files; see :func:`images_to_segment`.

    Raises:
        MGCCError: if a file has no such frame.
    """
    paths, faults = [], []
    for image in images:
        try:
            frames = count_frames(image)
        except MGCCError:  # reported with all other errors when the images are checked
            frames = 1
        try:
            chosen = range(frames) if frame == "all" else [frame_index(image, frames, frame)] if frames > 1 else [0]
        except MGCCError as error:
            faults.append(error.message)
            continue
        paths += [frame_path(image, index + 1 if frames > 1 else None) for index in chosen]
    raise_errors(faults, str(images[0].parent))
    return paths


@plain_os_errors()
def embedded_phantoms(output_dir: str | Path) -> str:
    """Return a dataset that needs no download: 200 phantoms in ``output_dir``, created on first use.

    Half of the training images keep their labels, so that both streams have images.
    """
    folder = Path(output_dir) / "phantoms"
    if is_main_process() and not (folder / FILE_NAME).is_file():
        write_phantoms(str(folder), count=200, seed=0, label_fraction=0.5)
    barrier()
    return str(folder)
