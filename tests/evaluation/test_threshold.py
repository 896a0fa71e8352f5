"""Dice by threshold against the case metrics, and the choice on a plateau."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, MeanDice, from_engine
from monai.transforms import Activationsd, AsDiscreted, Compose, CopyItemsd

from mgcc_monai.evaluation.metrics import case_metrics
from mgcc_monai.evaluation.threshold import (
    THRESHOLDS,
    BestThreshold,
    BestThresholdHandler,
    DiceByThreshold,
    best_threshold,
    foreground,
)


def sample(seed: int = 0, size: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prob = torch.rand(6, 1, size, size, generator=generator)
    label = (torch.rand(6, 1, size, size, generator=generator) < 0.3).float()
    label[4] = 0  # a normal image
    prob[5], label[5] = 0, 0  # nothing said, nothing there
    return prob, label


def test_the_grid() -> None:
    assert THRESHOLDS == tuple(np.round(np.arange(0.05, 0.951, 0.05), 2).tolist())


def test_means_are_those_of_the_case_metrics() -> None:
    prob, label = sample()
    metric = DiceByThreshold()
    metric(prob[:4], label[:4])
    metric(list(prob[4:]), list(label[4:]))  # lists of CHW, as evaluators hand over
    for threshold, mean in zip(metric.thresholds, metric.aggregate().tolist(), strict=True):
        dice = [
            case_metrics(p[0].numpy() >= threshold, y[0].numpy() > 0)["dice"] for p, y in zip(prob, label, strict=True)
        ]
        assert mean == pytest.approx(np.mean(dice), abs=1e-6)
    metric.reset()
    with pytest.raises(ValueError, match="no image"):
        metric.aggregate()


def test_softmax_counts_all_but_the_background() -> None:
    prob, label = sample()
    softmax = torch.cat([1 - prob, 0.75 * prob, 0.25 * prob], dim=1)
    one_hot = torch.cat([1 - label, label, torch.zeros_like(label)], dim=1)
    torch.testing.assert_close(foreground(softmax, 1), prob)
    grid = [0.1, 0.33, 0.62]
    assert torch.equal(DiceByThreshold(grid)(softmax, one_hot), DiceByThreshold(grid)(prob, label))


def test_a_pixel_at_the_threshold_is_lesion_and_half_precision_is_read() -> None:
    prob, label = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float16), torch.ones(1, 1, 2, 2)
    assert DiceByThreshold([0.5, 0.55])(prob, label).tolist() == [[1.0, 0.0]]


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="same size"):
        DiceByThreshold()(torch.rand(2, 1, 4, 4), torch.zeros(2, 1, 4, 5))


@pytest.mark.parametrize(
    ("means", "chosen"),
    [
        ([0.1, 0.9, 0.2, 0.1, 0.0], 0.3),  # a peak
        ([0.9, 0.9, 0.9, 0.9, 0.9], 0.5),  # flat: the middle
        ([0.2, 0.8995, 0.3, 0.9, 0.1], 0.3),  # within 1e-3, equally near to 0.5: the lower
        ([0.9, 0.8995, 0.8, 0.8, 0.8], 0.3),  # within 1e-3: the nearer
        ([0.9, 0.898, 0.8, 0.8, 0.8], 0.1),  # not within 1e-3
        ([float("nan"), 0.2, 0.1, 0.1, 0.1], 0.3),
    ],
)
def test_the_choice(means: list[float], chosen: float) -> None:
    assert best_threshold(means, [0.1, 0.3, 0.5, 0.7, 0.9]) == chosen


def test_no_choice() -> None:
    with pytest.raises(ValueError, match="finite"):
        best_threshold([float("nan")] * 19)
    with pytest.raises(ValueError, match="thresholds"):
        best_threshold([0.5])


def test_in_an_evaluator() -> None:
    """The probabilities of lesion are all 0.3 and of the rest 0.1: any threshold of 0.15 to 0.3 is perfect."""
    label = (torch.arange(64).reshape(1, 8, 8) % 3 == 0).float()
    logits = torch.logit(torch.where(label > 0, 0.3001, 0.1))
    batch = {"image": logits.expand(2, 1, 8, 8), "label": label.expand(2, 1, 8, 8)}
    post = Compose(
        [Activationsd("pred", sigmoid=True), CopyItemsd("pred", names="prob"), AsDiscreted("pred", threshold=0.5)]
    )
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[batch, batch],
        network=torch.nn.Identity(),
        postprocessing=post,
        key_val_metric={"val_mean_dice": MeanDice(output_transform=from_engine(["pred", "label"]))},
        additional_metrics={
            "val_threshold": BestThresholdHandler(output_transform=from_engine(["prob", "label"])),
            "curve": IgniteMetricHandler(DiceByThreshold(), output_transform=from_engine(["prob", "label"])),
            "same": IgniteMetricHandler(BestThreshold([0.2]), output_transform=from_engine(["prob", "label"])),
        },
    )
    for _ in range(2):  # a second run starts anew
        evaluator.run()
        metrics = evaluator.state.metrics
        assert isinstance(metrics["val_threshold"], float)
        assert metrics["val_threshold"] == 0.3
        assert metrics["same"] == 0.2
        assert metrics["val_mean_dice"] == 0
        expected = [1.0 if 0.1 < t < 0.3001 else 0.0 for t in THRESHOLDS]
        good = [value == pytest.approx(1.0) for value in metrics["curve"].tolist()]
        assert good == [bool(value) for value in expected]
        assert evaluator.state.metric_details["curve"].shape == (4, 19)
