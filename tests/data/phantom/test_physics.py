"""The laws of speckle, attenuation and display that the image formation keeps."""

from __future__ import annotations

import numpy as np
import pytest

from mgcc_monai.data.phantom.anatomy import Scene, smooth_noise
from mgcc_monai.data.phantom.physics import Scanner, convolve_psf, form_image, lateral_sigma, log_compress, scatterers

SCANNER = Scanner(spacing_mm=0.1)


def speckle(seed=0, shape=(420, 640), scanner=SCANNER):
    """The field of homogeneous tissue, without the columns that the sides reach."""
    return convolve_psf(scatterers(np.random.default_rng(seed), shape), scanner)[:, 40:-40]


def flat_scene(shape=(200, 400), echo_db=0.0, shading_db=0.0):
    zeros = np.zeros(shape, np.float32)
    return Scene(zeros + echo_db, zeros, zeros + shading_db, zeros.astype(np.uint8))


def snr(envelope):
    return envelope.mean() / envelope.std()


def gaussian_width(field, axis):
    """The standard deviation of the Gaussian kernel whose white noise has the field's correlation one pixel apart."""
    first, second = np.delete(field, -1, axis), np.delete(field, 0, axis)
    correlation = np.mean(first * second.conj()).real / np.mean(np.abs(field) ** 2)
    return 1 / np.sqrt(-4 * np.log(correlation))


def test_fully_developed_speckle_is_rayleigh():
    envelope = np.abs(speckle())
    assert snr(envelope) == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.03)  # 1.91
    assert np.mean(envelope**2) == pytest.approx(1, rel=0.03)
    assert np.median(envelope) == pytest.approx(np.sqrt(np.log(2)), rel=0.03)


def test_the_point_spread_function_has_unit_energy_at_every_depth():
    power = np.mean([np.mean(np.abs(speckle(seed)) ** 2, axis=1) for seed in range(8)], axis=0)
    bands = power.reshape(6, -1).mean(axis=1)
    np.testing.assert_allclose(bands, 1, rtol=0.08)


def test_speckle_is_as_wide_as_the_beam_and_grows_away_from_the_focus():
    scanner = Scanner(spacing_mm=0.1, focus_mm=15.0, range_mm=8.0)
    field = speckle(scanner=scanner)
    widths = {}
    for depth_mm in (1.0, 15.0, 29.0, 39.0):
        row = round(depth_mm / 0.1)
        band = field[row - 10 : row + 10]
        widths[depth_mm] = gaussian_width(band, 1) * 0.1
        assert widths[depth_mm] == pytest.approx(lateral_sigma(np.array(depth_mm), scanner), rel=0.1)
    assert widths[39.0] > widths[29.0] > 1.5 * widths[15.0]
    assert widths[1.0] > 1.5 * widths[15.0]
    axial = gaussian_width(field, 0) * 0.1
    assert axial == pytest.approx(scanner.axial_mm, rel=0.1)
    assert axial < widths[15.0]


def test_compounding_raises_the_speckle_snr_by_the_root_of_the_looks():
    quiet = {"spacing_mm": 0.1, "noise_db": -200.0}
    one = form_image(flat_scene(), Scanner(**quiet), np.random.default_rng(0))
    four = form_image(flat_scene(), Scanner(**quiet, looks=4), np.random.default_rng(0))
    assert snr(four[:, 30:-30]) == pytest.approx(2 * snr(one[:, 30:-30]), rel=0.08)


@pytest.mark.parametrize("change", [{"echo_db": -20.0}, {"shading_db": -20.0}])
def test_echogenicity_and_attenuation_scale_the_envelope(change):
    scanner = Scanner(spacing_mm=0.1, noise_db=-200.0)
    bright = form_image(flat_scene(), scanner, np.random.default_rng(1))
    dark = form_image(flat_scene(**change), scanner, np.random.default_rng(1))
    np.testing.assert_allclose(dark, bright / 10, rtol=1e-3, atol=1e-6)


def test_electronic_noise_is_the_floor():
    image = form_image(flat_scene(echo_db=-150.0), Scanner(spacing_mm=0.1, noise_db=-40.0), np.random.default_rng(2))
    top, bottom = 20 * np.log10(np.sqrt(np.mean(image[:20] ** 2))), 20 * np.log10(np.sqrt(np.mean(image[-20:] ** 2)))
    assert top == pytest.approx(-40, abs=1)
    assert bottom > top + 5  # time gain compensation lifts it


def test_log_compression_shows_decibels_evenly():
    grey = log_compress(10.0 ** (np.array([-80, -60, -30, 0, 6, 40]) / 20), 60.0, 0.0)
    assert grey.dtype == np.uint8
    assert grey.tolist() == [0, 0, 128, 255, 255, 255]
    assert log_compress(np.array([0.0]), 60.0, 0.0)[0] == 0


def test_smooth_noise_is_standard_and_as_long_as_asked():
    field = smooth_noise(np.random.default_rng(0), (200, 300), (4.0, 20.0))
    assert field.shape == (200, 300)
    assert (field.mean(), field.std()) == pytest.approx((0, 1), abs=1e-3)
    assert gaussian_width(field, 1) > 3 * gaussian_width(field, 0)
