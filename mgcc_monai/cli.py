"""The command line: ``python -m mgcc_monai COMMAND``. Each command is one function of the package."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Sequence

import fire

from mgcc_monai.data.phantom import write_phantoms
from mgcc_monai.data.prepare import describe
from mgcc_monai.data.prepare import prepare as prepare_dataset
from mgcc_monai.data.prepare import split as split_dataset
from mgcc_monai.errors import MGCCError
from mgcc_monai.evaluation.show import show_run
from mgcc_monai.interop.authors import convert as convert_checkpoint
from mgcc_monai.options import boolean

__all__ = ["main"]


def prepare(
    source: str,
    output: str,
    label_fraction: float = 1.0,
    protocol: str = "strict",
    split_seed: int = 0,
    groups: str | None = None,
    unlabeled: str | None = None,
    name: str | None = None,
    overwrite: bool = False,
    normals_as_unlabeled: bool = False,
) -> None:
    """Make a dataset from ultrasound images and masks: checked, grouped, split.

    Args:
        source: a BUSI tree as downloaded (benign, malignant, normal), or a folder with images and masks in it.
        output: the dataset's folder, written as a whole or not at all.
        label_fraction: share of the training images that keep their labels; the others train as unlabelled ones.
        protocol: strict (70/10/20 by group) or published (70/30, selection and report on the same images).
        split_seed: seed of the split and of the choice of labels.
        groups: a CSV file with columns image and patient; images of one patient stay in one list.
        unlabeled: a folder of further images, without masks.
        name: the dataset's name.
        overwrite: replace a dataset in output.
        normals_as_unlabeled: let images without lesion train as unlabelled ones.
    """
    prepare_dataset(
        str(source),
        str(output),
        label_fraction=label_fraction,
        protocol=protocol,
        split_seed=split_seed,
        groups=groups,
        unlabeled=unlabeled,
        name=name,
        overwrite=boolean(overwrite, "overwrite"),
        normals_as_unlabeled=boolean(normals_as_unlabeled, "normals_as_unlabeled"),
    )
    print(describe(output))


def split(
    dataset_dir: str, output_json: str, label_fraction: float = 1.0, protocol: str = "strict", split_seed: int = 0
) -> None:
    """Split the images of a prepared dataset anew, into another JSON file beside the first.

    Args:
        dataset_dir: the dataset's folder.
        output_json: the file to write in it, such as data/busi/seed1.json; give it as --dataset_dir to train on it.
        label_fraction: share of the training images that keep their labels.
        protocol: strict or published.
        split_seed: seed of the split.
    """
    split_dataset(
        str(dataset_dir), str(output_json), label_fraction=label_fraction, protocol=protocol, split_seed=split_seed
    )
    print(describe(output_json))


def phantom(
    output: str,
    count: int = 200,
    seed: int = 0,
    label_fraction: float = 1.0,
    split_seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Make a dataset of B-mode speckle phantoms with lesions and masks; nothing is downloaded.

    Args:
        output: the dataset's folder.
        count: how many images; image i depends on the seed and i alone.
        seed: of the images.
        label_fraction: share of the training images that keep their labels.
        split_seed: seed of the split.
        overwrite: replace a dataset in output.
    """
    write_phantoms(
        str(output),
        count=count,
        seed=seed,
        label_fraction=label_fraction,
        split_seed=split_seed,
        overwrite=boolean(overwrite, "overwrite"),
    )
    print(describe(output))


def convert(checkpoint: str, output: str) -> None:
    """Turn a checkpoint of the authors' training script into weights for this bundle.

    Args:
        checkpoint: their file, such as checkpoint/model.pth; nothing in it can run.
        output: the file to write, such as models/model.pt.
    """
    arguments = convert_checkpoint(str(checkpoint), str(output))
    print(f"{output}: an MGCC network of")
    for name, value in arguments.items():
        print(f"  {name}: {value}")


def show(output_dir: str = "runs") -> None:
    """Print the figures of a finished run and the paths of what it wrote.

    Args:
        output_dir: the run's folder.
    """
    print(show_run(str(output_dir)))


COMMANDS = {"prepare": prepare, "split": split, "phantom": phantom, "convert": convert, "show": show}


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse an option that a command does not have before the command does anything; fire says so only afterwards.

    Args:
        arguments: the words of the command line, the command first.

    Raises:
        MGCCError: names the option and the nearest one that there is.
    """
    if not arguments or arguments[0] not in COMMANDS:
        return
    known = inspect.signature(COMMANDS[arguments[0]]).parameters
    for word in arguments[1:]:
        name = word[2:].split("=")[0].replace("-", "_")
        if word == "--":
            return
        if word.startswith("--") and name not in known and name != "help":
            close = difflib.get_close_matches(name, list(known), n=1)
            hint = f"did you mean --{close[0]}?" if close else f"there are {', '.join('--' + k for k in known)}."
            raise MGCCError(f"{word}: '{arguments[0]}' has no such option; {hint}")


def main() -> None:
    """Run one command."""
    check_arguments(sys.argv[1:])
    fire.Fire(COMMANDS, name="python -m mgcc_monai")
