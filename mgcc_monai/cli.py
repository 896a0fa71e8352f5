"""The command line: ``python -m mgcc_monai COMMAND``. Each command is one function of the package."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, get_args, get_type_hints

from mgcc_monai.errors import MGCCError, plain_os_errors
from mgcc_monai.parse import Word, nearest, parse_bool, split_words

__all__ = ["main"]


def _prepare() -> Callable[..., Any]:
    from mgcc_monai.data.describe import describe
    from mgcc_monai.data.prepare import prepare

    return _describing(prepare, "output", describe)


def _split() -> Callable[..., Any]:
    from mgcc_monai.data.describe import describe
    from mgcc_monai.data.prepare import split

    return _describing(split, "output_json", describe)


def _phantom() -> Callable[..., Any]:
    from mgcc_monai.data.describe import describe
    from mgcc_monai.data.phantom.write import write_phantoms

    return _describing(write_phantoms, "output", describe)


def _describing(function: Callable[..., Any], output: str, describe: Callable[[str], str]) -> Callable[..., None]:
    """Make a command of a function that writes a dataset: describe what it wrote."""

    @wraps(function)
    def command(**options: Any) -> None:
        function(**options)
        print(describe(options[output]))

    return command


def _fit() -> Callable[..., Any]:
    from mgcc_monai.runs.fit import fit

    return fit


def convert(checkpoint: str, output: str) -> None:
    """Turn a checkpoint of the authors' training script into weights for this bundle.

    Args:
        checkpoint: their file, such as checkpoint/model.pth; nothing in it can run.
        output: the file to write, such as models/model.pt.
    """
    from mgcc_monai.interop.authors import convert as convert_checkpoint

    arguments = convert_checkpoint(str(checkpoint), str(output))
    print(f"{output}: an MGCC network of")
    for name, value in arguments.items():
        print(f"  {name}: {value}")


def check(dataset_dir: str, report: str = "") -> None:
    """Run every check over a dataset and print the findings; the exit code is 1 when there are faults.

    Args:
        dataset_dir: the dataset's folder, or its file.
        report: a JSON file to write everything to.
    """
    from mgcc_monai.data.checks.report import check_dataset
    from mgcc_monai.files import try_writable, write_json

    if report:
        try_writable(report, file=True)
    found = check_dataset(str(dataset_dir))
    if report:
        write_json(str(report), found.content())
    print(found.table())
    if found.faults:
        raise MGCCError(f"{found.file}: faults found ({len(found.faults)}); correct them before training.")


def _segment() -> Callable[..., Any]:
    from mgcc_monai.runs.segment import segment

    return segment


def _package() -> Callable[..., Any]:
    from mgcc_monai.interop.package import package

    return _naming(package)


def _export() -> Callable[..., Any]:
    from mgcc_monai.interop.export import export

    return _naming(export)


def _naming(function: Callable[..., Any]) -> Callable[..., None]:
    """Make a command of a function that writes a file: print its path."""

    @wraps(function)
    def command(**options: Any) -> None:
        print(function(**options))

    return command


def doctor(path: str) -> None:
    """Check a bundle as the Model Zoo's CI does, offline; the exit code is 1 when something is wrong.

    Args:
        path: the bundle's folder, or its zip.
    """
    from mgcc_monai.interop.doctor import doctor as examine
    from mgcc_monai.interop.zoo_checks import CHECKS

    found = examine(str(path))
    for finding in found:
        print(finding.line)
    print(f"{path}: {len(CHECKS)} checks, {len(found)} findings")
    if found:
        raise MGCCError(f"{path}: the zoo would refuse it; mend what is listed above.")


def show(output_dir: str = "runs") -> None:
    """Print the figures of a finished run and the paths of what it wrote.

    Args:
        output_dir: the run's folder.
    """
    from mgcc_monai.runs.show import show_run

    print(show_run(str(output_dir)))


COMMANDS: dict[str, tuple[str, Callable[[], Callable[..., Any]]]] = {
    "segment": ("Outline lesions in images.", _segment),
    "prepare": ("Make a dataset of your images and masks.", _prepare),
    "split": ("Split a prepared dataset anew.", _split),
    "phantom": ("Make a dataset of simulated images, for trials.", _phantom),
    "fit": ("Train, generate, train with the generated images, and evaluate.", _fit),
    "check": ("Check a dataset.", lambda: check),
    "convert": ("Convert a checkpoint of the authors' code.", lambda: convert),
    "package": ("Pack the bundle with the weights of a run, for the Model Zoo and its clients.", _package),
    "export": ("Export a segmenter for ONNX Runtime, OpenVINO or TorchScript.", _export),
    "doctor": ("Check a bundle as the Model Zoo does.", lambda: doctor),
    "show": ("Print the figures of a finished run.", lambda: show),
}
"""Each command: what it does, and a function that imports and returns it, so that no command waits for another's."""


def read_arguments(command: str, words: Sequence[str]) -> dict[str, Any]:
    """Read the words behind a command: text as typed, numbers and switches strictly, by its function's annotations.

    Args:
        command: one of ``COMMANDS``.
        words: options as ``--name text`` or ``--name=text``; before them, words for the first parameters.

    Returns:
        what to call the function with.

    Raises:
        MGCCError: for an option that there is not, comes twice or lacks its value, and for a value that cannot be.
    """
    function = COMMANDS[command][1]()
    known = inspect.signature(function).parameters
    hints = get_type_hints(function)
    names = [name for name, parameter in known.items() if parameter.kind is not parameter.VAR_KEYWORD]
    options, alone = split_words(words)
    several = bool(names) and hints.get(names[0]) == list[str]  # all words before the options are its values
    if list(words[: len(alone)]) != alone or (len(alone) > len(names) and not several):
        word = next((word for place, word in enumerate(alone) if words[place] != word), alone[-1])
        raise MGCCError(f"'{word}' stands alone: give options as --name value, and put quotes around spaces.")
    read: dict[str, Any] = {names[0]: alone} if several and alone else {}
    first = [] if several else [Word(name, text, False) for name, text in zip(names, alone)]
    for name, text, joined in [*first, *options]:
        if name not in names and len(names) == len(known):  # else the command looks at its settings itself
            raise MGCCError(f"--{name}: '{command}' has no such option; {_nearest('--', name, names)}")
        if name in read:
            raise MGCCError(f"--{name}: is given twice; give it once.")
        hint = next((kind for kind in get_args(hints.get(name)) if kind in (int, float, bool)), hints.get(name))
        if text is None:
            if hint is not bool and name in names:
                raise MGCCError(f"--{name}: give a value; write --{name}=VALUE where it begins with '-'.")
            read[name] = True
            continue
        read[name] = _read(name, os.path.expanduser(text) if joined and text[:1] == "~" else text, hint)
        if read[name] == "" and name in names and known[name].default != "":
            raise MGCCError(f"--{name}: is empty; give a value, or leave it out.")
    if missing := [name for name in names if known[name].default is inspect.Parameter.empty and name not in read]:
        raise MGCCError(f"'{command}' needs --{', --'.join(missing)}; see `python -m mgcc_monai {command} --help`.")
    return read


def _nearest(dashes: str, name: str, names: Sequence[str]) -> str:
    close = nearest(name, names)
    return f"did you mean {dashes}{close}?" if close else f"there are {', '.join(dashes + one for one in names)}."


def _read(name: str, text: str, hint: Any) -> Any:
    """Read one value by its annotation."""
    if text.encode(errors="replace").decode() != text:  # bytes that are no text
        raise MGCCError(f"--{name} {text!r}: is not UTF-8; rename it.")
    number = text.strip()
    if hint is bool:
        return parse_bool(text, name)
    if hint is int:
        if not re.fullmatch(r"[+-]?[0-9]+", number):
            raise MGCCError(f"--{name} must be an integer, got '{text}'.")
        return int(number)
    if hint is float:
        if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", number):
            raise MGCCError(f"--{name} must be a number, got '{text}'.")
        return float(number)
    if hint == list[str]:
        return [text]
    if hint == tuple[int, int] | None:
        sides = re.fullmatch(r"[\[(]?\s*([0-9]+)\s*,\s*([0-9]+)\s*[\])]?", number)
        if sides is None:
            raise MGCCError(f"--{name} must be two integers, as 300,400, got '{text}'.")
        return int(sides[1]), int(sides[2])
    return text


def _help(command: str) -> str:
    """Return the help of a command, or of all."""
    if command not in COMMANDS:
        lines = [f"  {name:8}  {what}" for name, (what, _) in COMMANDS.items()]
        return "\n".join(
            ["python -m mgcc_monai COMMAND [--OPTION VALUE ...]", "", *lines, "", "COMMAND --help: its options."]
        )
    function = COMMANDS[command][1]()
    usage = [
        f"--{name}{'' if parameter.default is parameter.empty else f' ({parameter.default!r})'}"
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    text = [f"python -m mgcc_monai {command} " + " ".join(usage), "", inspect.getdoc(function) or ""]
    if command == "fit":
        from mgcc_monai.runs.options import find_bundle, option_table, read_options

        text += ["", "Options of the configs, with their defaults:", option_table(read_options(find_bundle()))]
    return "\n".join(text)


def main() -> None:
    """Run one command; what the system refuses, such as a full disk, ends in one line too."""
    command, words = next(iter(sys.argv[1:]), "--help"), sys.argv[2:]
    if command in ("-h", "--help", "--") or {"-h", "--help"} & set(words):
        print(_help(command))
    elif command not in COMMANDS:
        raise MGCCError(f"{command}: there is no such command; {_nearest('', command, list(COMMANDS))}")
    else:
        with plain_os_errors():
            COMMANDS[command][1]()(**read_arguments(command, words))
