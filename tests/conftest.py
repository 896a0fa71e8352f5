"""What several tests need: a bundle to run, phantoms, real data where there are any, and the published figures."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import monai.bundle
import numpy as np
import pytest
import torch

from mgcc_monai.data.phantom.write import write_phantoms
from mgcc_monai.weights import load_checkpoint

REPOSITORY = Path(__file__).resolve().parents[1]
TINY = Path(__file__).parent / "bundle" / "tiny.yaml"


BUSI_SAMPLE = {"benign/*.png": 156, "malignant/*.png": 81, "normal/*.png": 40}
BUSI_256 = {"index.csv": 1, "images/*.png": 622, "masks/*.png": 622}
AUTHORS = {"authors_network.json": 1, "authors_network.npz": 1}


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """``shared(name)``: a folder of files that are not in the repository; skips where one of them is missing.

    They are in ``MGCC_SHARED``, or in ``shared`` beside the repository.
    """
    root = Path(os.environ.get("MGCC_SHARED") or REPOSITORY.parent / "shared")
    wanted = {"data/busi_original_sample": BUSI_SAMPLE, "data/busi_256": BUSI_256, "reference": AUTHORS}
    wanted["data/busbra_dev"] = {"Images/*.png": 1234, "Masks/*.png": 1234, "bus_data.csv": 1}
    wanted["data/ddti_dev"] = {"*.xml": 279, "*.jpg": 335}

    def find(name: str) -> Path:
        for pattern, count in wanted[name].items():
            found = sum(path.is_file() and path.stat().st_size > 0 for path in (root / name).glob(pattern))
            if found < count:
                pytest.skip(f"{root / name}: {found} of {count} files {pattern}; set MGCC_SHARED to a folder with them")
        return root / name

    return find


@pytest.fixture(scope="session")
def dicom_files() -> ModuleType:
    """The module that writes DICOM files: ``write_dicom``, ``region``, ``jpeg``, ``PATIENT``."""
    spec = importlib.util.spec_from_file_location("dicom_files", Path(__file__).with_name("dicom_files.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configs of the bundle as it is shipped; a copy of it where MONAI could not read its path as an option."""
    if "#" not in str(REPOSITORY):
        return REPOSITORY / "bundle" / "configs"
    return Path(shutil.copytree(REPOSITORY / "bundle", tmp_path_factory.mktemp("shipped") / "bundle")) / "configs"


@pytest.fixture(scope="session")
def figures() -> dict[str, Any]:
    """Figures of the authors' network and training, as their released code gives them."""
    return json.loads((Path(__file__).parent / "reference" / "mgcc_reference.json").read_text())


@pytest.fixture(scope="session")
def arrays() -> dict[str, torch.Tensor]:
    """Random inputs, and what the authors' released code makes of them."""
    with np.load(Path(__file__).parent / "reference" / "mgcc_reference.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty phantoms of 64 x 80 pixels, half of the training images labelled."""
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(str(folder), count=20, seed=3, label_fraction=0.5, size=(64, 80))
    return folder


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory, phantoms: Path, configs: Path) -> Path:
    """The folder of an autoencoder that was trained for an iteration, for the denoiser to learn from."""
    output = tmp_path_factory.mktemp("encoded")
    files = [str(configs / "train_autoencoder.json"), str(TINY)]
    options = dict(bundle_root=str(configs.parent), dataset_dir=str(phantoms), output_dir=str(output))
    monai.bundle.run(run_id="training", config_file=files, logging_file=False, **options)
    return output / "autoencoder"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the bundle, without weights, so that no test writes into the repository."""
    target = tmp_path / "bundle"
    shutil.copytree(REPOSITORY / "bundle", target, ignore=shutil.ignore_patterns("*.pt", "breast", "runs"))
    return target


@pytest.fixture
def describe(bundle: Path):
    """``describe(*names)``: let configs of the copied bundle, by default all, describe the network of ``tiny.yaml``."""

    def edit(*names: str) -> None:
        for name in names or ("train.json", "inference.json"):
            content = json.loads((bundle / "configs" / name).read_text())
            (content if "channels" in content else content["network_def"])["channels"] = [4, 4, 8, 8, 16]
            (bundle / "configs" / name).write_text(json.dumps(content, indent=4) + "\n")

    return edit


@pytest.fixture
def run(bundle: Path, tmp_path: Path):
    """``run(run_id, *config names, **overrides)``: a workflow of the copied bundle, in this process."""

    def run_workflow(run_id: str, *names: str, **overrides: object) -> None:
        files = [str(bundle / "configs" / name) for name in names]
        if names[0] != "inference.json":
            files.insert(1, str(TINY))
        settings = {"bundle_root": str(bundle), "output_dir": str(tmp_path / "runs"), **overrides}
        monai.bundle.run(run_id=run_id, config_file=files, logging_file=False, **settings)

    return run_workflow


@pytest.fixture
def start(bundle: Path, phantoms: Path, tmp_path: Path) -> Iterator[Any]:
    """``start(run_id, *config names, ranks=1, **options)``: a workflow in processes of its own; what was printed goes
    to ``tmp_path / "printed.txt"``."""
    processes: list[subprocess.Popen] = []

    def begin(run_id: str, *names: str, ranks: int = 1, **options: Any) -> subprocess.Popen:
        files = [str(bundle / "configs" / name) for name in names]
        files.insert(1, str(TINY))
        command = [sys.executable, "-W", "ignore"]
        if ranks > 1:
            command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
        command += ["-m", "monai.bundle", "run", run_id, "--config_file", str(files)]
        settings = {"bundle_root": bundle, "output_dir": tmp_path / "runs", "dataset_dir": phantoms, **options}
        for name, value in settings.items():
            command += [f"--{name}", str(value)]
        path = f"{Path(__file__).parent}:{REPOSITORY}"
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        with (tmp_path / "printed.txt").open("a") as printed:
            processes.append(subprocess.Popen(command, cwd=bundle, env=env, stdout=printed, stderr=printed))
        return processes[-1]

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Gives SIGTERM and SIGINT back, whatever a failed training has left behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def misbehaviour(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """``misbehaviour(part="train", **arguments)``: an overlay that adds ``misbehaviour.At`` to a part's handlers."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))

    def overlay(part: str = "train", **arguments: Any) -> str:
        path = tmp_path / f"misbehaviour_{part}.json"
        path.write_text(json.dumps({f"+{part}#handlers": [{"_target_": "misbehaviour.At", **arguments}]}))
        return str(path)

    return overlay


def leaves(thing: Any, path: str = "") -> list[tuple[str, Any]]:
    """Everything in nested dictionaries and lists, with its path."""
    if isinstance(thing, dict):
        return [found for key in sorted(thing, key=str) for found in leaves(thing[key], f"{path}/{key}")]
    if isinstance(thing, list | tuple):
        return [found for number, inner in enumerate(thing) for found in leaves(inner, f"{path}/{number}")]
    return [(path, thing)]


def hash_of(path: Path) -> str:
    """Hash over names and bytes of all tensors and values of a checkpoint."""
    digest, tensors = hashlib.sha256(), 0
    for name, value in leaves(load_checkpoint(path)):
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            tensors += 1
            digest.update(str((value.dtype, tuple(value.shape))).encode())
            digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
        else:
            digest.update(repr(value).encode())
    assert tensors > 40, "weights and momenta at least"
    return digest.hexdigest()


@pytest.fixture(scope="session")
def state_hash() -> Callable[[Path], str]:
    """``state_hash(path)``: a hash over names and bytes of all tensors and values of a checkpoint."""
    return hash_of
