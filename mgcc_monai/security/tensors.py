"""Looking into files of weights without loading them: pickles by their opcodes, safetensors by their header."""

from __future__ import annotations

import io
import json
import pickletools
import zipfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["pickle_faults", "safetensors_faults"]

_MAX_PICKLE = 50_000_000
_MAX_HEADER = 100_000_000
_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
_DTYPES = "float32 float64 float16 bfloat16 int8 int16 int32 int64 uint8 bool complex64 complex128".split()
_STORAGES = "Float Double Half BFloat16 Char Short Int Long Byte Bool ComplexFloat ComplexDouble".split()
_GLOBALS = {
    "_codecs encode",
    "collections OrderedDict",
    "torch Size",
    "torch Tensor",
    "torch device",
    "torch.nn.parameter Parameter",
    "torch.storage TypedStorage",
    "torch.storage UntypedStorage",
    *(f"torch {name}" for name in _DTYPES),
    *(f"torch {name}Storage" for name in _STORAGES),
    *(f"torch._utils _rebuild_{name}" for name in ("tensor", "tensor_v2", "parameter")),
}
# Opcodes that name something to call in another way than GLOBAL does; torch.save writes none of them.
_OTHER_NAMES = {"INST", "OBJ", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX"}


def pickle_faults(path: Path) -> list[tuple[str, str]]:
    """Find what a file of PyTorch's, or any pickle, would call when it is loaded; nothing is loaded.

    As ``torch.load`` does, a file that begins as a zip is read as one, whatever its name, and any other as pickles.

    Args:
        path: the file.

    Returns:
        Pairs of the part of the file and what is wrong; none when there are only tensors and plain values.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04":
                return list(dict.fromkeys(_archive_faults(path)))
            file.seek(0)
            return list(dict.fromkeys(_stream_faults(file, "")))
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        return [("", f"cannot be read as weights ({' '.join(str(error).split())[:120]})")]


def _archive_faults(path: Path) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(names) != len(set(names)):
            yield "", "has two members of one name; another reader may see the other one"
        if not any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
            yield "", "is a zip, but none that torch.save writes"
        for name in names:
            if "/code/" in f"/{name}" or name.endswith("constants.pkl"):
                yield name, "is TorchScript, a program that runs when it is loaded"
            elif name.endswith((".pkl", ".pickle")):
                with archive.open(name) as member:
                    content = member.read(_MAX_PICKLE + 1)
                if len(content) > _MAX_PICKLE:
                    yield name, f"has more than the {_MAX_PICKLE} bytes that are read"
                else:
                    yield from _stream_faults(io.BytesIO(content), name)


def _stream_faults(file: BinaryIO, place: str) -> Iterator[tuple[str, str]]:
    """Judge the first pickle; a file of PyTorch's older kind has five, and then raw numbers."""
    count, older = 0, False
    while count == 0 or (older and count < 5):
        first: Any = None
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "GLOBAL" and argument not in _GLOBALS:
                yield place, f"calls {argument.replace(' ', '.')}, which is no part of a tensor"
            elif opcode.name in _OTHER_NAMES:
                yield place, f"has the opcode {opcode.name}, by which a pickle can name anything"
            first = argument if first is None and opcode.name.startswith("LONG") else first
        if count == 0:
            older = first == 0x1950A86A20F9469CFC6C
        count += 1


def safetensors_faults(path: Path) -> list[tuple[str, str]]:
    """Find what is wrong with the header of a safetensors file: its tensors must fill the file, without a gap.

    Args:
        path: the file.

    Returns:
        Pairs of the tensor (may be empty) and what is wrong.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER):
            return [("", f"is no safetensors file: its header would have {length} of the file's {size} bytes")]
        text = file.read(length)
    try:
        header = json.loads(text)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        spans = sorted((*entry["data_offsets"], name) for name, entry in entries.items())
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        return [("", f"has no header that can be read ({type(error).__name__})")]
    end, faults = 0, []
    for start, stop, name in spans:
        if start != end or stop < start:
            faults.append((name, f"lies at {start} to {stop}, where {end} should be its beginning"))
        try:
            expected = _BYTES[entries[name]["dtype"]] * prod(entries[name]["shape"])
        except (KeyError, TypeError) as error:
            faults.append((name, f"has a dtype or a shape that is not known ({type(error).__name__}: {error})"))
        else:
            if expected != stop - start:
                faults.append((name, f"has {stop - start} bytes, where its dtype and shape make {expected}"))
        end = stop
    if 8 + length + end != size:
        faults.append(("", f"has {size} bytes, where its header makes {8 + length + end}"))
    return faults
