"""A bundle of its own and a dataset of small phantoms, for every test that runs a workflow."""

from __future__ import annotations

import shutil
from pathlib import Path

import monai.bundle
import pytest

from mgcc_monai.data.phantom import write_phantoms

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = Path(__file__).with_name("tiny.yaml")


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty phantoms of 64 x 80 pixels, half of the training images labelled."""
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(str(folder), count=20, seed=3, label_fraction=0.5, size=(64, 80))
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the bundle, without weights, so that no test writes into the repository."""
    target = tmp_path / "bundle"
    shutil.copytree(REPOSITORY / "bundle", target, ignore=shutil.ignore_patterns("*.pt", "runs"))
    return target


@pytest.fixture
def run(bundle: Path, tmp_path: Path):
    """``run(run_id, *config names, **overrides)``: a workflow of the copied bundle, in this process."""

    def run_workflow(run_id: str, *names: str, **overrides: object) -> None:
        files = [str(bundle / "configs" / name) for name in names]
        files.insert(1, str(TINY))
        if names[0] == "inference.json":
            files.pop(1)
        settings = {"bundle_root": str(bundle), "output_dir": str(tmp_path / "runs"), **overrides}
        monai.bundle.run(run_id=run_id, config_file=files, logging_file=False, **settings)

    return run_workflow
