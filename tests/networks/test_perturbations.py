"""Laws of the perturbations: who is drawn for, from what, in which range, and that a draw repeats exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mgcc_monai.networks import Dropout, FeatureDropout, FeatureNoise, Perturbation

ALL = [FeatureDropout, Dropout, FeatureNoise]


def features(batch: int = 4, channels: int = 6, side: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(seed)).relu() + 0.1


@pytest.mark.parametrize("kind", ALL)
def test_every_sample_has_its_own_draw(kind):
    torch.manual_seed(0)
    same = features(1).expand(4, -1, -1, -1).contiguous()
    draw = kind().draw(same)
    assert draw.shape[0] == 4
    assert len({tuple(sample.flatten().tolist()) for sample in draw}) == 4


@pytest.mark.parametrize("kind", [Dropout, FeatureNoise])
def test_equal_samples_come_out_different(kind):
    torch.manual_seed(0)
    out = kind()(features(1).expand(4, -1, -1, -1).contiguous())
    assert all(not torch.equal(out[i], out[j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize("kind", ALL)
def test_a_sample_depends_on_itself_and_its_draw_alone(kind):
    torch.manual_seed(0)
    x, perturb = features(), kind()
    draw = perturb.draw(x)
    out = perturb(x, draw)
    for i in range(4):
        assert torch.equal(perturb(x[i : i + 1], draw[i : i + 1])[0], out[i])
    others, redrawn = x.clone(), perturb.draw(x)
    others[1:] *= 100
    redrawn[0] = draw[0]
    assert torch.equal(perturb(others, redrawn)[0], out[0])
    assert not torch.equal(perturb(others, redrawn)[1], out[1])


@pytest.mark.parametrize("kind", ALL)
def test_shared_serves_the_whole_batch_with_one_draw(kind):
    torch.manual_seed(0)
    perturb = kind(shared=True)
    same = features(1).expand(4, -1, -1, -1).contiguous()
    draw = perturb.draw(same)
    assert draw.shape[0] == 1
    out = perturb(same, draw)
    assert all(torch.equal(out[0], sample) for sample in out[1:])
    assert torch.equal(kind()(same, draw), out), "a draw means the same to a module that is not shared"


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("shared", [False, True])
def test_a_draw_repeats_exactly_and_uses_no_randomness(kind, shared):
    x, perturb = features(), kind(shared=shared)
    draw = perturb.draw(x)
    first = perturb(x, draw)
    state = torch.get_rng_state()
    assert torch.equal(perturb(x, draw), first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ALL)
def test_randomness_comes_from_torch_alone(kind):
    x, perturb = features(), kind()
    torch.manual_seed(3)
    np.random.seed(1)
    first = perturb(x)
    untouched = np.random.get_state()[1].copy()
    np.random.seed(2)
    torch.manual_seed(3)
    assert torch.equal(perturb(x), first)
    draws = []
    for seed in (4, 3):
        torch.manual_seed(seed)
        draws.append(perturb.draw(x))
    assert not torch.equal(*draws)
    np.random.seed(1)
    perturb(x)
    assert np.array_equal(np.random.get_state()[1], untouched)


def test_range_of_the_feature_dropout():
    torch.manual_seed(0)
    fractions = FeatureDropout().draw(torch.zeros(20000, 1, 1, 1))
    assert fractions.shape == (20000, 1, 1, 1)
    assert 0.7 <= float(fractions.min()) < 0.701 and 0.899 < float(fractions.max()) <= 0.9
    assert float(fractions.mean()) == pytest.approx(0.8, abs=5 * 0.2 / (12 * 20000) ** 0.5)


def test_range_of_the_feature_noise():
    torch.manual_seed(0)
    noise = FeatureNoise().draw(torch.zeros(2, 10, 50, 20))
    assert -0.3 <= float(noise.min()) < -0.299 and 0.299 < float(noise.max()) <= 0.3
    assert float(noise.mean()) == pytest.approx(0, abs=5 * 0.6 / (12 * 20000) ** 0.5)
    assert float(noise.std()) == pytest.approx(0.6 / 12**0.5, rel=0.02)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.8])
def test_dropout_drops_single_features_and_keeps_the_mean(p):
    torch.manual_seed(0)
    ones = torch.ones(4, 10, 50, 20)
    out = Dropout(p=p)(ones)
    kept = out != 0
    assert torch.allclose(out[kept], torch.tensor(1 / (1 - p)))
    spread = 5 * (p * (1 - p) / ones.numel()) ** 0.5
    assert float(kept.float().mean()) == pytest.approx(1 - p, abs=spread + 1e-6)
    if p:  # neither whole channels nor whole positions
        assert not (kept.all(dim=(2, 3)) | ~kept.any(dim=(2, 3))).any()
        assert (kept.any(dim=1) & ~kept.all(dim=1)).float().mean() > 0.5


def test_feature_dropout_erases_exactly_from_the_fraction_upwards():
    """Channel means 8 (the maximum), 6, just below 6, and less; the fraction 0.75 lies at 6 exactly."""
    below = float(np.nextafter(np.float32(6), np.float32(0)))
    means = torch.tensor([[8.0, 6.0, below], [7.0, -9.0, 0.0]])
    spread = torch.tensor([-2.0, 2.0])[:, None, None]  # two channels, low and high, with these means
    x = torch.stack((means, means))[None] + spread[None]
    x[0, :, 0, 2] = below  # adding and taking the mean would round
    out = FeatureDropout()(x, torch.full((1, 1, 1, 1), 0.75))
    erased = torch.tensor([[True, True, False], [True, False, False]])
    assert torch.equal(out[0] == 0, (erased | (x[0] == 0)))
    assert torch.equal(out[0][:, ~erased], x[0][:, ~erased]), "what is kept is neither moved nor scaled"


def test_feature_dropout_measures_each_sample_by_its_own_maximum():
    x = features(2)
    x[1] *= 1000
    fraction = torch.full((1, 1, 1, 1), 0.8)
    both = FeatureDropout()(x, fraction)
    assert torch.equal(both[0], FeatureDropout()(x[:1], fraction)[0])
    mean = x.numpy().mean(axis=1)
    for sample in range(2):
        expected = mean[sample] >= 0.8 * mean[sample].max()
        assert 0 < expected.sum() < expected.size
        assert np.array_equal((both[sample] == 0).all(dim=0).numpy(), expected)


@pytest.mark.parametrize("kind", ALL)
def test_gradient_passes(kind):
    x = features().requires_grad_()
    perturb = kind()
    draw = perturb.draw(x)
    perturb(x, draw).sum().backward()
    numeric = (perturb(x.detach() * 1.001, draw) - perturb(x.detach(), draw)) / (x.detach() * 0.001)
    torch.testing.assert_close(x.grad, numeric, rtol=0, atol=5e-3)


@pytest.mark.parametrize("kind", ALL)
def test_precision_is_kept(kind):
    assert kind()(features().to(torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "kind, arguments",
    [
        (FeatureDropout, {"low": 0.0}),
        (FeatureDropout, {"low": 0.9, "high": 0.7}),
        (FeatureNoise, {"amplitude": -0.1}),
        (Dropout, {"p": 1.0}),
        (Dropout, {"p": -0.1}),
    ],
)
def test_bad_arguments_are_told(kind, arguments):
    with pytest.raises(ValueError, match=str(next(iter(arguments.values())))):
        kind(**arguments)


def test_base_names_what_is_missing():
    class Half(Perturbation):
        pass

    with pytest.raises(TypeError, match="Half must define"):
        Half()(features())
