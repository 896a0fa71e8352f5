"""Whether a run that is to be resumed is the one in the folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from mgcc_monai import __version__
from mgcc_monai.errors import MGCCError, raise_errors
from mgcc_monai.handlers.checkpoint import newest_checkpoint
from mgcc_monai.parse import parse_bool
from mgcc_monai.runs.config import TRACKED, active_parser

__all__ = ["check_resume"]

# where things lie, and what changes nothing in what is learned; the header of the record is compared by its values
_FREE = {"bundle_root", "cache_num", "device", "distributed_timeout", "finalize", "imports", "initialize", "max_epochs"}
_FREE |= {"num_inference_steps", "num_workers", "preview_count", "record", "resume", "run", "run_name", "training"}
_FREE |= set(TRACKED)
_REPORTERS = {"LogfileHandler", "ReconstructionPreview", "SamplePreview", "StatsHandler", "TensorBoardStatsHandler"}
_REPORTERS |= {"TrainingRun", "MLFlowHandler"}
_OWN = ("diffusers", "ignite", "mgcc_monai", "monai", "torch")  # packages whose handlers are compared
_FREE_HEADER = {"dataset", "resize", "stage"}  # the data count by their hash, resizing by the config
_SAME = {"cosine_with_restarts": "cosine"}  # one cycle of it is the cosine, but for what lies past the end
_WORDS = {"dataset_hash": "hash of the dataset", "processes": "number of processes", "autoencoder": "the autoencoder"}
_WORDS |= {"generated_hash": "the generated images", "pretrained": "the pretrained weights"}


def check_resume(record: Any) -> None:
    """Check, before anything is written, that what is to be resumed is the run that is in the folder.

    Every setting of the running config is compared with the run's ``config.json``, and the record's header, which holds
    the hashes of data and weights, with its ``run.json``. Folders, and what changes nothing in what is learned, may
    differ, and so may a setting that the run's version of the bundle did not have, at its default.

    Args:
        record: of the run, which knows its folder and whether it is to be resumed.

    Raises:
        MGCCError: when there is no checkpoint or no record of its run, or lists every difference.
    """
    if not record.resume:
        return
    parser, stage = active_parser(), record.folder
    newest = newest_checkpoint(stage / "checkpoints")
    if parser is None:
        return
    then, run = _read(stage / "config.json", newest), _read(stage / "run.json", newest)
    _check_version(run, newest)
    header = record.header
    told = {name: (run[name], value) for name, value in header.items() if name in run and name not in _FREE_HEADER}
    told |= _settings(then, parser, set(told))
    again = f"resume {stage} with its own data and settings, or start anew without --resume or in another --output_dir."
    faults = [
        f"{_WORDS.get(name, name)}: was {_shown(old)}, is {_shown(new)}; {again}"
        for name, (old, new) in told.items()
        if _plain(old) != _plain(new)
    ]
    raise_errors(faults, "another run than the one to resume")


def _check_version(run: Mapping[str, Any], newest: Path) -> None:
    """Refuse a run of a version whose configs consist of other parts."""
    then = str(run.get("versions", {}).get("mgcc-monai", __version__))
    if then.split(".")[:2] != __version__.split(".")[:2]:
        raise MGCCError(
            f"{newest}: was written by mgcc-monai {then}, this is {__version__}, whose configs consist of other parts; "
            "finish the run with that version, or start anew without --resume."
        )


def _read(path: Path, newest: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    except (OSError, ValueError):
        pass
    raise MGCCError(
        f"{path}: is missing or damaged, so nothing says what run {newest.name} is of; put the file back, or leave "
        "--resume out to start anew."
    )


def _settings(then: Mapping[str, Any], parser: ConfigParser, known: set[str]) -> dict[str, tuple[Any, Any]]:
    """Return the settings of both configs, but for those that the header has: name to value then and value now."""
    now = {name: value for name, value in parser.config.items() if name != "_meta_"}
    old, new = _leaves(then), _leaves(now)
    texts = [json.dumps(config, default=str) for config in (then, now)]
    configs = Path(parser.get_parsed_content("bundle_root")) / "configs"
    shipped = [_leaves(json.loads(path.read_text())) for path in sorted(configs.glob("*.json"))]
    found = {}
    for name in [*new, *(name for name in old if name not in new)]:
        parts = name.split("#")
        if name in known or _FREE & {parts[0], parts[-1]} or parts[-1].endswith("_dir"):
            continue
        if len(parts) == 1 and not any(f"@{name}" in text for text in texts):
            continue  # a name of another stage
        default = name not in old and any(name in file and _plain(file[name]) == _plain(new[name]) for file in shipped)
        if not default:
            found[name] = old.get(name, "nothing"), new.get(name, "nothing")
    return found


def _leaves(value: Any, name: str = "") -> dict[str, Any]:
    """Return what is no dictionary, and no list of dictionaries, by its path; handlers go by their class, not place."""
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, list | tuple) and any(isinstance(part, Mapping | list | tuple) for part in value):
        pairs = _handlers(value) if name.endswith("#handlers") else list(enumerate(value))
    else:
        return {name: value}
    parts = [_leaves(part, f"{name}#{key}" if name else str(key)) for key, part in pairs]
    return {inner: leaf for part in parts for inner, leaf in part.items()}


def _handlers(handlers: Any) -> list[tuple[str, Any]]:
    seen: Counter[str] = Counter()
    pairs = []
    for handler in handlers:
        target = str(handler["_target_"] if isinstance(handler, Mapping) else handler)
        name = target.rpartition(".")[2]
        if name in _REPORTERS or ("." in target and target.split(".")[0] not in _OWN):
            continue  # those of others are left to whoever adds them
        seen[name] += 1
        pairs.append((name if seen[name] == 1 else f"{name} {seen[name]}", handler))
    return pairs


def _plain(value: Any) -> Any:
    """Return what a value says, however it is written: numbers and switches of the command line may be words."""
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    word = str(value).strip()
    for read in (int, float, parse_bool):
        try:
            return read(word)
        except (ValueError, MGCCError):
            continue
    return word.replace("#", "::") if word[:1] in tuple("@$%") else _SAME.get(word, word)


def _shown(value: Any) -> str:
    return str(value)[:100] if str(value) else "none"
