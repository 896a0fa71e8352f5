"""Live payloads: each writes a marker file when it is read naively, and none does when we read it.

The naive reading happens in a process of its own (``naively``); without it, a payload that is broken would pass.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.transforms
import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from mgcc_monai.data.formats import limits as bounds
from mgcc_monai.data.formats.images import read_image
from mgcc_monai.errors import MGCCError
from mgcc_monai.runs.settings import build, read_settings
from mgcc_monai.weights import load_checkpoint


class Trap:
    """A pickle that runs a command when it is read."""

    def __init__(self, marker: Path) -> None:
        self.command = f"touch {marker}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def _config(content: Any) -> Callable[[Path, Path], None]:
    def write(path: Path, marker: Path) -> None:
        text = json.dumps(content)
        path.write_text(text.replace("MARKER", str(marker)))

    return write


def _resolve(path: Path) -> None:
    """What running a bundle does with its config."""
    parser = ConfigParser()
    parser.read_config(str(path))
    parser.parse()
    for name in parser.config:
        parser.get_parsed_content(name)


def _pickle_before_zip(path: Path, marker: Path) -> None:
    """A pickle with a zip behind it: readers that look at the end see the zip, PyTorch looks at the beginning."""
    content = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, content)
    path.write_bytes(pickle.dumps(Trap(marker), protocol=2) + content.getvalue())


PAYLOADS: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "pickle": ("a.pkl", lambda path, marker: path.write_bytes(pickle.dumps(Trap(marker))) and None),
    "pickle of an old kind": (
        "a.pt",
        lambda path, marker: path.write_bytes(pickle.dumps(Trap(marker), protocol=0)) and None,
    ),
    "weights": ("a.pt", lambda path, marker: torch.save({"w": torch.zeros(2), "x": Trap(marker)}, path)),
    "weights of the older kind": (
        "a.pth",
        lambda path, marker: torch.save({"x": Trap(marker)}, path, _use_new_zipfile_serialization=False),
    ),
    "pickle with weights behind it": ("a.pt", _pickle_before_zip),
    "pickle without a suffix": ("weights", lambda path, marker: path.write_bytes(pickle.dumps(Trap(marker))) and None),
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_payload_is_refused_and_does_not_run(name, tmp_path, naively):
    file, write = PAYLOADS[name]
    marker, path = tmp_path / "marker", tmp_path / file
    write(path, marker)
    with pytest.raises(MGCCError, match="cannot be read as weights"):
        load_checkpoint(path)
    assert not marker.exists()
    naively(lambda: torch.load(path, weights_only=False))
    assert marker.exists(), "the payload must work, or the lines above show nothing"


@pytest.mark.parametrize(
    "definition",
    [
        {"_target_": "os.system", "command": "touch MARKER"},
        {"_target_": "mgcc_monai.networks.mgcc.torch.os.system", "command": "touch MARKER"},
        {"_target_": "mgcc_monai.networks.MGCC", "in_channels": "$__import__('os').system('touch MARKER')"},
        {"_target_": "mgcc_monai.networks.MGCC", "channels": [{"_target_": "os.system", "command": "touch MARKER"}]},
        {"_target_": "$__import__('os').system('touch MARKER')"},
        {"_target_": "mgcc_monai.networks.MGCC", "_disabled_": "$__import__('os').system('touch MARKER')"},
    ],
)
def test_settings_beside_weights_build_only_networks_of_ours(definition, tmp_path, naively):
    marker = tmp_path / "marker"
    definition = json.loads(json.dumps(definition).replace("MARKER", str(marker)))
    with pytest.raises(MGCCError, match="of mgcc_monai|no plain value"):
        build(definition)
    assert not marker.exists()
    naively(lambda: ConfigParser({"a": definition}).get_parsed_content("a"))
    assert marker.exists(), "the payload must work, or the lines above show nothing"


def test_settings_of_a_run_are_read_and_not_evaluated(tmp_path, naively):
    marker, path = tmp_path / "marker", tmp_path / "inference.json"
    _config({"threshold": "$__import__('os').system('touch MARKER')"})(path, marker)
    assert read_settings(str(tmp_path), "")["threshold"].startswith("$")
    assert not marker.exists()
    naively(_resolve, path)
    assert marker.exists()


def test_pickled_array_does_not_run(tmp_path, naively):
    """An .npy of objects; MONAI's reader of arrays and our reader of images both refuse it."""
    marker, path = tmp_path / "marker", tmp_path / "a.npy"
    np.save(path, np.array([Trap(marker)], dtype=object), allow_pickle=True)
    with pytest.raises(MGCCError):
        read_image(path)
    with pytest.raises(Exception, match="pickle"):
        monai.transforms.LoadImage(reader="NumpyReader")(path)
    assert not marker.exists()
    naively(lambda: np.load(path, allow_pickle=True))
    assert marker.exists()


def _png_bomb(path: Path, side: int) -> None:
    """A PNG that states ``side`` x ``side`` pixels, of 1 bit, all black; 5 kB for 40,000 x 40,000."""
    packer = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _within(function: Callable[[], Any], extra: int, marker: Path) -> None:
    """Call a function with ``extra`` more bytes of memory than there are now; leave a marker when they do not do."""
    resource = pytest.importorskip("resource")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, used + extra))
    try:
        function()
    except (MemoryError, OSError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            marker.touch()
    except MGCCError:
        marker.with_name("refused").touch()


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="limits memory as Linux does")
def test_decompression_bomb_is_refused_before_it_takes_memory(tmp_path, naively, monkeypatch):
    """40,000 x 40,000 pixels, 1,600 million bytes once decoded, in some 200 kB; 100 million must do to refuse it."""
    path, full = tmp_path / "bomb.png", tmp_path / "full"
    _png_bomb(path, 40_000)
    assert path.stat().st_size < 300_000
    naively(_within, lambda: read_image(path), 100_000_000, full)
    assert (tmp_path / "refused").exists() and not full.exists()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    naively(_within, lambda: Image.open(path).convert("L").load(), 100_000_000, full)
    assert full.exists(), "decoding must need more, or the lines above show nothing"


def test_gzip_bomb_and_large_file_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8), np.uint8), np.eye(4)), path)
    assert read_image(path).shape == (8, 8)
    with gzip.open(path, "ab") as file:
        file.write(bytes(3_000_000))
    monkeypatch.setattr(bounds, "MAX_FILE_BYTES", 2_000_000)
    assert path.stat().st_size < 10_000
    with pytest.raises(MGCCError, match="unpacks to more than the 2000000 bytes"):
        read_image(path)
    monkeypatch.setattr(bounds, "MAX_FILE_BYTES", 1000)
    with pytest.raises(MGCCError, match="more than the 1000 allowed"):
        read_image(path)


def test_nifti_header_that_states_too_much_is_refused(tmp_path):
    """32,000 x 32,000 pixels stated, none there; the bound comes before the reading."""
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8), np.uint8), np.eye(4)), path)
    content = bytearray(path.read_bytes())
    content[42:46] = (32000).to_bytes(2, "little") * 2
    path.write_bytes(content)
    with pytest.raises(MGCCError, match="32000 x 32000 pixels, more than"):
        read_image(path)
