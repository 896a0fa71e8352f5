"""Laws of the denoiser's figure: every sample counts once, in the band of its time step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from mgcc_monai.evaluation import TimestepBandLoss
from mgcc_monai.evaluation import timestep_loss as module


def samples(count: int, steps: int = 1000) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    generator = torch.Generator().manual_seed(count)
    pred, target = torch.randn(2, count, 2, 3, 4, generator=generator)
    return pred, target, np.random.default_rng(count).integers(0, steps, count)


def run(metric: TimestepBandLoss, batches: list[Any]) -> dict[str, float]:
    engine = Engine(lambda engine, batch: batch)
    metric.attach(engine, "val_loss")
    return engine.run(batches).metrics


def batches(pred: torch.Tensor, target: torch.Tensor, times: np.ndarray, size: int) -> list[Any]:
    """As MONAI's decollated outputs are: lists of predictions, and of targets with their time steps."""
    rows = list(zip(pred, zip(target, map(torch.tensor, times))))
    return [tuple(map(list, zip(*rows[k : k + size]))) for k in range(0, len(rows), size)]


@pytest.mark.parametrize("bands, steps", [(4, 1000), (3, 1000), (1, 50), (7, 50)])
def test_means_by_band_against_numpy(bands, steps):
    """A band is the steps whose place among all, times the bands, begins with its number."""
    pred, target, times = samples(90, steps)
    found = run(TimestepBandLoss(steps, bands), batches(pred, target, times, 8))
    errors = np.square(pred.double().numpy() - target.double().numpy()).mean((1, 2, 3))
    assert found.pop("val_loss") == pytest.approx(errors.mean(), rel=1e-5)
    edges = [int(np.ceil(band * steps / bands)) for band in range(bands + 1)]
    assert list(found) == [f"val_loss_t{a}-{b - 1}" for a, b in zip(edges, edges[1:])]
    for (first, last), value in zip(zip(edges, edges[1:]), found.values()):
        assert value == pytest.approx(errors[(times >= first) & (times < last)].mean(), rel=1e-5)


def test_names_of_the_usual_bands():
    pred, target, _ = samples(4)
    found = run(TimestepBandLoss(), batches(pred, target, np.array([0, 250, 749, 999]), 4))
    assert sorted(found) == [
        "val_loss",
        "val_loss_t0-249",
        "val_loss_t250-499",
        "val_loss_t500-749",
        "val_loss_t750-999",
    ]


@pytest.mark.parametrize("step, name", [(0, "t0-249"), (249, "t0-249"), (250, "t250-499"), (999, "t750-999")])
def test_edges_of_the_bands(step, name):
    target = torch.zeros(1, 1, 2, 2)
    found = run(TimestepBandLoss(), batches(target + 3, target, np.array([step]), 1))
    assert found == {"val_loss": 9.0, f"val_loss_{name}": 9.0}, "a band without samples has no figure"


def test_size_of_the_batches_changes_nothing():
    pred, target, times = samples(30)
    whole = run(TimestepBandLoss(), batches(pred, target, times, 30))
    parts = run(TimestepBandLoss(), batches(pred, target, times, 7))
    assert parts == pytest.approx(whole, rel=1e-9)


def test_equal_errors_at_equal_steps_all_count():
    """Two samples of no error and one of error 9, all of one step: a mean of 3."""
    target = torch.zeros(3, 1, 2, 2)
    pred = target + torch.tensor([0.0, 0.0, 3.0])[:, None, None, None]
    assert run(TimestepBandLoss(), batches(pred, target, np.array([5, 5, 5]), 2))["val_loss"] == pytest.approx(3)


def test_each_validation_starts_anew():
    metric, engine = TimestepBandLoss(), Engine(lambda engine, batch: batch)
    metric.attach(engine, "val_loss")
    target = torch.zeros(2, 1, 2, 2)
    for error in (1.0, 2.0):
        found = engine.run(batches(target + error, target, np.array([10, 600]), 2)).metrics
        assert found["val_loss"] == pytest.approx(error**2)


def test_transform_of_the_output():
    pred, target, times = samples(6)
    plain = run(TimestepBandLoss(), batches(pred, target, times, 6))
    rows = [{"pred": p, "label": [t, torch.tensor(s)]} for p, t, s in zip(pred, target, times)]
    metric = TimestepBandLoss(
        output_transform=lambda output: ([row["pred"] for row in output], [row["label"] for row in output])
    )
    assert run(metric, [rows]) == plain


def test_samples_of_all_processes_count(monkeypatch):
    """Two processes with a half each, some at the same place and step: the mean is that of one process with all."""
    pred, target, times = samples(8)
    times[[0, 4]] = times[[1, 5]] = 17
    halves = [TimestepBandLoss(), TimestepBandLoss()]
    rows: list[dict[str, Any]] = []
    for rank, metric in enumerate(halves):
        monkeypatch.setattr(module, "gather", lambda found: rows.append(dict(found)) or found)
        monkeypatch.setattr(module, "rank_and_size", lambda rank=rank: (rank, 2))
        own = slice(4 * rank, 4 * rank + 4)
        for batch in batches(pred[own], target[own], times[own], 2):
            metric.update(batch)
        metric.compute()
    monkeypatch.setattr(module, "gather", lambda found: {**rows[0], **rows[1]})
    whole = TimestepBandLoss()
    for batch in batches(pred, target, times, 8):
        whole.update(batch)
    merged = halves[0].compute()
    monkeypatch.setattr(module, "gather", dict)
    assert merged == pytest.approx(whole.compute(), rel=1e-9)
