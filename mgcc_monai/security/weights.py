"""The one place that reads and writes files of tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mgcc_monai.errors import MGCCError
from mgcc_monai.files import write_atomically

__all__ = ["check_fits", "load_checkpoint", "load_state_dict", "save_atomically"]


def save_atomically(content: Any, path: Path) -> None:
    """Save tensors and plain values with ``torch.save``; see ``files.write_atomically``."""
    write_atomically(Path(path), lambda file: torch.save(content, file))


def load_checkpoint(path: str | Path, map_location: Any = "cpu") -> Any:
    """Read a file of tensors and plain values; nothing in it can run (``weights_only``).

    Args:
        path: the file.
        map_location: device for the tensors.

    Raises:
        MGCCError: when the file is missing or cannot be read so.
    """
    if not Path(path).is_file():
        raise MGCCError(f"{path}: there is no such file of weights; give the path of a .pt file.")
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise MGCCError(
            f"{path}: cannot be read as weights ({reason}); it is truncated, no PyTorch file, or holds more than "
            "tensors. Copy it again or save a state dict."
        ) from None


def load_state_dict(path: str | Path, map_location: Any = "cpu") -> dict[str, torch.Tensor]:
    """Read a state dict: a flat one, or one under the key "network", "model" or "state_dict".

    Args:
        path: the file.
        map_location: device for the tensors.

    Raises:
        MGCCError: when the file is missing, unreadable or holds no state dict.
    """
    content = load_checkpoint(path, map_location)
    for key in ("network", "model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise MGCCError(f"{path}: holds no state dict (names with tensors); save network.state_dict() in it.")
    return content


def check_fits(network: torch.nn.Module, path: str | Path) -> None:
    """Check that a file of weights belongs to a network, before any work.

    Args:
        network: the network to fill.
        path: the file of weights.

    Raises:
        MGCCError: when names or shapes differ; says how many and the first of them.
    """
    expected, found = network.state_dict(), load_state_dict(path)
    faults = [f"'{name}' is missing" for name in expected if name not in found]
    faults += [f"'{name}' is unknown" for name in found if name not in expected]
    faults += [
        f"'{name}' is {tuple(found[name].shape)} in the file and {tuple(expected[name].shape)} in the network"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    if faults:
        raise MGCCError(
            f"{path}: the weights are of another network: {len(faults)} of {len(expected)} entries differ, first: "
            f"{faults[0]}. Use the preset or the inference.json that the weights were trained with."
        )
