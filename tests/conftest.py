"""What several tests need: the shared folder of real data, where there is one, and the published reference figures."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of data that are not in the repository: ``MGCC_SHARED``, or ``shared`` beside the repository."""
    folder = Path(os.environ.get("MGCC_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"there is no shared data at {folder}; set MGCC_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def dicom_files() -> ModuleType:
    """The module that writes DICOM files: ``write_dicom``, ``region``, ``jpeg``, ``PATIENT``."""
    spec = importlib.util.spec_from_file_location("dicom_files", Path(__file__).with_name("dicom_files.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def configs() -> Path:
    """The configs of the bundle as it is shipped."""
    return REPOSITORY / "bundle" / "configs"


@pytest.fixture(scope="session")
def figures() -> dict[str, Any]:
    """Figures of the authors' network and training, as their released code gives them."""
    return json.loads((Path(__file__).parent / "reference" / "mgcc_reference.json").read_text())


@pytest.fixture(scope="session")
def arrays() -> dict[str, torch.Tensor]:
    """Random inputs, and what the authors' released code makes of them."""
    with np.load(Path(__file__).parent / "reference" / "mgcc_reference.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}
