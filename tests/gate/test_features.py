"""The feature network and the texture statistics against images whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mgcc_monai.data.phantom.write import make_phantom
from mgcc_monai.gate.features import (
    BANDS,
    ScatteringFeatures,
    band_power,
    check_images,
    distances,
    extract,
    intensity_statistics,
    power_bands,
    power_ratio,
    speckle_statistics,
    standardise,
    to_side,
)


def phantoms(count: int, seed: int = 0) -> Tensor:
    images = [make_phantom(seed, index, (128, 128)).image for index in range(count)]
    return torch.from_numpy(np.stack(images)).float()[:, None] / 255


def wave(frequency: float, amplitude: float = 0.3, side: int = 128, angle: float = 0.0) -> Tensor:
    """One image, a sinusoid about 0.5; ``frequency`` in cycles a pixel."""
    y, x = torch.meshgrid(torch.arange(side).double(), torch.arange(side).double(), indexing="ij")
    phase = 2 * math.pi * frequency * (x * math.cos(angle) + y * math.sin(angle))
    return (0.5 + amplitude * phase.sin())[None, None].float()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return phantoms(12)


@pytest.fixture(scope="module")
def network() -> ScatteringFeatures:
    return ScatteringFeatures()


def test_nothing_is_trained_stored_or_random(network: ScatteringFeatures, images: Tensor) -> None:
    assert not list(network.parameters()) and not network.state_dict()
    features = network(images)
    assert features.shape == (12, 272) and features.dtype == torch.float64 and features.isfinite().all()
    assert torch.equal(features, ScatteringFeatures()(images))


def test_the_name_stands_for_these_values(network: ScatteringFeatures) -> None:
    """Whoever changes the network changes its name, as docs/reproducing.md promises, and these values."""
    y, x = torch.meshgrid(torch.arange(128).double(), torch.arange(128).double(), indexing="ij")
    image = 0.5 + 0.2 * (0.3 * x + 0.1 * y).sin() + 0.15 * (0.9 * y).cos() + 0.1 * (2.1 * x - 0.4 * y).sin()
    features = network(image[None, None].float())[0]
    golden = [0.504222, 0.504086, -2.22736, -2.58299, -3.29041, -4.16022, -6.41265]
    assert network.name == "mgcc-scattering-v1"
    assert features[[0, 1, 17, 64, 128, 200, 271]].tolist() == pytest.approx(golden, rel=2e-4)
    assert float(features.sum()) == pytest.approx(-956.681, rel=2e-5)


def test_an_image_is_treated_by_itself(network: ScatteringFeatures, images: Tensor) -> None:
    together = extract(network, images, batch_size=12)
    for size in (1, 5):
        torch.testing.assert_close(extract(network, images, batch_size=size), together, rtol=0, atol=1e-5)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(extract(network, images[order]), together[order], rtol=0, atol=1e-5)


def test_other_sizes_are_brought_to_128(network: ScatteringFeatures, images: Tensor) -> None:
    larger = F.interpolate(images, scale_factor=(2, 3), mode="nearest")
    torch.testing.assert_close(network(larger), network(images), rtol=0, atol=1e-4)
    assert network(images[:, :, :100, :90]).shape == (12, 272)
    assert to_side(images) is images


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_even_images_have_finite_features(network: ScatteringFeatures, value: float) -> None:
    features = network(torch.full((2, 1, 128, 128), value))
    assert features.isfinite().all()
    torch.testing.assert_close(features[:, :8], torch.full((2, 8), value).double())


def test_the_finest_wavelet_answers_to_its_own_direction(network: ScatteringFeatures) -> None:
    for index in range(4):
        features = network(wave(0.35, angle=math.pi * index / 4))[0, 8:12]
        assert features.argmax() == index
        assert features.exp().max() > 2 * features.exp().sort().values[-2]


def test_scales_are_told_apart(network: ScatteringFeatures) -> None:
    fine, coarse = network(wave(0.35))[0], network(wave(0.35 / 4))[0]
    assert fine[8] > coarse[8] + 1
    assert coarse.argmax() != fine.argmax()


def test_what_matters_moves_the_features_more_than_another_image_does(
    network: ScatteringFeatures, images: Tensor
) -> None:
    reference = extract(network, phantoms(20, seed=5))
    own = standardise(extract(network, images), reference)
    usual = distances(own, own).fill_diagonal_(float("inf")).min(dim=1).values.median()
    noise = 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    shallow = images.clone()
    shallow[:, :, :24] = 0
    changes = {
        "blur": F.avg_pool2d(images, 3, 1, 1),
        "noise": (images + noise).clamp(0, 1),
        "contrast": 0.5 * images + 0.25,
        "no skin": shallow,
    }
    for name, changed in changes.items():
        moved = (standardise(extract(network, changed), reference) - own).norm(dim=1).median()
        assert moved > 0.8 * usual, name
    nudged = standardise(extract(network, images.roll(1, dims=3)), reference)
    assert (nudged - own).norm(dim=1).median() < 0.5 * usual


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(1, 3, 32, 32), "B1HW"),
        (torch.zeros(1, 1, 8, 32), "B1HW"),
        (torch.zeros(1, 1, 32, 32, dtype=torch.uint8), "floating"),
        (torch.full((1, 1, 32, 32), 255.0), r"\[0, 1\]"),
        (torch.full((1, 1, 32, 32), float("nan")), r"\[0, 1\]"),
    ],
)
def test_what_is_no_image_is_refused(bad: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_images(bad)


@pytest.mark.parametrize("angle", [0.0, 0.6, math.pi / 2])
@pytest.mark.parametrize(("band", "frequency"), [(0, 0.06), (1, 0.15), (2, 0.25), (3, 0.4)])
def test_a_sinusoid_counts_half_its_squared_amplitude_in_its_band(band: int, frequency: float, angle: float) -> None:
    power = band_power(wave(frequency, amplitude=0.3, angle=angle))[0]
    assert power[band].item() == pytest.approx(0.3**2 / 2, rel=0.01)
    assert power.sum() - power[band] < 1e-4


@pytest.mark.parametrize(("angle", "direction"), [(0.0, 0), (0.6, 0), (1.0, 1), (math.pi / 2, 1)])
def test_directions_share_out_the_power(angle: float, direction: int) -> None:
    """What changes downwards is axial, what changes sideways lateral, and the two make up the whole."""
    across = wave(0.4, amplitude=0.3, angle=0.0).diff(dim=3).abs().mean() > 0.01
    image = wave(0.4, amplitude=0.3, angle=angle)
    names = ("lateral", "axial") if across else ("axial", "lateral")
    parts = [band_power(image, name) for name in names]
    torch.testing.assert_close(sum(parts), band_power(image), rtol=1e-9, atol=1e-12)
    assert parts[direction][0, 3] > 100 * parts[1 - direction][0, 3]


def test_a_checkerboard_shows_in_its_direction(images: Tensor) -> None:
    """Stripes that make up for lost detail leave the ratio of all directions near 1, and not those of each."""
    even = F.avg_pool2d(images, 3, 1, 1)
    lost = (power_bands(images)["0.3-0.5"] - power_bands(even)["0.3-0.5"]) ** 0.5
    columns = torch.arange(images.shape[3])
    striped = (even + lost * 2**0.5 * torch.cos(2 * math.pi * 0.45 * columns)).clamp(0, 1)
    found = {name: power_ratio(striped, images, name)["0.3-0.5"] for name in ("all", "axial", "lateral")}
    assert 0.5 < found["all"] < 1.5 and found["axial"] < 0.3 and found["lateral"] > 1.5


def test_bands_of_white_noise_are_as_their_areas() -> None:
    noise = 0.5 + 0.1 * torch.randn(20, 1, 128, 96, generator=torch.Generator().manual_seed(0)).clamp(-4, 4)
    areas = [math.pi * (high**2 - low**2) for low, high in BANDS]
    for power, area in zip(power_bands(noise).values(), areas):
        assert power == pytest.approx(0.01 * area, rel=0.05)


def test_brightness_has_no_power_and_blur_takes_the_fine_detail(images: Tensor) -> None:
    torch.testing.assert_close(band_power(images * 0.5 + 0.3), band_power(images) / 4, rtol=1e-4, atol=1e-12)
    ratio = list(power_ratio(F.avg_pool2d(images, 3, 1, 1), images).values())
    assert ratio[0] > 0.8 and ratio == sorted(ratio, reverse=True) and ratio[3] < 0.1
    assert list(power_ratio(images, images).values()) == pytest.approx([1.0] * 4)
    assert set(power_ratio(images, torch.zeros(2, 1, 128, 128)).values()) == {None}


def test_intensities_are_those_of_numpy(images: Tensor) -> None:
    found, pixels = intensity_statistics(images), images.double().numpy()
    assert found["mean"] == pytest.approx(pixels.mean())
    assert found["std"] == pytest.approx(pixels.std())
    assert found["percentile_95"] == pytest.approx(np.percentile(pixels, 95))
    assert found["std_of_image_means"] == pytest.approx(pixels.mean(axis=(1, 2, 3)).std())


def test_speckle_of_known_size_and_contrast() -> None:
    noise = torch.randn(8, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    x = torch.arange(-12.0, 13.0)
    across, down = (torch.exp(-(x**2) / (2 * sigma**2)) for sigma in (1.6, 1.0))
    smooth = F.conv2d(F.conv2d(noise, across[None, None, None], padding="same"), down[None, None, :, None])
    smooth = F.pad(smooth, (0, 0, 12, 12), mode="reflect") / smooth.std()
    found = speckle_statistics((0.5 + 0.08 * smooth).clamp(0, 1))
    # the autocorrelation of a Gaussian of deviation s has the deviation s * sqrt(2); the local mean narrows it a little
    for name, sigma in (("width_x", 1.6), ("width_y", 1.0)):
        assert found[name] == pytest.approx(2 * math.sqrt(2 * math.log(2)) * math.sqrt(2) * sigma, rel=0.1)
    white = speckle_statistics((0.5 + 0.05 * noise).clamp(0, 1))
    assert white["snr"] == pytest.approx(10, rel=0.05) and white["width_x"] == pytest.approx(1, abs=0.1)


def test_dark_images_have_no_speckle_to_speak_of() -> None:
    assert speckle_statistics(torch.zeros(2, 1, 64, 64)) == {"snr": None, "width_x": None, "width_y": None}


def test_distances_and_standardising_by_hand() -> None:
    a, b = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[3.0, 4.0]])
    assert distances(a, b).tolist() == [[5.0], [0.0]]
    reference = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).double() * 7 + 3
    unit = standardise(reference, reference)
    torch.testing.assert_close(unit.mean(dim=0), torch.zeros(6).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(unit.std(dim=0), torch.ones(6).double())
