"""What the Model Zoo's CI checks in a bundle, one function per check: where, what is wrong, and how to mend it."""

from __future__ import annotations

import ast
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ckpt_export, verify_net_in_out
from monai.bundle.properties import InferProperties, TrainProperties

from mgcc_monai.errors import one_line
from mgcc_monai.files import is_inside, sha256
from mgcc_monai.interop.package import LARGE
from mgcc_monai.weights import check_fits

__all__ = ["CHECKS", "NEEDED", "Found"]

NEEDED = tuple(f"configs/{name}.json" for name in ("metadata", "inference", "train"))
"""Files that several checks read, and that two of them tell when they are missing."""

_WIDTH = 120
_METADATA = (  # what the zoo's schema of 2024-07-25 requires, and of what type
    *(("schema", str), ("version", str), ("monai_version", str), ("pytorch_version", str), ("numpy_version", str)),
    *(("required_packages_version", dict), ("task", str), ("description", str), ("authors", str), ("copyright", str)),
    ("network_data_format", dict),
)
_TENSOR = ("type", "format", "num_channels", "spatial_shape", "dtype", "value_range")
_INFER = ("bundle_root", "device", "network_def", "inferer", "output_dir")
_TRAIN = (
    *("bundle_root", "device", "dataset_dir", "output_dir", "val_interval"),
    *(f"train#{name}" for name in ("trainer", "trainer#max_epochs", "dataset", "dataset#data", "handlers")),
    *(f"validate#{name}" for name in ("evaluator", "handlers", "dataset", "dataset#data")),
)
_PERSONAL = re.compile(r"(?:/(?:home|Users|root|mnt)|[A-Z]:\\{1,2}Users)[/\\][\w.-]*")

Found = Iterator[tuple[str, str, str]]


def _files(root: Path) -> Found:
    for name in ("LICENSE", "configs/metadata.json", "configs/train.json"):
        if not _is(root, name):
            yield name, "missing", "add it"


def _preferred(root: Path) -> Found:
    if not _is(root, "models/model.pt"):
        yield "models/model.pt", "missing", "pack the bundle with weights: `python -m mgcc_monai package`"
    if not _is(root, "configs/inference.json"):
        yield "configs/inference.json", "missing", "add it"


def _version(root: Path) -> Found:
    metadata = _json(root / "configs" / "metadata.json")
    version, changelog = metadata.get("version"), metadata.get("changelog")
    if not isinstance(version, str) or not isinstance(changelog, Mapping) or version not in changelog:
        yield "configs/metadata.json", f"version {version!r} is not in its changelog", "add a line for it"


def _metadata(root: Path) -> Found:
    metadata, where = _json(root / "configs" / "metadata.json"), "configs/metadata.json"
    for name, kind in _METADATA:
        if not isinstance(metadata.get(name), kind):
            yield where, f"{name} is {_kind(metadata.get(name))}, not {_kind(kind())}", "correct it"
    formats = metadata.get("network_data_format")
    for side, tensor in (("inputs", "image"), ("outputs", "pred")):
        described = formats.get(side, {}).get(tensor) if isinstance(formats, Mapping) else None
        missing = [key for key in _TENSOR if not isinstance(described, Mapping) or key not in described]
        if missing:
            yield where, f"network_data_format#{side}#{tensor} lacks {', '.join(missing)}", "add them"


def _apps(root: Path) -> Found:
    apps = _json(root / "configs" / "metadata.json").get("supported_apps", {})
    if not isinstance(apps, Mapping) or not all(isinstance(version, str) for version in apps.values()):
        yield "configs/metadata.json", "supported_apps is no object of names and versions", "correct it"


def _shape(root: Path) -> Found:
    configs = root / "configs"
    files = {"meta_file": str(configs / "metadata.json"), "config_file": str(configs / "inference.json")}
    yield from _tried(
        "configs/inference.json",
        lambda: verify_net_in_out(net_id="network_def", bundle_root=str(root), device="cpu", **files),
        "let network_def and network_data_format agree",
    )


def _torchscript(root: Path) -> Found:
    configs, weights = root / "configs", root / "models" / "model.pt"
    if not weights.is_file():
        return
    network = _parser(configs / "inference.json").get_parsed_content("network_def")
    misfits = list(_tried("models/model.pt", lambda: check_fits(network, weights), "pack a run with its own settings"))
    if misfits:
        yield from misfits
        return
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.ts"

        def export() -> None:
            ckpt_export(
                net_id="network_def",
                filepath=str(target),
                ckpt_file=str(weights),
                meta_file=str(configs / "metadata.json"),
                config_file=str(configs / "inference.json"),
                bundle_root=str(root),
            )
            torch.jit.load(str(target))

        yield from _tried("models/model.pt", export, "use a network that torch.jit.script takes")
    if (root / "models" / "model.ts").is_file():
        shipped = root / "models" / "model.ts"
        yield from _tried("models/model.ts", lambda: torch.jit.load(str(shipped)), "export it again, or remove it")


def _keys(root: Path) -> Found:
    for name, keys in (("inference", _INFER), ("train", _TRAIN)):
        file = root / "configs" / f"{name}.json"
        parser = _parser(file) if file.is_file() else None
        if parser is not None and (missing := [key for key in keys if key not in parser]):
            yield f"configs/{name}.json", f"lacks {', '.join(missing)}", "name them as the zoo does"


def _properties(root: Path) -> Found:
    """What ``check_properties`` looks at, without building anything: ids, and handlers of the form it can read."""
    for name, properties in (("inference", InferProperties), ("train", TrainProperties)):
        file = root / "configs" / f"{name}.json"
        if not file.is_file():
            continue
        parser = _parser(file)
        missing = [one for one, about in properties.items() if about.get("required") and about["id"] not in parser]
        if missing:
            yield f"configs/{name}.json", f"lacks the properties {', '.join(missing)}", "add them"
        for key in ("handlers", "train#handlers", "validate#handlers"):
            handlers = parser.get(key) if key in parser else []
            if not isinstance(handlers, list) or not all(
                isinstance(one, dict) and "_target_" in one for one in handlers
            ):
                yield f"configs/{name}.json", f"{key} is no list of _target_ objects", "write each handler out"


def _pins(root: Path) -> Found:
    metadata = _json(root / "configs" / "metadata.json")
    pins = {name: metadata.get(f"{name}_version") for name in ("monai", "pytorch", "numpy")}
    for key in ("required_packages_version", "optional_packages_version"):
        pins |= metadata.get(key) or {}
    for name, version in pins.items():
        if not re.fullmatch(r"\d+(\.\d+)*([a-z]+\d+)?", str(version)):
            yield "configs/metadata.json", f"{name} is pinned to {version!r}", "give a released version, such as 1.6.1"


def _style(root: Path) -> Found:
    for path in sorted(root.rglob("*.py")):
        text, where = path.read_text(encoding="utf-8"), str(path.relative_to(root))
        if "Licensed under the Apache License" not in text[:600]:
            yield where, "has no Apache header", "pack the bundle: `python -m mgcc_monai package` adds it"
        try:
            ast.parse(text)
        except SyntaxError as error:
            yield where, f"line {error.lineno}: {error.msg}", "correct it"
    for path in (path for end in ("py", "json", "yaml", "yml", "md") for path in sorted(root.rglob(f"*.{end}"))):
        text, where = path.read_text(encoding="utf-8"), str(path.relative_to(root))
        if text and not text.endswith("\n"):
            yield where, "does not end with a newline", "add one"
        for number, line in enumerate(text.splitlines(), start=1):
            if line != line.rstrip():
                yield where, f"line {number} ends with spaces", "remove them"
            elif path.suffix == ".py" and len(line) > _WIDTH:
                yield where, f"line {number} has {len(line)} characters", f"at most {_WIDTH} are allowed"
        if path.suffix == ".json" and text != json.dumps(json.loads(text), indent=4, ensure_ascii=False) + "\n":
            yield where, "is not indented by 4", "format it so"


def _large(root: Path) -> Found:
    listing = next(
        (root / f"large_files.{end}" for end in ("yml", "yaml", "json") if _is(root, f"large_files.{end}")), None
    )
    entries = ConfigParser.load_config_file(str(listing)).get("large_files", []) if listing else []
    listed = {str(entry.get("path")): entry for entry in entries if isinstance(entry, Mapping)}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and path.stat().st_size > LARGE and name not in listed:
            yield name, f"has {path.stat().st_size / 2**20:.0f} MB", "list it in large_files.yml"
    for name, entry in listed.items():
        where = listing.name if listing else ""
        if not is_inside(root, name):
            yield where, f"{name} lies outside the bundle", "give a path in it"
        elif entry.get("hash_type") != "sha256" or not entry.get("hash_val"):
            yield where, f"{name} has no sha256", "give hash_type: sha256 and hash_val"
        elif (root / name).is_file() and sha256(root / name) != entry["hash_val"]:
            yield where, f"{name} has another sha256", "pack it again"


def _personal(root: Path) -> Found:
    for path in sorted([*root.rglob("*.json"), *root.rglob("*.yaml"), *root.rglob("*.yml"), *root.rglob("*.md")]):
        if found := _PERSONAL.search(path.read_text(encoding="utf-8")):
            yield str(path.relative_to(root)), f"holds the path {found[0]}", "remove it"


def _card(root: Path) -> Found:
    metadata = _json(root / "configs" / "metadata.json")
    for name in ("name", "description", "authors", "references", "changelog", "version"):
        if not metadata.get(name):
            yield "configs/metadata.json", f"lacks {name}, which the zoo's page shows", "add it"
    if not _is(root, "docs/README.md"):
        yield "docs/README.md", "missing", "add the model card"
    if not any(_is(root, name) for name in ("docs/data_license.txt", "docs/license.txt")):
        yield "docs/data_license.txt", "missing", "say what the data's licence allows"


def _tried(where: str, call: Callable[[], Any], cure: str) -> Found:
    try:
        call()
    except FileNotFoundError:
        raise
    except (Exception, SystemExit) as error:  # whatever a network or an export raises
        yield where, one_line(error), cure


def _json(file: Path) -> dict[str, Any]:
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} is no object")
    return content


def _parser(file: Path) -> ConfigParser:
    return ConfigParser(_json(file))


def _is(root: Path, name: str) -> bool:
    return (root / name).is_file()


def _kind(value: Any) -> str:
    return {str: "text", dict: "an object", list: "a list", type(None): "missing"}.get(
        type(value), type(value).__name__
    )


CHECKS: dict[str, Callable[[Path], Found]] = {
    "files": _files,
    "preferred": _preferred,
    "version": _version,
    "metadata": _metadata,
    "apps": _apps,
    "shape": _shape,
    "torchscript": _torchscript,
    "keys": _keys,
    "properties": _properties,
    "pins": _pins,
    "style": _style,
    "large": _large,
    "personal": _personal,
    "card": _card,
}
"""Each check: a function of the bundle's folder that yields where, what is wrong, and how to mend it."""
