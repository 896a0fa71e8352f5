"""The command line: ``python -m mgcc_monai COMMAND``. Each command is one function of the package."""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import fire

from mgcc_monai.data.integrity import check_dataset
from mgcc_monai.data.phantom import write_phantoms
from mgcc_monai.data.prepare import describe, prepare, split
from mgcc_monai.errors import MGCCError
from mgcc_monai.evaluation.show import show_run
from mgcc_monai.files import write_json
from mgcc_monai.fit import fit
from mgcc_monai.interop.authors import convert as convert_checkpoint
from mgcc_monai.options import boolean

__all__ = ["main"]


def _making_a_dataset(function: Callable[..., Any], output: str) -> Callable[..., None]:
    """Make a command of a function that writes a dataset: read its switches strictly, describe what it wrote."""
    parameters = inspect.signature(function).parameters

    @functools.wraps(function)
    def command(*words: Any, **options: Any) -> None:
        bound = inspect.signature(function).bind(*words, **options)
        for name, value in bound.arguments.items():
            if isinstance(parameters[name].default, bool):
                bound.arguments[name] = boolean(value, name)
        function(*bound.args, **bound.kwargs)
        print(describe(str(bound.arguments[output])))

    return command


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


def check(dataset_dir: str, report: str = "") -> None:
    """Run every check over a dataset and print what they found; the exit code is 1 when there are faults.

    Args:
        dataset_dir: the dataset's folder, or its file.
        report: a JSON file to write everything to.
    """
    found = check_dataset(str(dataset_dir))
    if report:
        write_json(str(report), found.content())
    print(found.table())
    if found.faults:
        raise MGCCError(f"{found.file}: faults found ({len(found.faults)}); correct them before training.")


def show(output_dir: str = "runs") -> None:
    """Print the figures of a finished run and the paths of what it wrote.

    Args:
        output_dir: the run's folder.
    """
    print(show_run(str(output_dir)))


COMMANDS = {
    "prepare": _making_a_dataset(prepare, "output"),
    "split": _making_a_dataset(split, "output_json"),
    "phantom": _making_a_dataset(write_phantoms, "output"),
    "fit": fit,
    "check": check,
    "convert": convert,
    "show": show,
}


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
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return  # the command looks at its options itself
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
