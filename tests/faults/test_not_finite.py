"""A training that has become NaN or infinite stops before the step, says where, and leaves no such value behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mgcc_monai.errors import MGCCError
from mgcc_monai.weights import load_checkpoint

STAGES = {"autoencoder": "train_autoencoder.json", "diffusion": "train_diffusion.json", "segmentation": "train.json"}
PREFIX = {"autoencoder": "autoencoder_", "diffusion": "diffusion_", "segmentation": ""}


@pytest.fixture
def train(run: Callable, phantoms: Path, tmp_path: Path) -> Callable:
    """``train(stage, *overlays, **options)``: six iterations, two an epoch."""

    def start(stage: str, *overlays: str, **options: Any) -> None:
        own = {f"{PREFIX[stage]}max_iterations": 6, f"{PREFIX[stage]}epoch_length": 2}
        run("training", STAGES[stage], *overlays, dataset_dir=str(phantoms), **own, **options)

    return start


def not_finite_on_disk(folder: Path) -> list[str]:
    """Names of all values in weights, checkpoints and logs that are NaN or infinite."""
    found, looked = [], 0

    def look(name: str, thing: Any) -> None:
        nonlocal looked
        if isinstance(thing, dict | list | tuple):
            pairs = thing.items() if isinstance(thing, dict) else enumerate(thing)
            for key, value in pairs:
                look(f"{name}/{key}", value)
        elif isinstance(thing, torch.Tensor | float):
            looked += 1
            if not torch.isfinite(torch.as_tensor(thing)).all():
                found.append(name)

    for path in folder.rglob("*.pt"):
        look(path.name, load_checkpoint(path))
    for path in folder.rglob("events.out.*"):
        events = EventAccumulator(str(path))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            look(tag, [event.value for event in events.Scalars(tag)])
    assert looked > 40, "weights, momenta and losses at least"
    return found


@pytest.mark.parametrize(
    ("stage", "way", "says"),
    [
        ("autoencoder", "nan image", r"the loss is not finite \(l1 nan, ssim nan, kl nan\)"),
        ("diffusion", "nan image", r"the loss is not finite \(error nan\)"),
        ("segmentation", "nan image", r"the loss is not finite \(supervised nan, consistency nan, weight \d"),
        ("segmentation", "infinite loss", r"the loss is not finite \(supervised (inf|nan)"),
        ("segmentation", "nan gradient", r"the gradient of '\S+' is not finite \(supervised \d"),
        ("diffusion", "nan gradient", r"the gradient of '\S+' is not finite \(error \d"),
    ],
)
def test_it_stops_before_the_step(train, misbehaviour, tmp_path, stage, way, says):
    if stage == "diffusion":
        train("autoencoder")
    with pytest.raises(MGCCError, match=f"^Epoch 2, iteration 3: {says}") as told:
        train(stage, misbehaviour(way=way, iteration=3))
    assert "\n" not in str(told.value) and told.value.code not in (0, None)
    folder = tmp_path / "runs" / stage
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["checkpoint_epoch=1.pt"]
    assert not_finite_on_disk(folder) == []


def test_weights_are_those_before_the_step(train, misbehaviour, tmp_path):
    """Resumed without the fault, the run is the one that never had it."""
    train("segmentation", output_dir=str(tmp_path / "whole"))
    with pytest.raises(MGCCError, match="not finite"):
        train("segmentation", misbehaviour(way="nan image", iteration=3))
    train("segmentation", resume="true")
    name = "segmentation/checkpoints/checkpoint_epoch=3.pt"
    whole, resumed = (load_checkpoint(tmp_path / run / name)["network"] for run in ("whole", "runs"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole) and whole.keys() == resumed.keys()


def test_the_look_at_the_disk_finds_what_is_there(train, tmp_path):
    train("segmentation")
    folder = tmp_path / "runs" / "segmentation"
    assert not_finite_on_disk(folder) == []
    content = load_checkpoint(folder / "model.pt")
    next(iter(content.values())).view(-1)[0] = torch.nan
    torch.save(content, folder / "model.pt")
    assert len(not_finite_on_disk(folder)) == 1


def test_a_gradient_scaler_may_pass_over_steps_until_its_scale_is_gone():
    """Mixed precision overflows now and then; only a scale that has fallen to nothing ends the run."""
    from types import SimpleNamespace

    from mgcc_monai.handlers import FiniteGuard

    network = torch.nn.Linear(1, 1)
    network.weight.grad = torch.full_like(network.weight, torch.inf)
    state = SimpleNamespace(epoch=1, iteration=7)
    guard = FiniteGuard(network)
    engine = SimpleNamespace(state=state, amp=True, scaler=SimpleNamespace(get_scale=lambda: 2.0**10))
    guard.check_gradients(engine)
    engine.scaler.get_scale = lambda: 2.0**-11
    with pytest.raises(MGCCError, match="iteration 7: the gradients have long been not finite"):
        guard.check_gradients(engine)
    engine.amp = False
    with pytest.raises(MGCCError, match="the gradient of 'weight' is not finite"):
        guard.check_gradients(engine)
