"""Laws of the denoiser's loss: whatever the network predicts, a time step counts by min(SNR, gamma) on the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from mgcc_monai.losses import DiffusionLoss
from mgcc_monai.losses.diffusion import min_snr_weight

STEPS = torch.tensor([0, 3, 120, 480, 700, 930, 999])


def scheduler(prediction_type: str = "v_prediction") -> DDPMScheduler:
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.002,
        beta_end=0.02,
        prediction_type=prediction_type,
    )


def kept() -> np.ndarray:
    """Product of 1 - beta over the steps: alpha squared, made without diffusers."""
    return np.cumprod(1 - np.linspace(0.002**0.5, 0.02**0.5, 1000) ** 2)[STEPS.numpy()]


def draw(seed: int) -> torch.Tensor:
    return torch.randn(len(STEPS), 2, 4, 5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 5.0, 1e6])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_weight_on_the_clean_image_is_min_snr_gamma(gamma, prediction_type):
    """An error d of the clean image is one of d * alpha / sigma of the noise, and of d / sigma of the velocity."""
    snr = torch.logspace(-6, 6, 121, dtype=torch.float64)
    alpha, sigma = (snr / (1 + snr)).sqrt(), (1 / (1 + snr)).sqrt()
    factor = alpha / sigma if prediction_type == "epsilon" else 1 / sigma
    counted = min_snr_weight(snr, gamma, prediction_type) * factor.square()
    np.testing.assert_allclose(counted.numpy(), np.minimum(snr.numpy(), gamma), rtol=1e-9)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_noise_and_velocity_are_one_loss_on_the_same_clean_image(gamma):
    """The same guess of the clean image, told as noise or as velocity, costs the same, step by step."""
    clean, noise, guess = draw(1).double(), draw(2).double(), draw(3).double()
    square = torch.from_numpy(kept())[:, None, None, None]
    alpha, sigma = square.sqrt(), (1 - square).sqrt()
    noisy = alpha * clean + sigma * noise
    guessed_noise = (noisy - alpha * guess) / sigma
    pairs = {
        "epsilon": (guessed_noise, noise),
        "v_prediction": (alpha * guessed_noise - sigma * guess, alpha * noise - sigma * clean),
    }
    error = (guess - clean).square().flatten(1).mean(1).numpy()
    wanted = np.minimum(kept() / (1 - kept()), gamma) * error
    for name, (pred, target) in pairs.items():
        loss = DiffusionLoss(scheduler(name), min_snr_gamma=gamma)
        for index in range(len(STEPS)):
            one = slice(index, index + 1)
            value = float(loss(pred[one], [target[one], STEPS[one]]))
            assert value == pytest.approx(wanted[index], rel=2e-3), (name, int(STEPS[index]))
        assert float(loss(pred, [target, STEPS])) == pytest.approx(wanted.mean(), rel=2e-3)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_gamma_nought_is_the_plain_error(prediction_type):
    pred, target = draw(4), draw(5)
    loss = DiffusionLoss(scheduler(prediction_type))
    wanted = float(torch.nn.functional.mse_loss(pred, target))
    assert float(loss(pred, [target, STEPS])) == pytest.approx(wanted, rel=1e-6)
    assert float(loss(pred, [target, STEPS.flip(0)])) == pytest.approx(wanted, rel=1e-6)


def test_parts_hold_the_unweighted_error():
    pred, target = draw(4), draw(5)
    loss = DiffusionLoss(scheduler(), min_snr_gamma=1.0)
    value = float(loss(pred, [target, STEPS]))
    assert loss.parts["error"] == pytest.approx(float(torch.nn.functional.mse_loss(pred, target)), rel=1e-6)
    assert value != pytest.approx(loss.parts["error"], rel=1e-2)


def test_weights_go_with_their_own_samples():
    """An error in a sample of weak signal counts less than the same in one of strong signal."""
    target = draw(6)
    loss = DiffusionLoss(scheduler("v_prediction"), min_snr_gamma=5.0)
    snr = kept() / (1 - kept())
    wanted = np.minimum(snr, 5) / (snr + 1) / len(STEPS)
    found = []
    for index in range(len(STEPS)):
        pred = target.clone()
        pred[index] += 1  # a squared error of 1 in this sample alone
        found.append(float(loss(pred, [target, STEPS])))
    np.testing.assert_allclose(found, wanted, rtol=2e-3)
    assert max(found) > 5 * min(found)


def test_gradient_is_that_of_the_weighted_error():
    pred, target = draw(7).requires_grad_(), draw(8)
    loss = DiffusionLoss(scheduler("epsilon"), min_snr_gamma=2.0)
    loss(pred, [target, STEPS]).backward()
    snr = kept() / (1 - kept())
    weight = torch.from_numpy(np.minimum(snr, 2) / snr).float()[:, None, None, None]
    assert torch.allclose(pred.grad, 2 * weight * (pred - target).detach() / pred.numel(), rtol=5e-3, atol=1e-8)


@pytest.mark.parametrize("gamma", [0.0, 5.0])
def test_another_prediction_type_is_refused(gamma):
    with pytest.raises(ValueError, match="'sample'"):
        min_snr_weight(torch.ones(2), gamma, "sample")
