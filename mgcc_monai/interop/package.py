"""One zip for the Model Zoo and its clients: configs with the values of a run, its weights, and this package."""

from __future__ import annotations

import ast
import importlib.metadata
import io
import json
import logging
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

import mgcc_monai
from mgcc_monai.errors import MGCCError, raise_errors
from mgcc_monai.files import sha256, try_writable, write_file
from mgcc_monai.runs.config import literal
from mgcc_monai.runs.options import find_bundle, read_options
from mgcc_monai.runs.settings import network_settings, read_json, read_trained
from mgcc_monai.weights import weights_in

__all__ = ["NAME", "REQUIRED", "package"]

logger = logging.getLogger(__name__)

NAME = "ultrasound_mgcc_segmentation"
REQUIRED = (
    "LICENSE",
    *(f"configs/{name}" for name in ("metadata.json", "logging.conf", "options.yaml")),
    *(f"configs/{name}.json" for name in ("train", "inference", "evaluate")),
    *("docs/README.md", "docs/data_license.txt"),
)
LARGE = 25 * 2**20  # bytes: above it the zoo wants a file listed in large_files.yml

_OF_THE_RUN = ("image_size", "resize", "image_mean", "image_std", "threshold")
_OF_THE_MACHINE = ("device", "amp", "num_workers", "cache_num", "resume", "pretrained")
_OF_THE_BUNDLE = ("imports", "train", "validate", "run", "training")  # a method sets none of them
_KEPT = (*_OF_THE_MACHINE, *_OF_THE_BUNDLE)
_PACKAGES = ("diffusers", "ignite", "mgcc_monai", "monai", "torch")
_HEADER = """\
# Copyright (c) the mgcc_monai founders
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""


def package(version: str, output: str, weights: str = "", bundle_root: str = "", weights_url: str = "") -> Path:
    """Pack the bundle with a run's weights into OUTPUT/ultrasound_mgcc_segmentation_vVERSION.zip.

    The configs in it have the run's network, image size, statistics and threshold, and its preset. The package is in it
    too, so that the unpacked bundle runs without an installation. Equal input gives equal bytes.

    Args:
        version: of the bundle, such as 0.2.0.
        output: the folder for the zip.
        weights: a run's segmentation folder, or another with its model.pt and inference.json; the bundle's models by
            default.
        bundle_root: the bundle's folder; the one at hand by default.
        weights_url: where weights over 25 MB will be downloaded from, for large_files.yml.

    Returns:
        the zip.

    Raises:
        MGCCError: when the version is none, a file of the bundle or the weights are missing, the weights are of another
            network than the configs, or the zip is there with other content.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise MGCCError(f"--version {version}: expected three numbers, such as 0.2.0.")
    try_writable(output)
    root = find_bundle(bundle_root or None)
    missing = [f"{root / name}: missing; restore it from the repository." for name in REQUIRED]
    raise_errors([error for name, error in zip(REQUIRED, missing) if not (root / name).is_file()], str(root))
    folder = Path(weights) if weights else root / "models"
    if weights_in(folder).name != "model.pt":
        raise MGCCError(
            f"{weights_in(folder)}: cannot be packed without its training; give a run's segmentation folder."
        )
    _, settings = read_trained(folder)
    if "resize" not in settings and settings.get("keep_aspect"):
        raise MGCCError(f"{folder / 'inference.json'}: keeps the aspect in the way of version 0.1; train again.")
    files = {f"docs/{path.name}": path.read_bytes() for path in (root / "docs").iterdir() if path.is_file()}
    files |= {f"configs/{path.relative_to(root / 'configs')}": path.read_bytes() for path in _configs(root)}
    files["LICENSE"] = (root / "LICENSE").read_bytes()
    files["configs/inference.json"] = _text(_inference(files["configs/inference.json"], settings))
    files["configs/train.json"] = _text(_training(files["configs/train.json"], settings, folder, root))
    files["configs/metadata.json"] = _text(_metadata(files["configs/metadata.json"], version))
    files["docs/README.md"] = _unpacked(files["docs/README.md"].decode(), version)
    files["models/model.pt"] = (folder / "model.pt").read_bytes()
    large = {name: content for name, content in files.items() if len(content) > LARGE}
    if large:
        files["large_files.yml"] = _large_files(folder / "model.pt", weights_url)
    source = Path(mgcc_monai.__file__).parent
    for path in source.rglob("*.py"):
        files[f"mgcc_monai/{path.relative_to(source).as_posix()}"] = (_HEADER + _imported(path.read_text())).encode()
    return _write(Path(output) / f"{NAME}_v{version}.zip", files)


def _configs(root: Path) -> list[Path]:
    return [path for path in (root / "configs").rglob("*") if path.suffix in (".json", ".yaml", ".conf")]


def _text(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=4, ensure_ascii=False) + "\n").encode()


def _inference(base: bytes, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bundle's ``inference.json`` with the network and the values of a run."""
    content = json.loads(base)
    content |= {name: settings[name] for name in (*_OF_THE_RUN, "network_def", "ckpt_sha256") if name in settings}
    return content | {"bundle_root": "$mgcc_monai.runs.bundle_folder()"}


def _training(base: bytes, settings: Mapping[str, Any], folder: Path, root: Path) -> dict[str, Any]:
    """Return the bundle's ``train.json`` with the options that a run changed, and its statistics as numbers."""
    content, options = json.loads(base), read_options(root)
    file = folder / "config.json"
    run = read_json(file) if file.is_file() else {"channels": list(settings["network_def"]["channels"])}
    for name, value in run.items():
        own = name in content and name not in _KEPT and (name not in options or options[name].kind != "path")
        if own and value != _as_merged(content[name]):
            content[name] = value
    if foreign := sorted(set(re.findall(r'"_target_": "(\w+)\.', json.dumps(content))) - set(_PACKAGES)):
        logger.warning("train.json needs %s, which the zip does not contain.", ", ".join(foreign))
    content |= {name: settings[name] for name in ("image_size", "image_mean", "image_std")}
    content |= {"bundle_root": "$mgcc_monai.runs.bundle_folder()"}
    described, trained = (network_settings(one) for one in (_network(content), settings["network_def"]))
    if described != trained:
        names = sorted(name for name in {*described, *trained} if described.get(name) != trained.get(name))
        config = file if file.is_file() else root / "configs" / "train.json"
        raise MGCCError(
            f"{folder / 'model.pt'}: is of another network than {config} "
            f"describes ({', '.join(names)}); give --weights the segmentation folder of the run."
        )
    return content


def _as_merged(value: Any) -> Any:
    """Return a value as MONAI merges it into a run's ``config.json``, where ids are parted by ``::``."""
    parser = ConfigParser({"value": json.loads(json.dumps(value))})  # which it changes
    parser.parse()
    return parser.config["value"]


def _network(content: Mapping[str, Any]) -> dict[str, Any]:
    return literal(ConfigParser(json.loads(json.dumps(content))), "network_def")


def _metadata(base: bytes, version: str) -> dict[str, Any]:
    """Return the bundle's metadata with this version, and the versions of the packages installed here."""
    content = json.loads(base)
    content["version"] = version
    content["changelog"] = {version: f"packaged with mgcc_monai {mgcc_monai.__version__}", **content["changelog"]}
    for key, name in (("monai_version", "monai"), ("pytorch_version", "torch"), ("numpy_version", "numpy")):
        content[key] = _installed(name, content[key])
    for key in ("required_packages_version", "optional_packages_version"):
        content[key] = {name: _installed(name, tested) for name, tested in content[key].items()}
    return content


def _installed(name: str, tested: str) -> str:
    try:
        return importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return tested


def _large_files(path: Path, url: str) -> bytes:
    entry = {"path": "models/model.pt", "url": url, "hash_val": sha256(path), "hash_type": "sha256"}
    lines = [f'{"  - " if place == 0 else "    "}{key}: "{value}"' for place, (key, value) in enumerate(entry.items())]
    return ("large_files:\n" + "\n".join(lines) + "\n").encode()


def _unpacked(card: str, version: str) -> bytes:
    """Return the model card with what is different in an unpacked bundle."""
    note = f"""## Without an installation

This is version {version}, unpacked from its zip. It contains the package `mgcc_monai`, so `python -m monai.bundle run`
works from any folder once the packages of `configs/metadata.json` are installed:

```
python -m monai.bundle run inferring --config_file {NAME}/configs/inference.json --dataset_dir PATH/TO/IMAGES
```

`monai.bundle.load`, `verify_net_in_out`, `ckpt_export`, `onnx_export` and the overlays `multi_gpu_*.json` need the
bundle's folder on Python's path: `export PYTHONPATH=PATH/TO/{NAME}`. The configs hold the values of the run that made
the weights.

"""
    return card.replace("## MONAI Bundle Commands\n", note + "## MONAI Bundle Commands\n", 1).encode()


def _imported(code: str) -> str:
    """Sort a module's imports as the zoo does, to which this package is a third party's."""
    lines, nodes = code.splitlines(keepends=True), []
    for node in ast.parse(code).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            name = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            if name.partition(".")[0] not in sys.stdlib_module_names:
                nodes.append((isinstance(node, ast.ImportFrom), name.lower(), node.lineno - 1, node.end_lineno))
        elif nodes:
            break
    if not nodes:
        return code
    first, last = nodes[0][2], nodes[-1][3]
    block = [line for _, _, start, end in sorted(nodes) for line in lines[start:end]]
    return "".join([*lines[:first], *block, *lines[last:]])


def _write(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a zip of the same bytes for the same files, and never over another one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{NAME}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            archive.writestr(entry, files[name])
    if path.is_file() and path.read_bytes() != buffer.getvalue():
        raise MGCCError(f"{path}: exists with other content; give another --version, or remove it.")
    return write_file(path, buffer.getvalue())
