"""What a later stage would refuse is refused before the first one: its checks, with what earlier ones make stood in."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser

from mgcc_monai.errors import one_line
from mgcc_monai.runs.config import literal
from mgcc_monai.runs.preflight.segmentation import check_data
from mgcc_monai.runs.preflight.shapes import copy_parser, untrained, untrained_denoiser
from mgcc_monai.runs.preflight.table import DATA, OPTIONS, WORKFLOWS, evaluate_checks
from mgcc_monai.runs.preflight.weights import check_weights
from mgcc_monai.runs.settings import read_settings

__all__ = ["check_stages"]

logger = logging.getLogger(__name__)


def check_stages(stages: Mapping[str, tuple[str, Sequence[Path]]], settings: Mapping[str, Any], data: bool) -> None:
    """Evaluate the checks in the run lists of stages, but those of what an earlier stage makes.

    Untrained networks stand in for those that are not trained yet, and as many names as are asked for in for images
    that are not generated yet.

    Args:
        stages: run id and configs of each, by its name, in order.
        settings: names and values to lay on the configs.
        data: check what depends on the dataset too; else what depends on options alone.

    Raises:
        MGCCError: what the first stage that would refuse says.
    """
    parsers: dict[str, ConfigParser] = {}
    for stage, (_, files) in stages.items():
        parser = ConfigParser()
        parser.read_config([str(path) for path in files])
        parser.update(dict(settings))
        checks = [check for check in WORKFLOWS[stage] if check.needs == (DATA if data else OPTIONS)]
        if parsers:  # once: all stages have the same dataset
            checks = [check for check in checks if check.function is not check_data]
        if stage == "evaluate" and "ckpt_path" not in settings:  # the weights are not there yet
            checks = [check for check in checks if check.function is not check_weights]
        try:
            parsers[stage] = parser = copy_parser(parser, **_stand_ins(stage, parser, parsers, data))
            evaluate_checks(parser, checks)
        except Exception as error:
            logger.warning("%s: not all can be checked before it starts (%s).", stage, one_line(error))


def _stand_ins(stage: str, parser: ConfigParser, before: Mapping[str, ConfigParser], data: bool) -> dict[str, Any]:
    """Return what stands in for what the stages before a stage make, by its id in the stage's config."""
    if stage == "train_diffusion":
        vae = untrained("network_def", before["train_autoencoder"]).vae
        channels = vae.config.latent_channels
        vae.register_to_config(latents_mean=[0.0] * channels, latents_std=[1.0] * channels)
        return {"autoencoder_dir": vae, "vae": vae}
    if not data:
        return {}
    if stage == "generate":
        earlier = before["train_diffusion"]
        run = {name: earlier.get_parsed_content(name) for name in ("image_size", "trained_lists")}
        run["resize"] = literal(earlier, "resize")
        vae = earlier.get_parsed_content("vae")
        network = untrained_denoiser(earlier, vae, run["image_size"])
        whole = copy_parser(earlier, network=network, pipeline__provenance={})
        return {"model_run": run, "pipeline": whole.get_parsed_content("pipeline")}
    if stage == "train":
        stand_ins = {"network": untrained("network_def", parser)}
        if "generate" in before:
            indices, num_images = (before["generate"].get_parsed_content(name) for name in ("indices", "num_images"))
            stand_ins["generated"] = [{"image": ""}] * (num_images if indices is None else np.size(indices))
        return stand_ins
    if stage == "evaluate":
        earlier = before["train"]
        run = {name: earlier.get_parsed_content(name) for name in ("preset", "method", "seed", "unlabeled_lists")}
        run["dataset_hash"] = earlier.get_parsed_content("datalist")["hash"]
        settings = read_settings("", parser.get_parsed_content("bundle_root"))
        return {"network": earlier.get_parsed_content("network"), "run_header": run, "settings": settings}
    return {}
