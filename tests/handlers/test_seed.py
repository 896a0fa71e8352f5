"""Randomness of an iteration hangs on (seed, iteration) alone, and every epoch has its own images."""

from __future__ import annotations

import torch
from ignite.engine import Engine
from monai.data import DataLoader

from mgcc_monai.data import ResumableSampler, SeededCacheDataset, TwoStreamLoader
from mgcc_monai.handlers import IterationSeed


def run(seed: int, start: int = 0, disturb: int = 0) -> tuple[list[float], list[list[int]]]:
    """Return what each iteration draws first, and the images of each epoch."""
    data = [{"image": torch.full((1,), i)} for i in range(7)]
    sampler = ResumableSampler(7, 2, 3, seed=1)
    loader = TwoStreamLoader(DataLoader(SeededCacheDataset(data), batch_size=2, sampler=sampler))
    draws: list[float] = []
    epochs: dict[int, list[int]] = {}

    def step(engine: Engine, batch: dict[str, torch.Tensor]) -> None:
        draws.append(float(torch.rand(1)))
        torch.rand(disturb)
        epochs.setdefault(engine.state.epoch, []).extend(batch["image"].flatten().int().tolist())

    engine = Engine(step)
    IterationSeed(seed, loader).attach(engine)
    engine.state.epoch, engine.state.iteration = start, start * 3
    engine.state.max_epochs, engine.state.epoch_length = 7, 3
    torch.manual_seed(disturb)
    engine.run(loader, max_epochs=7, epoch_length=3)
    return draws, list(epochs.values())


def test_epochs_go_through_the_whole_list():
    """42 drawings of 7 images: each comes six times, and no epoch repeats the one before."""
    _, epochs = run(0)
    assert [len(images) for images in epochs] == [6] * 7
    seen = [image for images in epochs for image in images]
    assert all(seen.count(i) == 6 for i in range(7))
    assert all(sorted(seen[k : k + 7]) == list(range(7)) for k in range(0, 42, 7))


def test_draws_hang_on_seed_and_iteration_alone():
    draws, epochs = run(0)
    assert len(set(draws)) == 21
    assert run(0, disturb=5) == (draws, epochs)
    assert run(0, start=4) == (draws[12:], epochs[4:])
    others, same_images = run(1)
    assert not set(others) & set(draws) and same_images == epochs


def test_without_loader():
    engine = Engine(lambda engine, batch: torch.rand(1).item())
    IterationSeed(3).attach(engine)
    first = engine.run([0]).output
    torch.rand(9)
    assert engine.run([0]).output == first
