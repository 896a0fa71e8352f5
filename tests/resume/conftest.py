"""What it means that two trainings ended alike."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mgcc_monai.security.weights import load_checkpoint


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
