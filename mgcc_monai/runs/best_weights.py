"""The best weights of a training, with what is needed to use them; and where clients of the bundle look for them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from mgcc_monai.distributed import is_main_process
from mgcc_monai.errors import MGCCError
from mgcc_monai.files import set_aside, sha256, write_file
from mgcc_monai.runs.config import literal
from mgcc_monai.runs.settings import network_settings
from mgcc_monai.weights import check_fits, save_atomically

__all__ = ["BestWeights", "install_weights"]

logger = logging.getLogger(__name__)

_READ_BY_CLIENTS = ("train.json", "inference.json")


class BestWeights:
    """Keep the network's weights of the best validation, beside an ``inference.json`` that uses them as they are.

    The second file holds the sha256 of the first, so that a run that is killed between the two leaves a pair that is
    refused; a resumed one makes that validation again and writes both.

    Args:
        network: the network.
        record: the :class:`mgcc_monai.runs.RunRecord` of this run, which knows the settings.
        threshold_metric: name of the validation metric that is the best threshold, stored with the weights.
    """

    def __init__(self, network: torch.nn.Module, record: Any, threshold_metric: str = "val_threshold") -> None:
        self.network = network
        self.record = record
        self.threshold_metric = threshold_metric

    def attach(self, engine: Engine) -> None:
        """Attach to the validation engine."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save if this validation is the best so far."""
        state = engine.state
        if state.best_metric_epoch != state.epoch or not is_main_process():
            return
        path = self.record.folder / "model.pt"
        save_atomically(self.network.state_dict(), path)
        threshold = float(state.metrics.get(self.threshold_metric, 0.5))
        best = {"epoch": int(state.epoch), state.key_metric_name: float(state.best_metric), "threshold": threshold}
        self.record.write_inference(threshold, sha256(path))
        self.record.update(best=best)


def install_weights(folder: str, models: str) -> Path | None:
    """Put a run's best weights into the bundle and keep the ones before, where the bundle describes their network.

    ``model.pt`` and its ``inference.json`` go to ``models``; an older ``model.pt`` becomes ``model.previous.pt``. Where
    ``configs/train.json`` or ``configs/inference.json`` beside that folder describes another network, nothing is put
    there, as ``monai.bundle.load`` would fill that network with what fits and leave the rest random; weights that are
    there already and do not fit either are moved aside.

    Args:
        folder: the run's segmentation folder.
        models: the bundle's folder of weights.

    Returns:
        the installed file; None where nothing was installed, which is logged.
    """
    source, target = Path(folder).absolute() / "model.pt", Path(models).absolute() / "model.pt"
    if not is_main_process() or not source.is_file():
        return None
    settings = source.with_name("inference.json")
    trained = network_settings(json.loads(settings.read_text())["network_def"])
    described = _networks(target.parents[1] / "configs")
    try:
        if any(network_settings(network) != trained for network in described.values()):
            _keep_out(source, target, trained, described)
            return None
        if target.is_file() and sha256(target) != sha256(source):
            write_file(target.with_name("model.previous.pt"), target.read_bytes())
        write_file(target, source.read_bytes())
        write_file(target.with_name("inference.json"), settings.read_bytes())
    except MGCCError as error:
        logger.warning("The weights stay in %s alone. %s", folder, error)
        return None
    return target


def _networks(configs: Path) -> dict[Path, dict[str, Any]]:
    """Return the networks that the bundle's own configs describe, by file."""
    described = {}
    for path in (configs / name for name in _READ_BY_CLIENTS):
        if path.is_file():
            parser = ConfigParser()
            parser.read_config(str(path))
            described[path] = literal(parser, "network_def")
    return described


def _keep_out(source: Path, target: Path, trained: Mapping[str, Any], described: Mapping[Path, Any]) -> None:
    """Say that weights are not installed, and move those aside that are there and do not fit."""
    networks = {path: network_settings(network) for path, network in described.items()}
    config, network = next((path, network) for path, network in networks.items() if network != trained)
    names = sorted(name for name in {*trained, *network} if trained.get(name) != network.get(name))
    logger.warning(
        "The weights stay in %s: %s describes another network (%s), and clients that read %s would build that one. "
        "Segment with --config_file %s.",
        *(source.parent, config, ", ".join(names), target.parent, source.with_name("inference.json")),
    )
    if target.is_file() and not all(_fits(network, target) for network in described.values()):
        logger.warning("%s is of another network too; it is now %s.", target, set_aside(target))


def _fits(definition: Mapping[str, Any], path: Path) -> bool:
    with torch.device("meta"):
        network = ConfigParser({"network": dict(definition)}).get_parsed_content("network")
    try:
        check_fits(network, path)
    except MGCCError:
        return False
    return True
