"""The whole method by one command: each stage as a bundle workflow, in order, none done twice."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from fire.parser import DefaultParseValue

from mgcc_monai.errors import MGCCError, plain_os_errors, raise_errors
from mgcc_monai.files import sha256, try_writable, write_json
from mgcc_monai.handlers.preemption import SIGNALS
from mgcc_monai.lock import check_free, held
from mgcc_monai.parse import suggest
from mgcc_monai.runs.options import find_bundle, read_options, wrong_values
from mgcc_monai.runs.process import run_and_forward
from mgcc_monai.runs.threads import busy_processors, waiting
from mgcc_monai.runs.words import is_text, lost, monai_text

__all__ = ["STAGES", "Stage", "fit"]


class Stage(NamedTuple):
    """A workflow of the bundle: what runs, where it writes, what it makes, and whose work it needs."""

    name: str
    run_id: str
    configs: tuple[str, ...]
    folder: str
    outputs: tuple[str, ...]
    needs: str | None


# names of options that change nothing in what a stage makes of its data: where and how it computes, what it shows
_NOT_LEARNED = set(
    "bundle_root cache_num dataset_dir device distributed_timeout generation_batch_size models_dir num_workers "
    "output_dir preview_count resume".split()
)
_MANIFEST, _WEIGHTS = "manifest.jsonl", "diffusion_pytorch_model.safetensors"

STAGES = (
    Stage("train_autoencoder", "training", ("train_autoencoder.json",), "autoencoder", (f"vae/{_WEIGHTS}",), None),
    Stage(
        "train_diffusion",
        "training",
        ("train_diffusion.json",),
        "diffusion",
        (f"pipeline/vae/{_WEIGHTS}", f"pipeline/unet/{_WEIGHTS}"),
        "train_autoencoder",
    ),
    Stage("generate", "generating", ("generate.json",), "generated", (_MANIFEST, "gate.json"), "train_diffusion"),
    Stage("train", "training", ("train.json",), "segmentation", ("model.pt", "inference.json"), "generate"),
    Stage("evaluate", "evaluating", ("train.json", "evaluate.json"), "evaluation", ("summary.json",), "train"),
)


@plain_os_errors()
def fit(
    output_dir: str = "runs",
    dataset_dir: str | None = None,
    preset: str = "small",
    method: str = "mgcc",
    bundle_root: str | None = None,
    tracking: str = "",
    **settings: Any,
) -> None:
    """Train the autoencoder and the denoiser, generate images, train the segmenter with them and evaluate it.

    A stage whose settings, data and upstream weights are those of a finished one is skipped; one that was stopped is
    resumed. So the same command goes on where it ended.

    Args:
        output_dir: where everything is written, a folder a stage.
        dataset_dir: a prepared dataset; the embedded phantoms by default.
        preset: demo, small, or paper for the configs as they are; several with commas, such as small,keep_aspect; or
            a .yaml file of your own.
        method: mgcc, supervised, mean_teacher, or a .yaml file of your own.
        bundle_root: the bundle's folder; by default the one at hand.
        tracking: mlflow, for a run per stage in OUTPUT_DIR/mlruns.db, or a file of MONAI's tracking settings.
        settings: any name at the top of a stage's config, such as --num_images 500 or --max_iterations 2000.

    Raises:
        MGCCError: when an option does not exist, another run is using the folder, the data are missing, a stage would
            refuse something, or one failed.
    """
    root = find_bundle(bundle_root)
    output = Path(str(output_dir)).absolute()
    settings = _read_settings(settings, root)
    overlays = [*_overlays(root, "presets", preset, "paper"), *_overlays(root, "methods", method, "mgcc")]
    stages = _needed(root, overlays, settings)
    try_writable(output)
    if tracking == "mlflow" and importlib.util.find_spec("mlflow") is None:
        raise MGCCError("--tracking mlflow: needs mlflow; run `pip install mlflow pandas`.")
    for stage in stages:
        check_free(output / stage.folder)
    typed = {
        name: monai_text(str(value)) if isinstance(value, str | os.PathLike) else value
        for name, value in settings.items()
    }
    folders = {"bundle_root": monai_text(str(root)), "output_dir": monai_text(str(output)), **typed}
    laid = {stage.name: (stage.run_id, _files(root, stage, overlays)) for stage in stages}
    from mgcc_monai.runs.preflight.stages import check_stages

    check_stages(laid, folders, data=False)  # before phantoms are made
    with held(output, inside=True):
        _run_stages(stages, laid, folders, settings, root, output, dataset_dir, tracking)


def _run_stages(
    stages: Sequence[Stage],
    laid: Mapping[str, tuple[str, Sequence[Path]]],
    folders: Mapping[str, Any],
    settings: Mapping[str, Any],
    root: Path,
    output: Path,
    dataset_dir: str | None,
    tracking: str,
) -> None:
    """Run each stage that is not done yet, once all of them have passed their checks."""
    from mgcc_monai.data.dataset import load_datalist
    from mgcc_monai.data.items import embedded_phantoms
    from mgcc_monai.runs.best_weights import install_weights
    from mgcc_monai.runs.preflight.stages import check_stages

    data = Path(str(dataset_dir)).absolute() if dataset_dir is not None else Path(embedded_phantoms(output))
    data_hash = load_datalist(data)["hash"]
    begun, checked = time.time(), False
    for number, stage in enumerate(stages, start=1):
        used = laid[stage.name][1]
        needs = stage.needs if stage.needs in {other.name for other in stages} else ""
        upstream = _record(output).get(needs, {}).get("made")
        key = _hash([_relevant(used, settings), data_hash, upstream])
        title = f"[{number}/{len(stages)}] {stage.name}"
        done = _record(output).get(stage.name, {})
        if done.get("key") == key and done.get("made") and done["made"] == _made(output, stage):
            print(f"{title}: done before, skipped", flush=True)
            if stage.name == "train" and "models_dir" in settings:
                install_weights(output / stage.folder, settings["models_dir"])
            continue
        if not checked:
            check_stages(laid, {**folders, "dataset_dir": monai_text(str(data))}, data=True)
            checked = True
        found = _stamps(output / stage.folder / "checkpoints")
        foreign = done.get("foreign", {}) if done.get("key") == key else found  # checkpoints of other settings
        resume = any(foreign.get(name) != stamp for name, stamp in found.items())
        print(f"{title}: {'resumes' if resume else 'starts'}, {_clock(time.time() - begun)} so far", flush=True)
        _note(output, stage.name, {"key": key, "foreign": foreign})
        again = {**({"resume": "true"} if resume else {}), **({"tracking": tracking} if tracking else {})}
        seconds = _run(stage, used, root, output, data, {**settings, **again})
        made = _made(output, stage)
        if made is None:
            raise MGCCError(f"{output / stage.folder}: {stage.name} ended without {', '.join(stage.outputs)}.")
        done = {"key": key, "foreign": foreign, "made": made, "seconds": round(seconds, 1)}
        _note(output, stage.name, done)
    print(f"{len(stages)} stages done in {_clock(time.time() - begun)}: {output}", flush=True)


def _needed(root: Path, overlays: Sequence[Path], settings: Mapping[str, Any]) -> list[Stage]:
    """All stages; stage 2 alone where nothing unlabelled, or nothing generated, is trained on."""
    train = _relevant([root / "configs" / "train.json", *overlays], settings)
    unused = any(_is_zero(train[name]) for name in ("consistency_weight", "generated_fraction"))
    return [stage for stage in STAGES if not unused or stage.folder in ("segmentation", "evaluation")]


def _is_zero(value: Any) -> bool:
    try:
        return float(value) == 0
    except (TypeError, ValueError):
        return False


def _overlays(root: Path, kind: str, names: Any, none: str) -> list[Path]:
    """Return the files of presets or methods: names of the bundle's, or files of your own, with commas between them."""
    files = []
    for name in names if isinstance(names, list | tuple) else str(names).split(","):
        own = Path(str(name))
        path = own.absolute() if own.suffix in (".yaml", ".yml") else root / "configs" / kind / f"{name}.yaml"
        if name != none and not path.is_file():
            shipped = sorted(file.stem for file in (root / "configs" / kind).glob("*.yaml"))
            known = ", ".join([none, *shipped])
            raise MGCCError(f"--{kind[:-1]} {name}: there is no such file; give one of {known}, or a .yaml file.")
        files += [] if name == none else [path]
    return files


def _read_settings(settings: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Read words as the stages will: paths and names as typed, all else as MONAI does; refuse what cannot be."""
    options = read_options(root)
    read: dict[str, Any] = {}
    for name, value in settings.items():
        if name == "resume":
            raise MGCCError("--resume: 'fit' goes on by itself where it ended; leave it out.")
        if name not in options:
            raise MGCCError(f"--{name}: 'fit' has no such option{suggest(name, options)}")
        if name in {f"{stage.folder}_dir" for stage in STAGES}:
            raise MGCCError(f"--{name}: 'fit' writes a folder a stage under --output_dir; leave it out.")
        if is_text(name, options) and not isinstance(value, str | os.PathLike):
            raise MGCCError(f"--{name}: give a word or a path, not {value}.")
        if isinstance(value, str) and not is_text(name, options):
            if lost(value, False):
                raise MGCCError(f"--{name} {value}: would be read as {DefaultParseValue(value)!r}; leave '#' out.")
            value = DefaultParseValue(value)
        read[name] = value
    raise_errors(wrong_values(read, options), "options")
    if read.get("pretrained"):
        from mgcc_monai.runs.find_weights import find_weights, shipped

        if read["pretrained"] in shipped(root):
            read["pretrained"] = str(find_weights(read["pretrained"], root).weights)
    return read


def _files(root: Path, stage: Stage, overlays: Sequence[Path]) -> list[Path]:
    first, *rest = (root / "configs" / name for name in stage.configs)
    return [first, *overlays, *rest]


def _relevant(files: Sequence[Path], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The stage's files, and of overlays and options what the stage has a name for, but what changes no result."""
    merged: dict[str, Any] = json.loads(files[0].read_text())
    names = set(merged)
    for path in files[1:]:
        overlay = yaml.safe_load(path.read_text())  # JSON is YAML
        merged.update({k: v for k, v in overlay.items() if path.suffix == ".json" or _top(k) in names})
    merged.update({name: value for name, value in settings.items() if name in merged})
    return {name: value for name, value in merged.items() if name not in _NOT_LEARNED}


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _made(output: Path, stage: Stage) -> str | None:
    """Hash of what a stage made; None where something is missing."""
    files = [output / stage.folder / name for name in stage.outputs]
    return _hash([sha256(path) for path in files]) if all(path.is_file() for path in files) else None


def _record(output: Path) -> dict[str, Any]:
    path = output / "fit.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _note(output: Path, name: str, entry: Mapping[str, Any]) -> None:
    write_json(output / "fit.json", {**_record(output), name: dict(entry)})


def _run(
    stage: Stage, files: Sequence[Path], root: Path, output: Path, data: Path, settings: Mapping[str, Any]
) -> float:
    """Run a stage in a process of its own and return the seconds that it took."""
    options = {"bundle_root": root, "output_dir": output, "dataset_dir": data, **settings}
    command = [sys.executable, "-m", "monai.bundle", "run", stage.run_id, "--config_file", str([str(f) for f in files])]
    for name, value in options.items():
        command += [f"--{name}", monai_text(str(value)) if isinstance(value, str | os.PathLike) else str(value)]
    added, told = waiting(os.environ, busy_processors())
    if told:
        print(told, flush=True)
    begun = time.time()
    code = run_and_forward(command, {"PYTHONWARNINGS": "ignore", **os.environ, **added})
    if code in (128 + number for number in SIGNALS):
        print(f"Stage {stage.name} was stopped; rerun the same command to resume it.", file=sys.stderr, flush=True)
        raise SystemExit(code)
    if code:
        raise MGCCError(
            f"Stage {stage.name} failed (exit code {code}); see its error above. Fix the cause and rerun: completed "
            "work is kept."
        )
    return time.time() - begun


def _top(name: Any) -> str:
    return re.split("::|#", str(name).lstrip("+"))[0]


def _stamps(folder: Path) -> dict[str, int]:
    from mgcc_monai.handlers.checkpoint import checkpoints

    return {path.name: path.stat().st_mtime_ns for path in checkpoints(folder)}


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
