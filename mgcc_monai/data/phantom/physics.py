"""How a scanner turns a scene into a B-mode image: the convolution model of ultrasound, at baseband.

Dense random scatterers, weighted by the echogenicity of the tissue, are convolved with a point spread function that
widens away from the focus, attenuated, demodulated to their envelope and compressed to a range in dB (Bamber and
Dickinson, Phys. Med. Biol. 25, 1980; Meunier and Bertrand, IEEE Trans. Biomed. Eng. 42, 1995). Dense scatterers make
fully developed speckle, whose envelope is Rayleigh distributed with a mean 1.91 times its standard deviation (Wagner
et al., IEEE Trans. Sonics Ultrason. 30, 1983). The carrier is omitted; the envelope does not depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter1d

from mgcc_monai.data.phantom.anatomy import Scene

__all__ = ["Scanner", "convolve_psf", "draw_scanner", "form_image", "lateral_sigma", "log_compress", "scatterers"]


@dataclass(frozen=True)
class Scanner:
    """The settings of an acquisition.

    Attributes:
        spacing_mm: side of a pixel.
        axial_mm: standard deviation of the pulse envelope along depth.
        waist_mm: lateral standard deviation of the beam at the focus.
        focus_mm: depth of the focus.
        range_mm: distance from the focus at which the beam is 1.41 times as wide.
        looks: number of independent envelopes that are compounded.
        noise_db: electronic noise at the surface, relative to fibroglandular tissue.
        dynamic_range_db: range from black to white.
        white_db: level shown as white, relative to fibroglandular tissue.
    """

    spacing_mm: float
    axial_mm: float = 0.1
    waist_mm: float = 0.2
    focus_mm: float = 18.0
    range_mm: float = 14.0
    looks: int = 1
    noise_db: float = -50.0
    dynamic_range_db: float = 58.0
    white_db: float = 24.0


def scatterers(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.complex64]:
    """Draw dense random scatterers: circular complex Gaussian white noise of unit mean power, HW."""
    parts = rng.standard_normal((*shape, 2), dtype=np.float32)
    parts *= np.float32(np.sqrt(0.5))
    return parts.view(np.complex64)[..., 0]


def lateral_sigma(depth_mm: NDArray[np.floating], scanner: Scanner) -> NDArray[np.floating]:
    """Return the width (standard deviation, mm) of a Gaussian beam at a depth: a hyperbola, narrowest at the focus."""
    return scanner.waist_mm * np.sqrt(1 + ((depth_mm - scanner.focus_mm) / scanner.range_mm) ** 2)


@lru_cache(maxsize=1)
def _beam(shape: tuple[int, int], scanner: Scanner) -> tuple[NDArray[np.float32], int]:
    """Return the beam's Fourier transform per row, scaled to unit energy of the spread function, and its length."""
    height, width = shape
    axial = scanner.axial_mm / scanner.spacing_mm
    depth = (np.arange(height) + 0.5) * scanner.spacing_mm
    across = lateral_sigma(depth, scanner)[:, None] / scanner.spacing_mm
    length = fft.next_fast_len(width + int(4 * across.max()))
    transfer = np.exp(-2 * (np.pi * across * fft.fftfreq(length)) ** 2)
    impulse = np.zeros(int(8 * axial) + 9)
    impulse[len(impulse) // 2] = 1
    energy = np.mean(transfer**2, axis=1, keepdims=True) * np.sum(gaussian_filter1d(impulse, axial) ** 2)
    return (transfer / np.sqrt(energy)).astype(np.float32), length


def convolve_psf(field: NDArray[np.complex64], scanner: Scanner) -> NDArray[np.complex64]:
    """Convolve a field with the point spread function at baseband, of unit energy at every depth.

    The pulse is Gaussian along depth. The beam is a lateral Gaussian with a different width in each row, applied
    exactly by Fourier transform.

    Args:
        field: complex HW; columns near the sides lack contributions from beyond them.
        scanner: the widths.

    Returns:
        The complex HW radio-frequency image at baseband. White noise of unit power keeps unit power.
    """
    transfer, length = _beam(field.shape, scanner)
    pulsed = gaussian_filter1d(field, scanner.axial_mm / scanner.spacing_mm, axis=0, mode="reflect")
    spectrum = fft.fft(pulsed, length, axis=1, overwrite_x=True)
    spectrum *= transfer
    return fft.ifft(spectrum, axis=1, overwrite_x=True)[:, : field.shape[1]]


def log_compress(envelope: NDArray[np.floating], dynamic_range_db: float, white_db: float) -> NDArray[np.uint8]:
    """Convert an envelope to 8 bits: ``white_db`` (relative to 1) to 255, ``dynamic_range_db`` below it to 0."""
    level = 20 * np.log10(np.maximum(envelope, 1e-6)) - white_db
    return np.round(255 * np.clip(1 + level / dynamic_range_db, 0, 1)).astype(np.uint8)


def form_image(scene: Scene, scanner: Scanner, rng: np.random.Generator) -> NDArray[np.floating]:
    """Image a scene: scatter, convolve, attenuate, add electronic noise, detect the envelope, compound the looks.

    Args:
        scene: the tissue, HW.
        scanner: the acquisition.
        rng: random number generator for the scatterers and the noise.

    Returns:
        The envelope, HW, relative to the root mean square of fibroglandular tissue without attenuation.
    """
    shape = scene.echo_db.shape
    amplitude = 10 ** (scene.echo_db / 20)
    gain = 10 ** (scene.shading_db / 20)
    depth = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None]
    noise = 10 ** ((scanner.noise_db + 10 * depth**2) / 20)  # time gain compensation amplifies it with depth
    thermal = scatterers(rng, shape) * noise  # one draw for all looks: it is visible only in dark areas
    total = np.zeros(shape, np.float32)
    for _ in range(scanner.looks):
        echo = convolve_psf(scatterers(rng, shape) * amplitude + scene.specular, scanner)
        total += np.abs(echo * gain + thermal)
    return total / scanner.looks


def draw_scanner(rng: np.random.Generator, spacing_mm: float, depth_mm: float) -> Scanner:
    """Draw the settings of an acquisition: gain, dynamic range, focus, resolution, noise and compounding vary.

    Args:
        rng: random number generator.
        spacing_mm: side of a pixel.
        depth_mm: depth of the image; the focus lies within it.
    """
    return Scanner(
        spacing_mm=spacing_mm,
        axial_mm=rng.uniform(0.09, 0.16),
        waist_mm=rng.uniform(0.18, 0.32),
        focus_mm=rng.uniform(0.25, 0.65) * depth_mm,
        range_mm=rng.uniform(10.0, 18.0),
        looks=int(rng.integers(2, 5)),
        noise_db=rng.uniform(-46.0, -38.0),
        dynamic_range_db=rng.uniform(54.0, 66.0),
        white_db=rng.uniform(21.0, 28.0),
    )
