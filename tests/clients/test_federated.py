"""The example of two sites: statistics agreed on, weights averaged, metrics returned, and a second start."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from mgcc_monai.data.phantom.write import write_phantoms


@pytest.fixture
def federated(example) -> ModuleType:
    return example("federated/two_sites.py")


def test_agreed_statistics_are_those_of_all_images_together(federated: ModuleType):
    rng = np.random.default_rng(0)
    sites = [rng.random((n, 50)) * scale for n, scale in ((3, 1.0), (7, 0.5))]
    lists = [
        {"training": [0] * len(site), "unlabeled": [], "statistics": {"mean": site.mean(), "std": site.std()}}
        for site in sites
    ]
    found, every = federated.agreed_statistics(lists), np.concatenate(sites)
    assert found["image_mean"] == pytest.approx(every.mean()) and found["image_std"] == pytest.approx(every.std())


def test_an_average_is_weighted_and_keeps_integers(federated: ModuleType):
    states = [{"w": torch.tensor([1.0]), "n": torch.tensor(4)}, {"w": torch.tensor([4.0]), "n": torch.tensor(9)}]
    found = federated.average(states, [1, 2])
    assert found["w"].item() == pytest.approx(3.0) and found["n"].item() == 4


def test_two_sites_train_and_measure_and_start_again(federated, unpacked: Path, phantoms: Path, tmp_path: Path, capsys):
    write_phantoms(tmp_path / "b", count=12, seed=9, label_fraction=0.5, size=(48, 56))
    options = dict(max_iterations=4, epoch_length=1, learning_rate=0.01)
    for _ in range(2):
        federated.main(str(unpacked), str(phantoms), str(tmp_path / "b"), str(tmp_path / "out"), rounds=2, **options)
    history = json.loads((tmp_path / "out" / "rounds.json").read_text())
    assert [one["round"] for one in history] == [1, 2]
    for one in history:
        for metrics in one["sites"].values():
            assert {"dice", "iou", "accuracy"} <= metrics.keys() and 0 <= metrics["dice"] <= 1
    before = torch.load(unpacked / "models" / "model.pt", weights_only=True)
    after = torch.load(tmp_path / "out" / "model.pt", weights_only=True)
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)
    assert "round 0: mean" in capsys.readouterr().out
