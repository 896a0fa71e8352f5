"""From a dataset to the items that each workflow reads."""

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
    "generated_share",
    "held_out_items",
    "images_to_segment",
    "unlabeled_items",
    "unlabeled_stream",
]

_EVALUATED = ("validation", "test")


def unlabeled_items(datalist: Mapping[str, Any], lists: Sequence[str]) -> list[dict[str, str]]:
    """Return the images of some lists with their classes and without their labels.

    Images of ``normal`` that share a group with a validation or test image are left out.

    Args:
        datalist: what :func:`mgcc_monai.data.load_datalist` returns.
        lists: names out of "unlabeled", "training" and "normal".

    Raises:
        MGCCError: when a name is another; images of validation and test never train.
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
        generated_fraction: the share, from 0 to 1; None for 1 where there are generated images, else 0.

    Raises:
        MGCCError: when it is no share, or asks for images that are not there.
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

    With both, every image is in it; those of the kind that would be too few come again, as evenly as can be.

    Args:
        real: real images.
        generated: generated images that passed the gate.
        generated_fraction: see :func:`generated_share`.

    Raises:
        MGCCError: when the share is no share, or there is no image of a kind that it asks for.
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
        consistency_weight: final weight of the consistency; at 0 there is no stream, and the list is empty.
    """
    if not consistency_weight:
        return []
    return mixed_items(unlabeled_items(datalist, lists), generated, generated_fraction)


def _again(items: Sequence[Any], count: int) -> list[Any]:
    return [items[index % len(items)] for index in range(count)]


def held_out_items(datalist: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the images of ``validation`` without their labels: those that judge a generator, and never train it."""
    return [{"image": item["image"], "class": item.get("class", "")} for item in datalist["validation"]]


def unseen_items(datalist: Mapping[str, Any], trained_lists: Sequence[str]) -> list[dict[str, str]]:
    """Return the images of ``normal`` that a generator of some lists has not seen, nor a near-duplicate of them."""
    trained = [item for name in trained_lists for item in datalist[name]]
    seen = {item[key] for item in trained for key in ("image", "group")}
    return [{"image": item["image"]} for item in datalist["normal"] if not {item["image"], item["group"]} & seen]


def evaluation_items(datalist: Mapping[str, Any], name: str, trained_lists: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the labelled images of a list and, behind them, those of ``normal``, each with its list's name.

    Images of ``normal`` that trained as unlabelled ones are left out.

    Args:
        datalist: what :func:`mgcc_monai.data.load_datalist` returns.
        name: "test" or "validation".
        trained_lists: the ``unlabeled_lists`` of the training.

    Raises:
        MGCCError: when the name is another or the list is empty.
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
def images_to_segment(folder: str | Path, frame: Any = "all", output_dir: str | Path | None = None) -> list[Path]:
    """Return the images of a folder, or of its ``images`` where it is a prepared dataset; folders in it have none.

    Of a file of several frames there is a path a frame, ``NAME_frame0001.dcm`` and so on, which
    :class:`mgcc_monai.data.UltrasoundReader` understands; no pixels are read.

    Args:
        folder: where to look.
        frame: of files with several: ``all``, ``first``, ``middle`` or a number from 1.
        output_dir: where the masks go; what lies there is no image.

    Raises:
        MGCCError: when the folder does not exist, holds videos, dead links or no image, folders in it hold images, or
            a file has no such frame.
    """
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
    paths, faults = [], []
    for image in images:
        try:
            frames = count_frames(image)
        except MGCCError:  # told with all other faults when the images are checked
            frames = 1
        try:
            chosen = range(frames) if frame == "all" else [frame_index(image, frames, frame)] if frames > 1 else [0]
        except MGCCError as error:
            faults.append(error.message)
            continue
        paths += [frame_path(image, index + 1 if frames > 1 else None) for index in chosen]
    raise_errors(faults, str(path))
    return paths


@plain_os_errors()
def embedded_phantoms(output_dir: str | Path) -> str:
    """Return the dataset that needs no download: 200 phantoms in ``output_dir``, made the first time.

    Half of the training images keep their labels, so that both streams have images.
    """
    folder = Path(output_dir) / "phantoms"
    if is_main_process() and not (folder / FILE_NAME).is_file():
        write_phantoms(str(folder), count=200, seed=0, label_fraction=0.5)
    barrier()
    return str(folder)
