"""The one place that reads and writes files of tensors."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError

from mgcc_monai.errors import MGCCError, one_line, plain_os_errors
from mgcc_monai.files import sha256, write_atomically, write_json

__all__ = [
    "CHECKSUMS",
    "check_fits",
    "check_sha256",
    "write_checksums",
    "load_checkpoint",
    "load_state_dict",
    "publish",
    "read_listing",
    "save_atomically",
    "verify_folder",
    "weights_in",
]

CHECKSUMS = "weights.json"
"""Beside published weights: the sha256 of each file, by its name."""


def save_atomically(content: Any, path: Path) -> None:
    """Save tensors and plain values with ``torch.save``; see ``files.write_atomically``."""

    def write(file: BinaryIO) -> None:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # PyTorch closes its archive behind a full disk, and tells of that alone
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None

    write_atomically(Path(path), write)


def publish(state: dict[str, torch.Tensor], path: str | Path) -> None:
    """Write a state dict as safetensors and enter its sha256 in the listing beside it.

    Args:
        state: names with tensors.
        path: the file, which ends in .safetensors.
    """
    path = Path(path)
    content = safetensors.torch.save({name: value.detach().cpu().contiguous() for name, value in state.items()})
    listing = path.with_name(CHECKSUMS)
    entries = read_listing(listing) if listing.is_file() else {}
    write_atomically(path, lambda file: file.write(content))
    write_json(listing, dict(sorted({**entries, path.name: hashlib.sha256(content).hexdigest()}.items())))


def write_checksums(folder: str | Path) -> None:
    """Enter the sha256 of every safetensors file in a folder and those in it, each in the listing beside it."""
    for path in sorted(Path(folder).rglob("*.safetensors")):
        listing = path.with_name(CHECKSUMS)
        entries = read_listing(listing) if listing.is_file() else {}
        write_json(listing, dict(sorted({**entries, path.name: sha256(path)}.items())))


def verify_folder(folder: str | Path) -> None:
    """Check every safetensors file in a folder and those in it against the listing beside it.

    Raises:
        MGCCError: when one is not listed, or is not the file that was listed.
    """
    for path in sorted(Path(folder).rglob("*.safetensors")):
        _verify(path, sha256(path), required=True)


def _verify(path: Path, found: str, required: bool = False) -> None:
    listing = path.with_name(CHECKSUMS)
    entries = read_listing(listing) if listing.is_file() else {}
    if path.name not in entries:
        if required:
            raise MGCCError(f"{path}: has no sha256 in a {CHECKSUMS} beside it; copy or download the two together.")
    elif found != entries[path.name]:
        raise MGCCError(
            f"{path}: its sha256 is {found[:12]}..., and {CHECKSUMS} says {entries[path.name][:12]}...; it is damaged "
            "or not the file that was listed. Copy or download it again."
        )


def read_listing(path: str | Path) -> dict[str, str]:
    """Read a listing: names of files beside it, each with its sha256 in 64 hex digits.

    Raises:
        MGCCError: when it is something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        good = all(
            Path(name).name == name and len(value) == 64 and set(value) <= set("0123456789abcdef")
            for name, value in content.items()
        )
    except (OSError, ValueError, RecursionError, AttributeError, TypeError):
        good = False
    if not good:
        raise MGCCError(f"{path}: is no listing of file names and their sha256; copy it again.")
    return content


def _verified(path: Path) -> io.BytesIO | None:
    """Return the content of a listed file, once its sha256 is right; nothing for one that no listing names.

    What is hashed is what is then read: the file is opened once.
    """
    listing = path.with_name(CHECKSUMS)
    if not listing.is_file() or path.name not in read_listing(listing):
        return None
    content = path.read_bytes()
    _verify(path, hashlib.sha256(content).hexdigest())
    return io.BytesIO(content)


@plain_os_errors()
def load_checkpoint(path: str | Path, map_location: Any = "cpu") -> Any:
    """Read a file of tensors and plain values; nothing in it can run.

    A .safetensors file must stand in the listing beside it (``weights.json``) with its sha256. Any other is read by
    ``torch.load`` with ``weights_only``, and its sha256 is checked where the listing names it.

    Args:
        path: the file.
        map_location: device for the tensors.

    Raises:
        MGCCError: when the file is missing, is not the one that was published, or cannot be read so.
    """
    path = Path(path)
    if not path.is_file():
        raise MGCCError(f"{path}: there is no such file of weights; give the path of a .pt file.")
    content = _verified(path)
    if path.suffix == ".safetensors" and content is None:
        raise MGCCError(f"{path}: has no sha256 in a {CHECKSUMS} beside it; download the two together.")
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load(content.getvalue())
            return {name: value.to(map_location or "cpu") for name, value in state.items()}
        return torch.load(content or path, map_location=map_location, weights_only=True)
    except SafetensorError as error:
        raise MGCCError(f"{path}: cannot be read as safetensors ({one_line(error)}); download it again.") from None
    except Exception as error:
        reason = one_line(error)
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


def weights_in(folder: str | Path) -> Path:
    """Return the weights of a folder: its ``model.safetensors`` where there is no ``model.pt``."""
    trained, published = (Path(folder) / f"model.{ending}" for ending in ("pt", "safetensors"))
    return published if published.is_file() and not trained.is_file() else trained


def check_sha256(path: str | Path, expected: str, settings: str | Path = "the inference.json in use") -> None:
    """Check that weights are those that settings were written for.

    Args:
        path: the file of weights.
        expected: its sha256 as the settings have it; empty where they have none.
        settings: their file, for the message.

    Raises:
        MGCCError: when they are others.
    """
    found, expected = sha256(path), str(expected).lower()
    if expected and found != expected:
        raise MGCCError(
            f"{path}: its sha256 is {found[:12]}..., and {settings} was written for {expected[:12]}...: threshold and "
            "statistics in it are those of other weights. Use the inference.json of these weights, and move one that "
            "is not theirs away; if their training was killed while it saved, go on with it by --resume true."
        )


def check_fits(network: torch.nn.Module, path: str | Path) -> None:
    """Check that a file of weights belongs to a network, before any work.

    Args:
        network: the network to fill.
        path: the file of weights.

    Raises:
        MGCCError: when names or shapes differ; says how many and the first of them.
    """
    expected, found = network.state_dict(), load_state_dict(path)
    found = getattr(network, "complete_state", dict)(found)
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
