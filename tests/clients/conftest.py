"""A short training, and the bundle packed with its weights and unpacked in a folder where nothing is installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import monai.bundle
import pytest

from mgcc_monai.interop.package import NAME, package

TINY = Path(__file__).parents[1] / "bundle" / "tiny.yaml"


@pytest.fixture(scope="session")
def example() -> Callable[[str], ModuleType]:
    """``example(path)``: the module of a file under ``examples``."""

    def load(path: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(Path(path).stem, Path(__file__).parents[2] / "examples" / path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, phantoms: Path, configs: Path) -> Path:
    """The segmentation folder of a training of two iterations."""
    output = tmp_path_factory.mktemp("run")
    files = [str(configs / "train.json"), str(TINY)]
    places = dict(bundle_root=str(configs.parent), dataset_dir=str(phantoms), output_dir=str(output))
    options = dict(models_dir=str(output / "models"), generated_fraction=0, learning_rate=0.1)
    monai.bundle.run(run_id="training", config_file=files, logging_file=False, **places, **options)
    return output / "segmentation"


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory, run_folder: Path) -> Path:
    """The zip."""
    return package("1.2.3", str(tmp_path_factory.mktemp("packed")), weights=str(run_folder))


@pytest.fixture
def unpacked(packed: Path, tmp_path: Path) -> Path:
    """The bundle's folder in an otherwise empty one."""
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "unpacked")
    return tmp_path / "unpacked" / NAME


@pytest.fixture
def bare() -> Callable[..., str]:
    """``bare(folder, *words, path=None)``: run Python in a folder, with the requirements but without this package.

    Without ``site`` no editable installation is seen; ``path`` is a folder more to import from.
    """

    def run(folder: Path, *words: object, path: Path | None = None) -> str:
        places = [sysconfig.get_path("purelib"), *([str(path)] if path else [])]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-S", *map(str, words)]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout + done.stderr

    return run
