"""What a run was: its settings, versions, data and times, written beside its results."""

from __future__ import annotations

import atexit
import datetime
import importlib.metadata
import json
import platform
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from mgcc_monai import __version__
from mgcc_monai.data.contents import FILE_NAME
from mgcc_monai.distributed import barrier, is_main_process, rank_and_size
from mgcc_monai.errors import MGCCError, plain_os_errors
from mgcc_monai.files import hash_files, set_aside, write_json
from mgcc_monai.lock import hold, release
from mgcc_monai.parse import parse_bool
from mgcc_monai.runs.config import active_parser, literal, using
from mgcc_monai.runs.tracking import track

__all__ = ["RunRecord", "inferring_network"]

_PACKAGES = ("monai", "torch", "pytorch-ignite", "diffusers", "numpy", "scikit-image", "nibabel")


class RunRecord:
    """The record of one stage: ``config.json`` and ``run.json`` in its folder, and the settings for inference.

    Built by a bundle's config, it takes the config that is being run, files and command line merged, as its own.

    Args:
        stage: name of the stage.
        folder: the stage's folder.
        datalist: the dataset; its file, hash and protocol are put into ``run.json``.
        header: more plain values to put there: preset, seed.
        files: files that the run learns from, by name; their hash is put there. A path, or items with ``image``.
        bundle_root: of a segmenter, the bundle's folder: the names that its ``inference.json`` shares with the running
            config are filled from that to make the run's own.
        resume: go on in the folder. Otherwise a folder that holds anything is first moved to ``<folder>.previous-N``.
    """

    def __init__(
        self,
        stage: str,
        folder: str,
        datalist: Mapping[str, Any],
        header: Mapping[str, Any],
        files: Mapping[str, Any] | None = None,
        bundle_root: str | None = None,
        resume: Any = False,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.configs = None if bundle_root is None else Path(bundle_root) / "configs"
        self.resume = parse_bool(resume, "resume")
        self.parser = active_parser()
        file = Path(datalist["file"])
        dataset = file.parent if file.name == FILE_NAME else file
        self.header = {"stage": stage, "dataset": str(dataset), "dataset_hash": datalist["hash"]}
        self.header |= {name: datalist.get(name) for name in ("protocol", "split_seed", "label_fraction")}
        self.header |= {**header, "processes": rank_and_size()[1]}
        if self.parser is not None and isinstance(self.parser.get("resize"), Mapping):
            self.header["resize"] = literal(self.parser, "resize")
        for name, content in (files or {}).items():
            self.header |= _hashes(name, content)
        self.content: dict[str, Any] = {}
        self.begun = 0.0

    @plain_os_errors()
    def start(self) -> None:
        """Take the folder and write what is known before the run; other processes wait for it.

        Raises:
            MGCCError: when another run is using the folder.
        """
        self.begun = time.time()
        if is_main_process():
            self._open()
        barrier()

    def _open(self) -> None:
        hold(self.folder)
        if not self.resume:
            set_aside(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("metadata.json", "logging.conf", "options.yaml"):  # read beside the config that is run
            if self.configs is not None and (self.configs / name).is_file():
                shutil.copyfile(self.configs / name, self.folder / name)
        earlier = self.folder / "run.json"
        history = json.loads(earlier.read_text()) if self.resume and earlier.is_file() else {}
        versions = {"python": platform.python_version(), "mgcc-monai": __version__}
        for name in _PACKAGES:
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                versions[name] = "not installed"
        self.content = {
            **history,
            **self.header,
            "command": sys.argv,
            "started": history.get("started", _now()),
            "status": "running",
            "versions": versions,
        }
        if history:
            self.content["resumed"] = [*history.get("resumed", []), _now()]
        if self.parser is not None:
            write_json(self.folder / "config.json", {k: v for k, v in self.parser.config.items() if k != "_meta_"})
        write_json(self.folder / "run.json", self.content)
        atexit.register(self._left)

    def _left(self) -> None:
        """At the end of the process: note that the run was stopped, unless it was finished or another is here now."""
        path = self.folder / "run.json"
        if self.content.get("status") == "running" and path.is_file():
            found = json.loads(path.read_text())
            if all(found.get(name) == self.content[name] for name in ("started", "command", "status")):
                self.finish("stopped")

    def update(self, **values: Any) -> None:
        """Put values into ``run.json``."""
        if is_main_process() and self.folder.is_dir():
            self.content = {**self.header, **self.content, **values}  # clients do not start the record
            write_json(self.folder / "run.json", self.content)

    def finish(self, status: str = "finished") -> None:
        """Note the end and the seconds that it took, and give the folder back.

        Raises:
            MGCCError: when a segmenter is said to be finished and has no weights.
        """
        if status == "finished" and self.configs is not None and is_main_process():
            if not (self.folder / "model.pt").is_file():
                raise MGCCError(
                    f"{self.folder / 'model.pt'}: there is no such file, so the training ends without weights; leave "
                    "--resume out to train anew."
                )
        self.update(status=status, ended=_now(), seconds=round(time.time() - self.begun, 1))
        with using(self.parser):
            track(self.folder, "FINISHED" if status == "finished" else "KILLED")
        release(self.folder)

    @plain_os_errors()
    def write_inference(self, threshold: float, sha256: str) -> None:
        """Write the run's ``inference.json``: the bundle's, with this run's network, statistics and threshold.

        Args:
            threshold: chosen for the weights.
            sha256: of the weights, which lie beside it as ``model.pt``.
        """
        if self.configs is None or self.parser is None:
            return
        settings = json.loads((self.configs / "inference.json").read_text())
        for name in ("image_size", "resize", "image_mean", "image_std"):
            if name in settings and name in self.parser.config:
                settings[name] = literal(self.parser, name)
        if "network_def" in self.parser.config:
            settings["network_def"] = inferring_network(self.parser)
        settings.update(
            bundle_root="$mgcc_monai.runs.config_folder()",
            ckpt_path="$mgcc_monai.runs.own_weights(@ckpt_sha256)",
            ckpt_sha256=sha256,
            threshold=threshold,
        )
        write_json(self.folder / "inference.json", settings)


def inferring_network(parser: ConfigParser, id: str = "network_def") -> dict[str, Any]:
    """Return a network's definition as plain values, each perturbation, which acts in training alone, as identity."""
    definition = parser.get(id)
    if not isinstance(definition, Mapping):
        return {}
    plain = {name: literal(parser, f"{id}::{name}") for name in definition if name != "perturbations"}
    perturbations = parser.get_parsed_content(f"{id}::perturbations") if "perturbations" in definition else None
    if perturbations is not None:
        plain["perturbations"] = [{"_target_": "torch.nn.Identity"}] * len(perturbations)
    return plain


def _hashes(name: str, content: Any) -> dict[str, Any]:
    if isinstance(content, str | Path):
        return {name: hash_files([content] if content else [])}
    paths = [item["image"] for item in content]
    return {f"{name}_images": len(paths), f"{name}_hash": hash_files(paths)}


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
