"""Laws of the training loss: what it is, where its gradients go, and which images count in which part."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mgcc_monai.losses import CrossConsistencyLoss, consistency


def logits(*seeds: int, batch: int = 3, channels: int = 1, side: int = 5) -> list[torch.Tensor]:
    def draw(seed: int) -> torch.Tensor:
        return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(seed))

    return [draw(seed).requires_grad_() for seed in seeds]


def labels(count: int, side: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(99)
    return (torch.rand(count, 1, side, side, generator=generator) > 0.5).float()


def oracle(main: torch.Tensor, auxiliary: list[torch.Tensor]) -> float:
    """Mean over the decoders of the mean squared difference of probabilities, in plain numpy."""

    def probability(x: torch.Tensor) -> np.ndarray:
        values = x.detach().numpy().astype(np.float64)
        if values.shape[1] == 1:
            return 1 / (1 + np.exp(-values))
        return np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)

    return float(np.mean([np.mean((probability(a) - probability(main)) ** 2) for a in auxiliary]))


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("detach", ["none", "main", "auxiliary"])
def test_value(channels, count, detach):
    main, *auxiliary = logits(*range(count + 1), channels=channels)
    value = float(consistency(main, auxiliary, detach))
    assert value == pytest.approx(oracle(main, auxiliary), rel=1e-5)
    assert value > 0.01


def test_two_channels_by_hand():
    """Softmax of (0, log 3) is (1/4, 3/4), of (0, 0) is (1/2, 1/2): the squares are 1/16 each."""
    main = torch.zeros(1, 2, 1, 1)
    auxiliary = torch.tensor([0.0, np.log(3.0)], dtype=torch.float32).reshape(1, 2, 1, 1)
    assert float(consistency(main, [auxiliary])) == pytest.approx(1 / 16, rel=1e-6)
    # a number added to both channels changes no probability
    assert float(consistency(main + 5, [auxiliary - 3])) == pytest.approx(1 / 16, rel=1e-5)
    # one channel: sigmoid(log 3) is 3/4
    assert float(consistency(main[:, :1], [auxiliary[:, 1:]])) == pytest.approx(1 / 16, rel=1e-6)
    # averaged over the decoders, not summed
    assert float(consistency(main, [auxiliary, main, main, main])) == pytest.approx(1 / 64, rel=1e-6)


@pytest.mark.parametrize("detach, to_main, to_auxiliary", [("none", 1, 1), ("main", 0, 1), ("auxiliary", 1, 0)])
def test_gradient_reaches_the_side_that_is_not_detached(detach, to_main, to_auxiliary):
    main, first, second = logits(0, 1, 2)
    consistency(main, [first, second], detach).backward()
    for tensor, wanted in ((main, to_main), (first, to_auxiliary), (second, to_auxiliary)):
        assert (tensor.grad is not None and bool(tensor.grad.abs().max() > 1e-6)) == bool(wanted)


def test_nothing_to_compare_gives_zero():
    (main,) = logits(0)
    assert float(consistency(main, [])) == 0
    assert float(consistency(main[:0], [main[:0]])) == 0  # and not NaN, the mean over nothing
    assert float(consistency(main, [main, main])) == 0


@pytest.mark.parametrize("word", ["aux", "", "None", None, False])
def test_another_word_for_detach_is_refused(word):
    (main,) = logits(0)
    with pytest.raises(ValueError, match="none, main, auxiliary"):
        consistency(main, [main], word)
    with pytest.raises(ValueError, match="none, main, auxiliary"):
        CrossConsistencyLoss(nn.L1Loss(), detach=word)


def test_total_is_supervision_of_every_decoder_plus_weighted_consistency():
    outputs, label = logits(0, 1, 2, 3, batch=5), labels(2)
    loss = CrossConsistencyLoss(nn.L1Loss(), consistency_weight=2.5)
    total = float(loss(outputs, label))
    supervised = np.mean([np.abs(output.detach().numpy()[:2] - label.numpy()).mean() for output in outputs])
    unsupervised = oracle(outputs[0][2:], [output[2:] for output in outputs[1:]])
    assert total == pytest.approx(supervised + 2.5 * unsupervised, rel=1e-5)
    assert loss.parts == pytest.approx({"supervised": supervised, "consistency": unsupervised, "weight": 2.5}, rel=1e-5)


def test_labelled_and_unlabelled_images_do_not_mix():
    label = labels(2)
    loss = CrossConsistencyLoss(nn.L1Loss(), consistency_weight=1.0)

    def parts(labelled_seed: int, unlabelled_seed: int) -> dict[str, float]:
        first, second = (logits(*range(seed, seed + 3), batch=4) for seed in (labelled_seed, unlabelled_seed))
        loss([torch.cat((a[:2], b[2:])) for a, b in zip(first, second)], label)
        return dict(loss.parts)

    base, other_unlabelled, other_labelled = parts(0, 10), parts(0, 20), parts(30, 10)
    assert other_unlabelled["supervised"] == base["supervised"]
    assert other_unlabelled["consistency"] != base["consistency"]
    assert other_labelled["consistency"] == base["consistency"]
    assert other_labelled["supervised"] != base["supervised"]


@pytest.mark.parametrize("detach, main_moves, auxiliary_moves", [("main", False, True), ("auxiliary", True, False)])
def test_detach_leaves_the_supervision_alone(detach, main_moves, auxiliary_moves):
    outputs = logits(0, 1, 2, batch=4)
    CrossConsistencyLoss(nn.L1Loss(), 1.0, detach)(outputs, labels(1)).backward()
    for output, moves in zip(outputs, (main_moves, auxiliary_moves, auxiliary_moves)):
        assert output.grad[:1].abs().min() > 0
        assert bool(output.grad[1:].abs().max() > 0) == moves


def test_all_images_labelled():
    outputs = logits(0, 1, 2)
    loss = CrossConsistencyLoss(nn.L1Loss(), consistency_weight=100.0)
    value = float(loss(outputs, labels(3)))
    assert value == pytest.approx(loss.parts["supervised"])
    assert list(loss.parts) == ["supervised"]


def test_one_tensor_as_in_evaluation():
    (main,) = logits(0)
    loss = CrossConsistencyLoss(nn.L1Loss(), consistency_weight=7.0)
    assert float(loss(main, labels(3))) == pytest.approx(float(nn.L1Loss()(main, labels(3))))
    assert float(loss(main, labels(2))) == pytest.approx(float(nn.L1Loss()(main[:2], labels(2))))


def test_more_labels_than_images_is_told():
    with pytest.raises(ValueError, match="4 labels came with 3 images"):
        CrossConsistencyLoss(nn.L1Loss())(logits(0, 1), labels(4))


def test_weight_can_be_moved():
    outputs, label = logits(0, 1, batch=4), labels(2)
    loss = CrossConsistencyLoss(nn.L1Loss())
    plain = float(loss(outputs, label))
    loss.set_consistency_weight(3.0)
    moved = float(loss(outputs, label))
    assert moved - plain == pytest.approx(3.0 * loss.parts["consistency"], rel=1e-4)


@pytest.mark.parametrize("count", [1, 2])
def test_the_mean_over_all_draws_of_auxiliary_decoders_is_the_loss_of_all(count):
    from itertools import combinations

    outputs, label = logits(*range(4)), labels(2)
    whole = CrossConsistencyLoss(nn.BCEWithLogitsLoss(), consistency_weight=3.0)(outputs, label)
    loss = CrossConsistencyLoss(nn.BCEWithLogitsLoss(), consistency_weight=3.0, auxiliary=3)
    drawn = [loss([outputs[0], *some], label) for some in combinations(outputs[1:], count)]
    torch.testing.assert_close(torch.stack(drawn).mean(), whole)
    assert torch.stack(drawn).std() > 1e-4
    torch.testing.assert_close(loss(outputs, label), whole)
