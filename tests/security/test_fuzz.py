"""Whatever a file holds, its reader gives a result or one plain line: no traceback, no hang, no crash.

Short here; ``make test-fuzz`` runs MGCC_FUZZ examples of each test, another set every time.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from mgcc_monai.data.contents import LISTS
from mgcc_monai.data.dataset import load_datalist, write_dataset
from mgcc_monai.data.formats import limits as bounds
from mgcc_monai.data.formats.images import IMAGE_SUFFIXES, read_image, read_mask
from mgcc_monai.errors import MGCCError
from mgcc_monai.generation import manifest

hypothesis = pytest.importorskip("hypothesis")
given, st = hypothesis.given, hypothesis.strategies

EXAMPLES = int(os.environ.get("MGCC_FUZZ", "60"))
LONGEST = 30
"""Seconds of an example; a reader that takes longer hangs."""

fuzz = hypothesis.settings(
    max_examples=EXAMPLES,
    derandomize="MGCC_FUZZ" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


class Hang(BaseException):
    """No ``Exception``, so that no reader can take it for a fault of its file."""


@contextmanager
def watched() -> Iterator[None]:
    """Raise where the body takes too long; on systems without alarms, do nothing."""

    def stop(*_: Any) -> None:
        raise Hang(f"more than {LONGEST} s")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module", autouse=True)
def small_bounds() -> Iterator[None]:
    """A header may state what it likes; the machine that tests need not have the memory for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounds, "MAX_PIXELS", 1_000_000)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def _seeds() -> dict[str, bytes]:
    """A small valid file of each kind and mode."""
    seeds = {}
    pixels = np.arange(12 * 9, dtype=np.uint8).reshape(12, 9)
    for suffix in (".png", ".jpg", ".bmp", ".tif"):
        for mode in ("L", "RGB", "P", "1", "RGBA", "I;16"):
            picture = Image.fromarray(pixels.astype(np.uint16) * 200) if mode == "I;16" else Image.fromarray(pixels)
            file = io.BytesIO()
            try:
                (picture if mode == "I;16" else picture.convert(mode)).save(file, Image.registered_extensions()[suffix])
            except (OSError, KeyError):
                continue
            seeds[f"{suffix} {mode}"] = file.getvalue()
    image = nibabel.Nifti1Image(pixels.T.copy(), np.eye(4))
    seeds[".nii"] = image.to_bytes()
    with io.BytesIO() as file:
        file.write(gzip.compress(image.to_bytes(), mtime=0))
        seeds[".nii.gz"] = file.getvalue()
    return seeds


SEEDS = _seeds()


@st.composite
def image_files(draw: Any) -> tuple[str, bytes]:
    """A valid file with some bytes changed, cut, doubled or put in; or any bytes; under a fitting suffix or another."""
    kind = draw(st.sampled_from(sorted(SEEDS)))
    suffix = kind.split()[0] if draw(st.integers(0, 9)) else draw(st.sampled_from(IMAGE_SUFFIXES))
    content = bytearray(SEEDS[kind])
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        change = draw(st.sampled_from(["byte", "byte", "word", "cut", "insert", "double", "any"]))
        if change == "byte" and content:
            content[place] = draw(st.integers(0, 255))
        elif change == "word":
            content[place : place + 4] = draw(
                st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\x00\x00\x80\x3f"])
            )
        elif change == "cut":
            del content[place:]
        elif change == "insert":
            content[place:place] = draw(st.binary(max_size=40))
        elif change == "double":
            content[place:place] = content[place : place + 64]
        elif change == "any":
            content = bytearray(draw(st.binary(max_size=300)))
    return suffix, bytes(content)


@fuzz
@given(image_files())
def test_reader_gives_an_image_or_one_line(folder, case):
    suffix, content = case
    path = folder / f"x{suffix}"
    path.write_bytes(content)
    for read in (read_image, read_mask):
        with watched():
            try:
                pixels = read(path)
            except MGCCError as error:
                assert error.message.startswith(f"{path}: ") and "\n" not in error.message
            else:
                assert pixels.dtype == np.uint8 and pixels.ndim == 2 and pixels.size > 0


def test_the_seeds_are_valid(folder):
    for kind, content in SEEDS.items():
        path = folder / f"seed{kind.split()[0]}"
        path.write_bytes(content)
        assert read_image(path).shape == (12, 9), kind


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Path:
    """A valid dataset of six images."""
    root = folder / "dataset"
    root.mkdir()
    items: dict[str, list[dict[str, str]]] = {}
    for number, name in enumerate(("training", "training", "unlabeled", "validation", "test", "normal")):
        for kind in ("image", "label"):
            Image.fromarray(np.full((6, 6), number * (kind == "image"), np.uint8)).save(root / f"{kind}{number}.png")
        item = {"image": f"image{number}.png", "class": "benign", "group": str(number)}
        items.setdefault(name, []).append(item | ({} if name == "unlabeled" else {"label": f"label{number}.png"}))
    write_dataset(root, items)
    return root


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ODD = st.sampled_from(
    ["../x", "/etc/passwd", "a\x00b", "\ud800", "x" * 5000, "C:\\x", ".", "", "image0.png", 10**400, "dataset.json"]
)
VALUES = st.recursive(
    PLAIN | ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


def _places(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    for key in content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ():
        yield from _places(content[key], (*place, key))


@st.composite
def changed(draw: Any) -> list[tuple[Any, bool, Any]]:
    """Some changes: the place as a number, whether to remove what is there, and what to put instead."""
    change = st.tuples(st.integers(0, 10_000), st.booleans(), VALUES)
    return draw(st.lists(change, min_size=1, max_size=4))


def _change(content: Any, changes: list[tuple[Any, bool, Any]]) -> None:
    """Make the changes in nested lists and dictionaries, in place."""
    for number, remove, value in changes:
        places = [place for place in _places(content) if place]
        if not places:
            break
        *path, last = places[number % len(places)]
        inner = content
        for key in path:
            inner = inner[key]
        if remove:
            del inner[last]
        else:
            inner[last] = value


def _load(file: Path) -> None:
    with watched():
        try:
            content = load_datalist(file)
        except MGCCError as error:
            assert str(file.parent) in error.message and len(error.message.splitlines()) <= 60
        else:
            assert all(os.path.isabs(item["image"]) for name in LISTS for item in content[name])


@fuzz
@given(changed())
def test_changed_dataset_gives_a_dataset_or_plain_lines(dataset, changes):
    content = json.loads((dataset / "dataset.json").read_text())
    _change(content, changes)
    (dataset / "changed.json").write_text(json.dumps(content))
    _load(dataset / "changed.json")


@fuzz
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_as_a_dataset_give_plain_lines(dataset, content):
    (dataset / "any.json").write_bytes(content)
    _load(dataset / "any.json")


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a": ' * 50_000, "1" * 10_000, "NaN", '"\\ud800"', "{}", "\ufeff{}"])
def test_numbers_and_nesting_without_end(dataset, text):
    (dataset / "deep.json").write_text(text)
    with pytest.raises(MGCCError):
        load_datalist(dataset / "deep.json")


ROW = {"image": "images/000000.png", "index": 0, "seed": 0, "class": "benign", "model": "m", "sha256": "0" * 64}
ROW |= {"scores": {"mean": 0.5}, "decision": "keep", "reason": ""}


@fuzz
@given(changed(), st.binary(max_size=60))
def test_changed_manifest_gives_lines_or_plain_faults(folder, changes, more):
    rows: Any = [json.loads(json.dumps(ROW)) | {"index": index, "image": f"{index}.png"} for index in range(3)]
    _change(rows, changes)
    file = folder / manifest.FILE_NAME
    file.write_bytes("\n".join(map(json.dumps, rows)).encode() + (b"\n" + more if more else b""))
    with watched():
        try:
            read = manifest.read(folder, check_images=False)
        except MGCCError as error:
            assert str(folder) in error.message
        else:
            assert all(set(row) >= set(ROW) and row["decision"] in manifest.DECISIONS for row in read)
