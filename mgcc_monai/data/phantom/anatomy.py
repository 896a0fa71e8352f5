"""The scene of a breast phantom: reflection, scattering and attenuation, layer by layer.

All maps are HW arrays over depth (axis 0, down from the transducer) and lateral position (axis 1). Echogenicity is in
dB relative to fibroglandular tissue; lengths are drawn in mm, so a scene keeps its proportions at every image size.
The layers and the lesion signs (posterior enhancement and edge shadows of cysts; acoustic shadow, echogenic halo and
spiculated margin of malignant masses) follow Stavros et al. (Radiology 196, 1995) and the ACR BI-RADS lexicon. No
patient images were used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter1d

__all__ = ["KINDS", "Scene", "make_scene", "smooth_noise"]

KINDS = ("cyst", "solid", "shadowing", "normal")
_FAT_DB, _MUSCLE_DB, _SKIN_DB, _GEL_DB = -11.0, -10.0, 5.0, -60.0

_ANGLES = np.linspace(0, 2 * np.pi, 2048, endpoint=False)

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """The tissue that the sound passes through.

    Attributes:
        echo_db: diffuse echogenicity in dB relative to fibroglandular tissue, HW.
        specular: amplitude of mirror-like interfaces (1 is the mean amplitude of fibroglandular tissue), HW.
        shading_db: two-way attenuation that remains after time gain compensation, in dB, HW.
        label: 1 inside the lesion, uint8, HW.
    """

    echo_db: Array
    specular: Array
    shading_db: Array
    label: NDArray[np.uint8]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], lengths: tuple[float, float]) -> Array:
    """Make a smooth random field of zero mean and unit standard deviation.

    Args:
        rng: random number generator.
        shape: height and width of the field.
        lengths: size of its structures along depth and lateral position, in pixels.

    Returns:
        A float32 HW array.
    """
    cells = [max(int(np.ceil(side / max(length, 1.0))) + 3, 4) for side, length in zip(shape, lengths, strict=True)]
    coarse = Image.fromarray(rng.standard_normal(cells, dtype=np.float32))
    offset = rng.random(2)
    box = [offset[1], offset[0]]
    box += [box[0] + shape[1] / max(lengths[1], 1.0), box[1] + shape[0] / max(lengths[0], 1.0)]
    fits = (min(box[2], cells[1]), min(box[3], cells[0]))
    field = np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC, box=(box[0], box[1], *fits)))
    return (field - field.mean()) / (field.std() + 1e-6)


def _curve(rng: np.random.Generator, width: int, length: float) -> Array:
    """Make a smooth random function of lateral position with unit standard deviation (length in pixels)."""
    return smooth_noise(rng, (4, width), (4.0, length))[0]


def _step(distance: Array, softness: float) -> Array:
    """Go smoothly from 0 (negative distance) to 1 (positive distance) over about ``softness``."""
    return 1.0 / (1.0 + np.exp(-np.clip(4.0 * distance / softness, -30.0, 30.0)))


def _sheets(field: Array, thickness: float) -> tuple[Array, Array]:
    """Find the zero crossings of a smooth field as thin sheets.

    Args:
        field: a smooth HW field.
        thickness: thickness of the sheets, in pixels.

    Returns:
        The sheets (1 on them, 0 away from them), and how squarely each faces the beam (1 at a right angle, where
        specular reflection is visible).
    """
    down, across = np.gradient(field)
    slope = np.hypot(down, across) + 1e-6
    return np.exp(-0.5 * (field / (slope * thickness)) ** 2), np.abs(down) / slope


class _Layers:
    """The tissue without a lesion; ``echo_db``, ``specular`` and ``shading_db`` may be modified."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], spacing: float) -> None:
        height, width = shape
        self.rng, self.shape, self.spacing = rng, shape, spacing
        depth = height * spacing
        z = (np.arange(height, dtype=np.float32)[:, None] + 0.5) * spacing
        self.gel = float(rng.uniform(1.0, 3.5)) if rng.random() < 0.25 else float(rng.uniform(-0.8, 0.1))
        skin_line = self.gel + 0.25 * _curve(rng, width, width / 2) * (self.gel > 0.5)
        skin = skin_line + rng.uniform(1.1, 2.0) + 0.06 * _curve(rng, width, 6 / spacing)
        tilt = rng.normal(0.0, 0.06) * depth * np.linspace(-1, 1, width, dtype=np.float32)
        sag = 0.02 * depth * _curve(rng, width, width / 2)
        scallops = np.sqrt(_curve(rng, width, 9 / spacing) ** 2 + 0.2) * rng.uniform(0.01, 0.05) * depth
        fat_end = depth * rng.uniform(0.16, 0.34) + 0.5 * tilt + sag + scallops
        self.fat_end = np.maximum(fat_end, skin + 1.5)
        fascia = depth * rng.uniform(0.66, 0.86) + tilt + 0.8 * sag
        self.fascia = np.maximum(fascia, self.fat_end + 0.15 * depth)
        # Tissue planes run along the boundaries: textures are sampled in coordinates bent with them.
        rows = (
            z - (tilt + 1.5 * sag + 0.025 * depth * _curve(rng, width, width / 4)) * np.clip(z / depth, 0.0, 1.0)
        ) / spacing
        last = height - 1
        self.bend = np.clip(last - np.abs(last - np.abs(np.round(rows))), 0, last).astype(
            np.intp
        )  # mirrored at the ends
        self.top = float(np.max(skin))
        self.bottom = float(np.mean(self.fascia))

        in_skin, in_fat = _step(z - skin_line, 0.15), _step(z - skin, 0.2)
        in_gland, in_muscle = _step(z - self.fat_end, 0.5), _step(z - self.fascia, 0.3)
        retro = rng.uniform(0.0, 2.0) * (1 + 0.4 * _curve(rng, width, 9 / spacing))
        in_gland = in_gland * (1 - _step(z - (self.fascia - retro), 0.4))
        fat_db, fat_mirror = self._fat()
        gland_db, gland_mirror = self._gland()
        muscle_db, muscle_mirror = self._muscle()
        echo, mirror = np.full(shape, _GEL_DB, np.float32), np.zeros(shape, np.float32)
        for weight, tissue_db, tissue_mirror in (
            (in_skin, _SKIN_DB, 0.0),
            (in_fat, fat_db, fat_mirror),
            (in_gland, gland_db, gland_mirror),
            (in_muscle, muscle_db, muscle_mirror),
        ):
            echo += weight * (tissue_db - echo)
            mirror += weight * (tissue_mirror - mirror)
        for line, amplitude, thickness in ((skin_line, 2.2, 0.09), (skin, 1.2, 0.08), (self.fascia, 0.9, 0.10)):
            gain = amplitude * np.clip(0.7 + 0.35 * _curve(rng, width, 3 / spacing), 0.1, 1.4)
            mirror += gain * np.exp(-0.5 * ((z - line) / thickness) ** 2)
        self.echo_db, self.specular = echo.astype(np.float32), mirror.astype(np.float32)
        self.shading_db = self._shading(z, depth).astype(np.float32)

    def noise(self, down_mm: float, across_mm: float, bent: bool = True) -> Array:
        """Make smooth noise with structures of a given size in mm, along the tissue planes if ``bent``."""
        field = smooth_noise(self.rng, self.shape, (down_mm / self.spacing, across_mm / self.spacing))
        if not bent:
            return field
        return np.take_along_axis(field, self.bend, axis=0)

    def _wisps(self, down_mm: float, across_mm: float) -> Array:
        """Make scattered thin fibres along the tissue planes: 0 between them, about 1 on a strong one."""
        return np.clip(self.noise(down_mm, across_mm) - 0.7, 0.0, 2.0)

    def _fat(self) -> tuple[Array, Array]:
        """Fat: dark lobules between bright septa, brightest where perpendicular to the beam."""
        rng = self.rng
        cells = self.noise(rng.uniform(2.8, 4.5), rng.uniform(8.0, 14.0)) + 0.15 * self.noise(1.0, 3.0)
        septa, facing = _sheets(cells, 0.08 / self.spacing)
        seen = septa * np.clip(0.5 + 0.5 * self.noise(1.5, 5.0), 0.0, 1.5)
        echo = _FAT_DB + 2.0 * self.noise(2.0, 4.0) + 3.0 * self._wisps(0.35, 1.8) + 8.0 * seen
        return echo, 0.55 * seen * facing**4

    def _gland(self) -> tuple[Array, Array]:
        """Fibroglandular tissue: bright, streaked along its planes, with darker ducts and fat islands."""
        rng = self.rng
        streaks = 1.8 * self.noise(0.6, 3.0) + 2.4 * self.noise(1.4, 5.0) + 2.5 * self.noise(4.0, 9.0)
        islands = _step(self.noise(rng.uniform(1.6, 3.2), rng.uniform(4.0, 9.0)) - rng.uniform(0.2, 1.6), 0.7)
        fibres = self._wisps(0.4, rng.uniform(2.5, 5.0))
        return streaks - 8.0 * islands + 4.0 * fibres, 0.22 * fibres * (1 - islands)

    def _muscle(self) -> tuple[Array, Array]:
        """Muscle: dark, with long bright striations along the fascia."""
        fibres = self._wisps(0.4, self.rng.uniform(4.0, 8.0))
        return _MUSCLE_DB + 3.0 * self.noise(1.2, 8.0) + 5.0 * fibres, 0.12 * fibres

    def _shading(self, z: Array, depth: float) -> Array:
        """Residual of time gain compensation, poor contact at one side, and soft shadows below ligaments."""
        rng, width = self.rng, self.shape[1]
        x = np.linspace(0, 1, width, dtype=np.float32)
        deep = -rng.uniform(4.0, 26.0) * np.clip((z / depth - 0.35) / 0.65, 0, 1) ** 1.5
        shading = deep + 1.5 * _curve(rng, width, width / 4)
        for _ in range(rng.integers(0, 4)):
            centre, half, start = rng.random(), rng.uniform(0.015, 0.05), rng.uniform(0.15, 0.7) * depth
            band = np.exp(-0.5 * ((x - centre) / half) ** 2)
            shading = shading - rng.uniform(3.0, 8.0) * band * _step(z - start, 4.0)
        if rng.random() < 0.25:
            edge = x if rng.random() < 0.5 else 1 - x
            shading = shading - rng.uniform(8.0, 22.0) * np.clip(1 - edge / rng.uniform(0.06, 0.16), 0, 1)
        return shading


def _outline(rng: np.random.Generator, kind: str) -> Array:
    """Draw the outline of a lesion of area 1: its radius at each of ``_ANGLES`` (from the right, clockwise)."""
    angle = _ANGLES
    ratio = {"cyst": (0.5, 0.95), "solid": (0.42, 0.75), "shadowing": (0.7, 1.35)}[kind]
    aspect = float(rng.uniform(*ratio))
    lean = rng.normal(0.0, 0.15)
    radius = 1 / np.sqrt((aspect * np.cos(angle - lean)) ** 2 + np.sin(angle - lean) ** 2)
    strength = {"cyst": 0.03, "solid": 0.07, "shadowing": 0.08}[kind]
    for order in range(2, {"cyst": 4, "solid": 6, "shadowing": 11}[kind]):
        wave = np.cos(order * angle + rng.uniform(0, 2 * np.pi))
        radius = radius * (1 + strength * rng.normal() * wave * (2 / order) ** 0.5)
    if kind == "shadowing":
        for _ in range(rng.integers(5, 12)):
            away = np.abs((angle - rng.uniform(0, 2 * np.pi) + np.pi) % (2 * np.pi) - np.pi)
            radius = radius * (1 + rng.uniform(0.05, 0.2) * np.exp(-away / rng.uniform(0.05, 0.2)))
    radius = np.maximum(radius, 0.45 * radius.mean())
    return (radius / np.sqrt(np.pi * np.mean(radius**2))).astype(np.float32)


def _add_lesion(layers: _Layers, kind: str, margin: int) -> NDArray[np.uint8]:
    """Add a lesion of a kind to the tissue, at least ``margin`` pixels from both sides; return its mask."""
    rng, (height, width), mm = layers.rng, layers.shape, layers.spacing
    radii = _outline(rng, kind)
    reach_x, reach_z = np.max(np.abs(radii * np.cos(_ANGLES))), np.max(np.abs(radii * np.sin(_ANGLES)))
    inner = width - 2 * margin
    area = np.exp(rng.uniform(np.log(0.024), np.log(0.15))) * height * inner
    room = max(0.92 * layers.bottom / mm - layers.top / mm, 0.45 * height)
    size = min(np.sqrt(area), 0.5 * room / reach_z, 0.42 * inner / reach_x)
    reach_x, reach_z = size * reach_x, size * reach_z
    low, high = layers.top / mm + reach_z + 2, layers.top / mm + room - reach_z
    row = rng.uniform(low, max(high, low + 1))
    column = margin + rng.uniform(reach_x + 3, max(reach_x + 3, inner - reach_x - 3))

    # Only a window of 5 mm around the lesion is computed.
    top, left = max(int(row - reach_z - 5 / mm), 0), max(int(column - reach_x - 5 / mm), 0)
    window = np.s_[top : int(row + reach_z + 5 / mm), left : int(column + reach_x + 5 / mm)]
    echo, specular = layers.echo_db[window], layers.specular[window]
    down, across = np.indices(echo.shape, dtype=np.float32)
    down, across = down + np.float32(top - row), across + np.float32(left - column)
    spoke = np.round(np.arctan2(down, across) * (len(_ANGLES) / (2 * np.pi))).astype(np.intp)  # negative: from the end
    distance = (np.hypot(down, across) - np.float32(size) * radii[spoke]) * np.float32(mm)  # mm outside the margin
    slope_z, slope_x = np.gradient(distance)
    facing = slope_z / (np.hypot(slope_z, slope_x) + 1e-6)  # -1 on the near wall, 1 on the far wall
    squarely = facing**2 * facing**2
    if kind == "cyst":
        near = np.exp(np.minimum(distance, 0) / rng.uniform(0.6, 1.6)) * (1.0 - 0.6 * (down > 0))  # reverberation
        level = rng.uniform(-40.0, -30.0) + rng.uniform(4.0, 12.0) * near
        softness, behind, graze = 0.15, rng.uniform(6.0, 11.0), rng.uniform(2.0, 8.0)
        mirror = np.where(facing > 0, 0.7, 0.3) * squarely
    elif kind == "solid":
        texture = 1.8 * layers.noise(1.6, 3.0, bent=False) + 1.4 * layers.noise(0.6, 1.6, bent=False)
        level = rng.uniform(-23.5, -16.0) + texture[window]
        softness, behind, graze = 0.3, rng.uniform(-2.0, 5.0), rng.uniform(0.0, 3.0)
        patches = np.clip(0.6 + 0.6 * layers.noise(1.0, 2.5, bent=False)[window], 0, 1.5)
        mirror = rng.uniform(0.05, 0.35) * squarely * patches
    else:
        level = rng.uniform(-28.0, -20.0) + 2.5 * layers.noise(1.0, 2.0, bent=False)[window]
        softness, behind, graze, mirror = 0.8, rng.uniform(-24.0, -13.0), 0.0, np.float32(0)
        rays = np.clip(1 + 0.8 * _curve(rng, len(_ANGLES), 28.0)[spoke], 0, 2)
        halo = np.exp(-np.maximum(distance, 0) / rng.uniform(0.8, 1.6)) * _step(distance, 0.5)
        echo += rays * halo * np.maximum(4.0 - 0.6 * echo, 0)
    body = _step(-distance, softness)
    echo += body * (level - echo)
    specular *= 1 - body
    specular += np.exp(-0.5 * (distance / 0.12) ** 2) * mirror

    # Sound behind the lesion is stronger or weaker, and refracted away where it grazed the sides.
    label = np.zeros(layers.shape, np.uint8)
    label[window] = distance <= 0
    path = np.cumsum(label, axis=0, dtype=np.float32)
    path /= path.max()  # 0 above the lesion, up to 1 behind its thickest part
    if kind != "shadowing":
        path *= 1 - label
    layers.shading_db += behind * gaussian_filter1d(path, 0.5 / mm, axis=1, truncate=3.0)
    below = np.maximum((np.arange(height, dtype=np.float32)[:, None] - row) * mm, 0)
    spread = 0.05 * reach_x + 1 + 0.04 * below / mm
    for side in (-reach_x, reach_x):
        away = (np.arange(width, dtype=np.float32) - column - side) / spread
        layers.shading_db -= graze * np.exp(-0.5 * away**2 - below / 15) * np.minimum(below / 3, 1)
    return label


def make_scene(
    rng: np.random.Generator, kind: str, shape: tuple[int, int], spacing_mm: float, margin: int = 0
) -> Scene:
    """Draw a breast in cross-section: gel, skin, fat, gland, muscle and, except for ``normal``, one lesion.

    Args:
        rng: random number generator.
        kind: one of ``KINDS``.
        shape: height and width in pixels, including the margins.
        spacing_mm: side of a pixel in mm.
        margin: columns on each side with tissue but no lesion (cut off after the convolution).

    Returns:
        The scene.
    """
    layers = _Layers(rng, shape, spacing_mm)
    label = np.zeros(shape, np.uint8) if kind == "normal" else _add_lesion(layers, kind, margin)
    return Scene(layers.echo_db, layers.specular, layers.shading_db, label)
