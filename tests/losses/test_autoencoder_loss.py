"""Laws of the autoencoder's loss: what each part is and weighs, and whose gradients the adversarial part moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses import PatchAdversarialLoss, SSIMLoss
from monai.networks.nets import PatchDiscriminator
from skimage.metrics import structural_similarity
from torch import nn
from torch.distributions import Normal
from torch.distributions import kl_divergence as divergence

from mgcc_monai.losses import AutoencoderLoss
from mgcc_monai.losses.autoencoder import (
    discriminator_logits,
    kl_divergence,
    log_spectrum,
    mean_ssim,
    spectral_distance,
)

SIDE = 24


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(seed: int = 0, count: int = 2) -> torch.Tensor:
    return draw(seed, count, 1, SIDE, SIDE).mul(0.4).clamp(-1, 1)


def output(seed: int = 1) -> list[torch.Tensor]:
    return [pictures(seed), draw(seed + 10, 2, 3, 6, 6), draw(seed + 20, 2, 3, 6, 6)]


def discriminator() -> PatchDiscriminator:
    torch.manual_seed(3)
    return PatchDiscriminator(spatial_dims=2, channels=4, in_channels=1, num_layers_d=2, norm="INSTANCE")


def adversarial_loss(weight: float = 0.5, **weights: float) -> AutoencoderLoss:
    adversarial = PatchAdversarialLoss(criterion="least_squares")
    return AutoencoderLoss(**weights, adversarial_weight=weight, discriminator=discriminator(), adversarial=adversarial)


def test_kl_is_that_of_torch():
    mean, logvar = draw(1, 4, 3, 5, 6) * 2, draw(2, 4, 3, 5, 6)
    wanted = divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)).mean()
    assert float(kl_divergence(mean, logvar)) == pytest.approx(float(wanted), rel=1e-5)


def test_kl_by_hand():
    """A mean of 2 costs 2; a variance of e costs (e - 2) / 2; the standard normal costs nothing."""
    zero, one = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert float(kl_divergence(zero, zero)) == 0
    assert float(kl_divergence(2 * one, zero)) == pytest.approx(2)
    assert float(kl_divergence(zero, one)) == pytest.approx((np.e - 2) / 2, rel=1e-5)
    half = torch.cat([2 * one, zero])
    assert float(kl_divergence(half, torch.zeros(2, 1, 2, 2))) == pytest.approx(1), "a mean over all elements"


def test_perfect_reconstruction_leaves_the_kl_alone():
    image, (_, mean, logvar) = pictures(), output()
    loss = AutoencoderLoss(kl_weight=0.25)
    loss.detail_active = True
    value = float(loss([image.clone(), mean, logvar], image))
    assert loss.parts["l1"] == 0
    assert loss.parts["ssim"] == pytest.approx(0, abs=1e-5)
    assert loss.parts["spectral"] == pytest.approx(0, abs=1e-9)
    assert value == pytest.approx(0.25 * float(kl_divergence(mean, logvar)), abs=1e-5)


def test_parts_against_plain_numpy():
    image, made = pictures(), output()
    loss = AutoencoderLoss()
    loss(made, image)
    a, b = made[0].double().numpy(), image.double().numpy()
    assert loss.parts["l1"] == pytest.approx(np.abs(a - b).mean(), rel=1e-5)
    # scikit-image's own SSIM, on the windows that lie wholly inside the image
    maps = [
        structural_similarity(x[0], y[0], data_range=2, gaussian_weights=True, use_sample_covariance=False, full=True)
        for x, y in zip(a, b)
    ]
    inner = np.mean([full[5:-5, 5:-5].mean() for _, full in maps])
    assert loss.parts["ssim"] == pytest.approx(1 - inner, rel=1e-3)


def test_data_range_counts():
    image, made = pictures(), output()
    found = []
    for data_range in (1.0, 2.0):
        loss = AutoencoderLoss(data_range=data_range)
        loss(made, image)
        found.append(loss.parts["ssim"])
    assert found[0] != pytest.approx(found[1], rel=1e-3)


@pytest.mark.parametrize("name", ["ssim", "spectral", "kl"])
def test_each_weight_counts_its_own_part(name):
    image, made = pictures(), output()
    without = {"ssim_weight": 0.0, "spectral_weight": 0.0, "kl_weight": 0.0}
    bare = AutoencoderLoss(**without)
    l1 = float(bare(made, image))
    assert l1 == pytest.approx(bare.parts["l1"]) and l1 > 0.1
    for weight in (1.0, 3.0):
        loss = AutoencoderLoss(**{**without, f"{name}_weight": weight})
        loss.detail_active = True
        assert float(loss(made, image)) - l1 == pytest.approx(weight * loss.parts[name], rel=1e-4)
        assert loss.parts[name] > 0.01


def test_discriminator_is_not_the_losses_own():
    """Otherwise the loss's weights would be saved, moved and optimised with it."""
    loss = adversarial_loss()
    assert list(loss.parameters()) == []
    judges = [module for module in loss.modules() if isinstance(module, PatchDiscriminator)]
    assert judges == []


def test_spectral_part_waits_for_its_switch():
    image, made = pictures(), output()
    loss = AutoencoderLoss(spectral_weight=0.5)
    before = float(loss(made, image))
    assert list(loss.parts) == ["l1", "ssim", "kl"]
    loss.detail_active = True
    value = float(loss(made, image))
    assert value - before == pytest.approx(0.5 * loss.parts["spectral"], rel=1e-3)
    assert loss.parts["spectral"] == pytest.approx(float(spectral_distance(made[0], image)), rel=1e-6)


def bands_by_numpy(image: np.ndarray) -> np.ndarray:
    """Power of a windowed image by vertical and horizontal frequency, one coefficient after the other."""
    side = image.shape[0]
    window = np.outer(np.hanning(side), np.hanning(side))
    window /= np.sqrt(np.square(window).mean())
    power = np.abs(np.fft.fft2((image - image.mean()) * window, norm="ortho")) ** 2
    count = side // 8
    found: dict[tuple[int, int], list[float]] = {}
    for row, y in enumerate(np.fft.fftfreq(side)):
        for column in range(side // 2 + 1):
            band = tuple(min(int(abs(f) * 2 * count), count - 1) for f in (y, column / side))
            found.setdefault(band, []).append(power[row, column])
    return np.array([[np.mean(found[row, column]) for column in range(count)] for row in range(count)])


def test_log_spectrum_against_plain_numpy():
    images = pictures()
    wanted = np.log([bands_by_numpy(image[0].double().numpy()) + 1e-5 for image in images])
    assert log_spectrum(images).shape == (2, SIDE // 8, SIDE // 8)
    assert np.allclose(log_spectrum(images).numpy(), wanted, atol=1e-3)
    assert log_spectrum(torch.zeros(3, 1, 32, 64)).shape == (3, 4, 8)


@pytest.mark.parametrize(("vertical", "horizontal"), [(0.28, 0.0), (0.0, 0.41), (0.16, 0.34), (0.5, 0.5)])
def test_a_wave_lies_in_its_band(vertical, horizontal):
    y, x = np.mgrid[:64, :64]
    wave = torch.tensor(np.cos(2 * np.pi * (vertical * y + horizontal * x)), dtype=torch.float32)[None, None]
    bands = log_spectrum(wave)[0].exp()
    row, column = (min(int(f * 16), 7) for f in (vertical, horizontal))
    assert bands[row, column] == bands.max() and bands[row, column] > 0.7 * bands.sum()


def test_spectral_distance_tells_directions_apart():
    """Grain that is fine downwards is not replaced by as much grain that is fine sideways, nor by a checkerboard."""
    noise = draw(5, 8, 1, 64, 64) * 0.3
    downwards = nn.functional.avg_pool2d(noise, (1, 5), 1, (0, 2))
    sideways = nn.functional.avg_pool2d(noise, (5, 1), 1, (2, 0))
    assert float(spectral_distance(sideways, downwards)) > 1
    stripes = 0.1 * (-1.0) ** torch.arange(64).expand(8, 1, 64, 64)
    even = nn.functional.avg_pool2d(noise, 3, 1, 1)
    assert log_spectrum(even + stripes)[:, 0, -1].mean() > log_spectrum(noise)[:, 0, -1].mean() + 1
    assert float(spectral_distance(even + stripes, noise)) > float(spectral_distance(even, noise))


def test_spectral_distance_asks_for_strength_and_not_for_place():
    """White noise and other white noise of one strength are near; the same noise at half the strength is log 4 off."""
    first, other = draw(5, 8, 1, 64, 64) * 0.3, draw(6, 8, 1, 64, 64) * 0.3
    near = float(spectral_distance(other, first))
    assert near < 0.4
    assert float(spectral_distance(0.5 * first, first)) == pytest.approx(np.log(4), abs=0.01)
    assert float(spectral_distance(nn.functional.avg_pool2d(first, 3, 1, 1), first)) > 5 * near


@pytest.mark.parametrize("image", [torch.zeros(1, 1, 16, 16), torch.ones(2, 1, 7, 20)])
def test_spectral_distance_of_flat_images_has_gradients(image):
    made = (image + 1e-4 * draw(1, *image.shape)).requires_grad_()
    spectral_distance(made, image).backward()
    assert torch.isfinite(made.grad).all()


def test_adversarial_part_waits_for_its_switch():
    image, made = pictures(), output()
    loss = adversarial_loss(0.5, spectral_weight=0.0)
    before = float(loss(made, image))
    assert list(loss.parts) == ["l1", "ssim", "kl"]
    loss.detail_active = True
    value = float(loss(made, image))
    assert value - before == pytest.approx(0.5 * loss.parts["adversarial"], rel=1e-3)
    assert loss.parts["adversarial"] > 0.01
    heavy = adversarial_loss(2.0, spectral_weight=0.0)
    heavy.detail_active = True
    assert float(heavy(made, image)) - before == pytest.approx(2 * loss.parts["adversarial"], rel=1e-3)


def test_switch_without_discriminator_does_nothing():
    image, made = pictures(), output()
    loss = AutoencoderLoss(spectral_weight=0.0)
    before = float(loss(made, image))
    loss.detail_active = True
    assert float(loss(made, image)) == before


def test_generator_wants_its_patches_to_pass_for_real():
    """Least squares to 1 over the verdicts alone, not over the features of the layers before them."""
    loss = adversarial_loss()
    loss.detail_active = True
    made = output()
    loss(made, pictures())
    with torch.no_grad():
        layers = discriminator()(made[0])
    verdict = nn.functional.leaky_relu(layers[-1], 0.05) if loss.adversarial.activation else layers[-1]
    assert loss.parts["adversarial"] == pytest.approx(float((verdict - 1).square().mean()), rel=1e-5)
    features = torch.stack([(layer - 1).square().mean() for layer in layers]).mean()
    assert loss.parts["adversarial"] != pytest.approx(float(features), rel=1e-2)


def test_judge_takes_lists_and_tensors():
    layers = discriminator()(pictures())
    assert discriminator_logits(discriminator(), pictures()).shape == layers[-1].shape == (2, 1, *layers[-1].shape[2:])
    conv = nn.Conv2d(1, 1, 3)
    assert torch.equal(discriminator_logits(conv, pictures()), conv(pictures())), "and not the last image of the batch"


@pytest.mark.parametrize("active", [False, True])
def test_gradients_of_the_reconstruction(active):
    """With every other weight at nought, what the switch adds is a gradient through the discriminator."""
    loss = adversarial_loss(ssim_weight=0.0, spectral_weight=0.0, kl_weight=0.0)
    loss.detail_active = active
    made = [tensor.requires_grad_() for tensor in output()]
    loss(made, pictures()).backward()
    l1 = torch.sign(made[0] - pictures()).detach() / made[0].numel()
    assert torch.allclose(made[0].grad, l1, atol=1e-9) == (not active)
    assert not made[1].grad.any() and not made[2].grad.any()


def test_parts_hold_no_graph():
    made = [tensor.requires_grad_() for tensor in output()]
    loss = AutoencoderLoss()
    loss(made, pictures())
    assert all(type(value) is float for value in loss.parts.values())


@pytest.mark.parametrize("size", [(11, 11), (16, 40)])
def test_ssim_is_monais_and_so_are_its_gradients(size):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(2, 1, *size, generator=generator, dtype=torch.float64) * 2 - 1 for _ in range(2))
    a.requires_grad_()
    found, wanted = 1 - mean_ssim(a, b, 2.0), SSIMLoss(spatial_dims=2, data_range=2.0)(a, b)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    torch.testing.assert_close(*(torch.autograd.grad(x, a)[0] for x in (found, wanted)), rtol=1e-4, atol=1e-7)


def test_ssim_of_less_than_a_window_is_refused():
    with pytest.raises(ValueError, match="at least 11 pixels a side"):
        mean_ssim(torch.zeros(1, 1, 10, 20), torch.zeros(1, 1, 10, 20), 2.0)
