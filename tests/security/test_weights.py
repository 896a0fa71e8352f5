"""Files of weights: written whole or not at all, read without running what is in them, refused in plain words."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from mgcc_monai import weights
from mgcc_monai.errors import MGCCError
from mgcc_monai.files import sha256, write_atomically, write_file
from mgcc_monai.weights import (
    CHECKSUMS,
    check_fits,
    load_checkpoint,
    load_state_dict,
    publish,
    read_listing,
    save_atomically,
)


class Trap:
    """A pickle that makes a file when it is read without care."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def network(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("load", [load_checkpoint, load_state_dict])
def test_code_in_a_file_does_not_run(load, legacy, tmp_path):
    marker, file = tmp_path / "ran", tmp_path / "model.pt"
    torch.save({"weight": Trap(marker)}, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(MGCCError, match=r"model\.pt: cannot be read as weights .*more than tensors"):
        load(file)
    assert not marker.exists()
    torch.load(file, weights_only=False)
    assert marker.exists(), "the trap must work, or the line above shows nothing"


def test_code_in_a_plain_pickle_does_not_run(tmp_path):
    marker, file = tmp_path / "ran", tmp_path / "model.pt"
    file.write_bytes(pickle.dumps(Trap(marker)))
    with pytest.raises(MGCCError, match="cannot be read as weights"):
        check_fits(network(), file)
    assert not marker.exists()


@pytest.mark.parametrize("keep", [0, 1, 100, -1, -100])
def test_truncated_file_is_told(keep, tmp_path):
    torch.save(network().state_dict(), tmp_path / "model.pt")
    content = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(content[:keep])
    with pytest.raises(MGCCError) as caught:
        load_state_dict(tmp_path / "model.pt")
    assert str(tmp_path / "model.pt") in str(caught.value) and "truncated" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder_are_told(tmp_path):
    for path in (tmp_path / "model.pt", tmp_path):
        with pytest.raises(MGCCError, match="no such file"):
            load_checkpoint(path)


@pytest.mark.parametrize("key", [None, "network", "model", "state_dict"])
def test_state_dict_flat_or_under_a_usual_key(key, tmp_path):
    state = network().state_dict()
    torch.save(state if key is None else {key: state, "epoch": 3}, tmp_path / "model.pt")
    loaded = load_state_dict(tmp_path / "model.pt")
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(1)], torch.zeros(3), {"network": {"a": 1}}])
def test_what_is_no_state_dict_is_told(content, tmp_path):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(MGCCError, match="holds no state dict"):
        load_state_dict(tmp_path / "model.pt")


def test_fitting_weights_pass(tmp_path):
    save_atomically({"network": network().state_dict()}, tmp_path / "model.pt")
    check_fits(network(), tmp_path / "model.pt")


def test_weights_of_another_network_are_counted(tmp_path):
    """Of 7 entries, those of another width differ but for the number of batches; a missing and an unknown one count."""
    file = tmp_path / "model.pt"
    save_atomically(network(width=5).state_dict(), file)
    with pytest.raises(MGCCError) as caught:
        check_fits(network(width=3), file)
    assert "6 of 7 entries differ" in str(caught.value)
    assert "'0.weight' is (5, 1, 3, 3) in the file and (3, 1, 3, 3) in the network" in str(caught.value)

    state = network().state_dict()
    state["2.weight"] = state.pop("1.bias")
    save_atomically(state, file)
    with pytest.raises(MGCCError, match=r"2 of 7 entries differ, first: '1\.bias' is missing"):
        check_fits(network(), file)

    save_atomically({**network().state_dict(), "extra": torch.zeros(1)}, file)
    with pytest.raises(MGCCError, match="1 of 7 entries differ, first: 'extra' is unknown"):
        check_fits(network(), file)


def test_error_ends_a_process_with_its_message():
    """As SystemExit, it passes the ``except Exception`` of MONAI and ignite."""
    assert issubclass(MGCCError, SystemExit) and not issubclass(MGCCError, Exception)
    assert str(MGCCError("what to do")) == MGCCError("what to do").code == "what to do"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MGCCError("no")])
def test_interrupted_write_leaves_the_old_file_alone(error, tmp_path):
    file = tmp_path / "deep" / "model.pt"
    write_atomically(file, lambda handle: handle.write(b"old"))

    def write(handle: Any) -> None:
        handle.write(b"new, but only ha")
        handle.flush()
        assert file.read_bytes() == b"old", "while it is being written too"
        raise error

    told = MGCCError if isinstance(error, OSError) else type(error)
    with pytest.raises(told):
        write_atomically(file, write)
    assert file.read_bytes() == b"old" and os.listdir(file.parent) == ["model.pt"]
    with pytest.raises(told):
        write_atomically(file.with_name("first.pt"), lambda handle: (_ for _ in ()).throw(error))
    assert os.listdir(file.parent) == ["model.pt"]


@pytest.mark.skipif(os.name != "posix", reason="permission bits are those of POSIX")
def test_permissions_are_the_usual_ones_and_stay(tmp_path):
    """The temporary file has 0600; the finished one must be readable as any other, or as the one before it."""
    file, usual = tmp_path / "model.pt", tmp_path / "usual"
    usual.touch()
    write_atomically(file, lambda handle: handle.write(b"1"))
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)
    file.chmod(0o640)
    write_atomically(file, lambda handle: handle.write(b"2"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_sha256(tmp_path):
    file = tmp_path / "abc"
    file.write_bytes(b"abc")
    assert sha256(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    large = os.urandom((1 << 20) + 17)  # more than one block
    file.write_bytes(large)
    assert sha256(file) == hashlib.sha256(large).hexdigest()


def test_published_weights_come_back_and_their_sha256_is_verified_at_each_load(tmp_path):
    state, file = network().state_dict(), tmp_path / "model.safetensors"
    publish(state, file)
    publish({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert read_listing(tmp_path / CHECKSUMS)["model.safetensors"] == hashlib.sha256(file.read_bytes()).hexdigest()
    loaded = load_state_dict(file)
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[name], state[name]) for name in state)
    check_fits(network(), file)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert safetensors.torch.load(bytes(content)).keys() == state.keys(), "one flipped bit is not seen without the sum"
    for load in (load_checkpoint, load_state_dict, lambda path: check_fits(network(), path)):
        with pytest.raises(MGCCError, match=r"model\.safetensors: its sha256 is .*it is damaged"):
            load(file)


def test_listed_pt_is_verified_and_unlisted_safetensors_are_refused(tmp_path):
    save_atomically(network().state_dict(), tmp_path / "model.pt")
    write_file(tmp_path / CHECKSUMS, json.dumps({"model.pt": sha256(tmp_path / "model.pt")}))
    load_state_dict(tmp_path / "model.pt")
    save_atomically(network(5).state_dict(), tmp_path / "model.pt")
    with pytest.raises(MGCCError, match="its sha256 is"):
        load_state_dict(tmp_path / "model.pt")
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "b.safetensors")
    with pytest.raises(MGCCError, match="has no sha256 in a weights.json"):
        load_checkpoint(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a": 1}', json.dumps({"../a": "0" * 64}), '{"a": "xyz"}', "[" * 99999]
)
def test_damaged_listing_is_told_and_nothing_is_loaded(text, tmp_path):
    save_atomically(network().state_dict(), tmp_path / "model.pt")
    (tmp_path / CHECKSUMS).write_text(text)
    with pytest.raises(MGCCError, match="weights.json: is no listing"):
        load_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize("keep", [0, 7, 20, -1])
def test_damaged_safetensors_of_the_right_sum_are_told(keep, tmp_path):
    publish(network().state_dict(), tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()[:keep]
    (tmp_path / "a.safetensors").write_bytes(content)
    write_file(tmp_path / CHECKSUMS, json.dumps({"a.safetensors": hashlib.sha256(content).hexdigest()}))
    with pytest.raises(MGCCError, match="cannot be read as safetensors"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_weights_are_read_by_one_module_and_yaml_by_safe_load_alone():
    """The promise by its text: no other reader of pickles, weights or YAML stands in the package.

    TorchScript is a program and is read as such where it is exported, run as an engine, or checked by the doctor.
    """
    torchscript = {"export.py", "zoo_checks.py"}
    package = Path(weights.__file__).parent
    for path in package.rglob("*.py"):
        text = path.read_text()
        assert path == Path(weights.__file__) or not re.search(r"torch\.load\(|pickle\.loads?\(", text), path
        assert path.name in torchscript or not re.search(r"jit\.load\(", text), path
        assert not re.search(r"yaml\.(load|unsafe_load|full_load)\w*\(|(?<![\w.])(eval|exec)\(|extractall\(", text), (
            path
        )
