"""Two processes over gloo, each with its share of the images, resume to the bit and measure as one process does."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser
from monai.data import DistributedSampler

from mgcc_monai.weights import load_checkpoint

CONFIGS = {
    "autoencoder": ("train_autoencoder.json", "multi_gpu_train.json"),
    "diffusion": ("train_diffusion.json", "multi_gpu_train.json"),
    "segmentation": ("train.json", "multi_gpu_train.json"),
}
PREFIX = {"autoencoder": "autoencoder_", "diffusion": "diffusion_", "segmentation": ""}
LONG = [pytest.param("autoencoder", marks=pytest.mark.long), pytest.param("diffusion", marks=pytest.mark.long)]


@pytest.fixture
def train(start: Callable, tmp_path: Path) -> Callable:
    """``train(stage, name, **options)``: a training by two processes, in the output folder of this name; its code."""

    def begin(stage: str, name: str, *overlays: str, ranks: int = 2, **options: Any) -> subprocess.Popen:
        output = tmp_path / name
        if stage == "diffusion" and not output.exists():
            assert start("training", "train_autoencoder.json", output_dir=output).wait(timeout=300) == 0
        own = {f"{PREFIX[stage]}max_iterations": 6, f"{PREFIX[stage]}epoch_length": 3, f"{PREFIX[stage]}batch_size": 2}
        own |= {} if stage == "segmentation" else {"adversarial_weight": 0.1, "detail_start": 2}
        own |= {"autoencoder_patch_size": [32, 32]} if stage == "autoencoder" else {}
        own = {key: value for key, value in own.items() if stage == "autoencoder" or key[:2] not in ("ad", "de")}
        own = {**own, **options}
        names = [*CONFIGS[stage], *overlays] if ranks > 1 else [CONFIGS[stage][0], *overlays]
        return start("training", *names, ranks=ranks, output_dir=output, **own)

    return begin


@pytest.mark.parametrize("stage", [*LONG, "segmentation"])
def test_resumed_training_of_two_ranks(train, state_hash, tmp_path, stage):
    assert train(stage, "whole").wait(timeout=300) == 0, (tmp_path / "printed.txt").read_text()[-3000:]
    if stage == "diffusion":  # one autoencoder for both
        shutil.copytree(tmp_path / "whole" / "autoencoder", tmp_path / "parts" / "autoencoder")
    assert train(stage, "parts", **{"train#trainer#max_epochs": 1}).wait(timeout=300) == 0
    assert train(stage, "parts", resume="true").wait(timeout=300) == 0, (tmp_path / "printed.txt").read_text()[-3000:]
    name = f"{stage}/checkpoints/checkpoint_epoch=2.pt"
    assert state_hash(tmp_path / "parts" / name) == state_hash(tmp_path / "whole" / name)


def test_two_ranks_end_after_exactly_the_iterations_asked_for(train, tmp_path):
    """Their last epoch is shorter; a resume by another number of processes, whose steps would be others, is refused."""
    assert train("segmentation", "runs", max_iterations=4).wait(timeout=300) == 0
    folder, printed = tmp_path / "runs" / "segmentation", tmp_path / "printed.txt"
    assert load_checkpoint(folder / "checkpoints/checkpoint_epoch=2.pt")["progress"]["iteration"] == 4
    record = json.loads((folder / "run.json").read_text())
    assert (record["iterations"], record["processes"], record["status"]) == (4, 2, "finished")
    assert (folder / "training.log").read_text().count(", validation: ") == 2
    assert train("segmentation", "runs", ranks=1, max_iterations=4, resume="true").wait(timeout=300) == 1
    assert "number of processes: was 2, is 1;" in printed.read_text()
    assert json.loads((folder / "run.json").read_text()) == record


@pytest.mark.long
def test_sigterm_to_torchrun_saves_and_is_gone_on_with(train, state_hash, tmp_path):
    """The agent hands it on; both processes stop at one iteration, which may be any."""
    options = dict(max_iterations=40, epoch_length=20)
    assert train("segmentation", "whole", **options).wait(timeout=300) == 0
    printed = tmp_path / "printed.txt"
    began = len(printed.read_text())
    agent = train("segmentation", "parts", **options)
    while "2/40" not in printed.read_text()[began:]:
        assert agent.poll() is None
        time.sleep(0.05)
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(timeout=60) != 0
    saved = sorted((tmp_path / "parts/segmentation/checkpoints").iterdir())
    assert saved and "Saved" in printed.read_text()[began:]
    assert train("segmentation", "parts", resume="true", **options).wait(timeout=300) == 0
    name = "segmentation/checkpoints/checkpoint_epoch=2.pt"
    assert state_hash(tmp_path / "parts" / name) == state_hash(tmp_path / "whole" / name)


@pytest.mark.long
def test_metrics_of_two_ranks_are_those_of_one_process(train, tmp_path, configs, phantoms):
    """The held-out loss that two processes found, each on its share, is found again by one, with the same weights."""
    options = {"train#trainer#max_epochs": 1}
    assert train("diffusion", "whole", **options).wait(timeout=300) == 0, (tmp_path / "printed.txt").read_text()[-3000:]
    content = load_checkpoint(tmp_path / "whole/diffusion/checkpoints/checkpoint_epoch=1.pt")
    parser = ConfigParser()
    parser.read_config([configs / "train_diffusion.json", Path(__file__).parents[1] / "bundle" / "tiny.yaml"])
    parser.update({"bundle_root": str(configs.parent), "dataset_dir": str(phantoms), "diffusion_batch_size": 2})
    parser.update({"output_dir": str(tmp_path / "whole"), "diffusion_dir": str(tmp_path / "again")})
    evaluator, ema = parser.get_parsed_content("validate#evaluator"), parser.get_parsed_content("ema")
    ema.load_state_dict(content["ema"])
    with ema.averaged():
        evaluator.run()
    assert len(parser.get_parsed_content("validate#dataset")) % 2 == 0
    assert evaluator.state.metrics["val_loss"] == pytest.approx(content["best"]["metric"], rel=1e-6)


@pytest.mark.parametrize("count", [7, 8])
def test_shards_of_validation_are_disjoint_and_complete(count, configs):
    """Also where they do not divide; those of training are in ``tests/data/test_sampler.py``."""
    for stage in CONFIGS:
        sampler = json.loads((configs / CONFIGS[stage][1]).read_text())["validate#dataloader#sampler"]
        options = {name: sampler[name] for name in ("even_divisible", "shuffle")}
        assert sampler["_target_"] == "DistributedSampler"
        shares = [list(DistributedSampler(range(count), num_replicas=2, rank=rank, **options)) for rank in (0, 1)]
        assert sorted(shares[0] + shares[1]) == list(range(count))


def test_without_torchrun_it_says_how_to_start(tmp_path, start):
    process = start("training", "train.json", "multi_gpu_train.json")
    assert process.wait(timeout=120) == 1
    printed = (tmp_path / "printed.txt").read_text()
    assert "torchrun --nproc_per_node N" in printed and "Traceback" not in printed
