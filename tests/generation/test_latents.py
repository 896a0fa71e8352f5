"""Laws of the latents: what they are of, when the file of an earlier run is used, and draws that never change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from tiny import tiny_vae

from mgcc_monai.errors import MGCCError
from mgcc_monai.generation.latents import (
    class_names,
    class_proportions,
    encode_latents,
    fixed_noise_items,
    latent_items,
)
from mgcc_monai.networks.autoencoder import encode

SIDE = 16
KEY = {"dataset": "abc", "lists": ["training"], "image_size": [SIDE, SIDE], "autoencoder": "123"}


def tiny(seed: int = 0, scale: bool = True) -> AutoencoderKL:
    """An autoencoder that knows the scale of its latents of :func:`images`."""
    vae = tiny_vae(channels=4, seed=seed).eval()
    found = raw(vae) if scale else np.ones((1, 3, 1, 1))
    vae.register_to_config(
        latents_mean=found.mean((0, 2, 3)).tolist() if scale else [0.0] * 3,
        latents_std=found.std((0, 2, 3)).tolist() if scale else [1.0] * 3,
    )
    return vae


def images(count: int = 5) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [{"image": torch.rand(1, SIDE, SIDE, generator=generator) * 2 - 1} for _ in range(count)]


@torch.no_grad()
def raw(vae: AutoencoderKL, mirrored: bool = False) -> np.ndarray:
    """The posterior's means, image by image, as numpy sees them."""
    stack = torch.stack([item["image"] for item in images()]).numpy()
    stack = stack[..., ::-1].copy() if mirrored else stack
    return encode(vae, torch.from_numpy(stack)).mean.double().numpy()


class Counting:
    """The dataset, counting what is read of it."""

    def __init__(self, count: int = 5) -> None:
        self.items, self.read = images(count), 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        item = self.items[index]
        self.read += 1
        return item


def test_zero_mean_and_unit_deviation_by_channel(tmp_path):
    """When the statistics are those of the same images; otherwise they are what is left of the formula."""
    vae = tiny()
    found = encode_latents(vae, images(), tmp_path / "latents.safetensors", KEY, False).double().numpy()
    assert found.shape == (5, 3, SIDE // 2, SIDE // 2)
    np.testing.assert_allclose(found.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(found.std((0, 2, 3)), 1, atol=1e-5)
    assert np.ptp(vae.config.latents_mean) > 0.01 and np.ptp(vae.config.latents_std) > 0.01
    vae.register_to_config(latents_mean=[1.0, 2.0, 3.0], latents_std=[2.0, 4.0, 0.5])
    again = encode_latents(vae, images(), tmp_path / "other.safetensors", KEY, False).numpy()
    wanted = (raw(vae) - np.array([1, 2, 3])[:, None, None]) / np.array([2, 4, 0.5])[:, None, None]
    np.testing.assert_allclose(again, wanted, atol=1e-4)


def test_flips_are_the_encoded_mirror_images_behind_the_others(tmp_path):
    vae = tiny(scale=False)
    found = encode_latents(vae, images(), tmp_path / "latents.safetensors", KEY, True).numpy()
    assert len(found) == 10
    np.testing.assert_allclose(found[:5], raw(vae), atol=1e-5)
    np.testing.assert_allclose(found[5:], raw(vae, mirrored=True), atol=1e-5)
    assert not np.allclose(found[5:], found[:5, ..., ::-1], atol=1e-3), "mirrored latents are something else"


def test_second_run_reads_the_file(tmp_path):
    path, dataset = tmp_path / "latents.safetensors", Counting()
    first = encode_latents(tiny(), dataset, path, KEY, True)
    assert dataset.read == 10
    second = encode_latents(tiny(), dataset, path, dict(reversed(KEY.items())), True)
    assert dataset.read == 10 and torch.equal(first, second)
    assert [file.name for file in tmp_path.iterdir()] == ["latents.safetensors"]


@pytest.mark.parametrize(
    "change",
    [{"dataset": "abd"}, {"lists": ["training", "unlabeled"]}, {"image_size": [16, 32]}, {"autoencoder": "124"}],
)
def test_file_of_another_key_is_made_anew(change, tmp_path):
    path, dataset = tmp_path / "latents.safetensors", Counting()
    encode_latents(tiny(), dataset, path, KEY, False)
    other = encode_latents(tiny(seed=1), dataset, path, {**KEY, **change}, False)
    assert dataset.read == 10
    assert torch.equal(other, encode_latents(tiny(seed=1), images(), tmp_path / "fresh", KEY, False))
    encode_latents(tiny(), dataset, path, KEY, False)
    assert dataset.read == 15, "the file holds the newest alone"


def test_flips_and_number_of_images_belong_to_the_key(tmp_path):
    path = tmp_path / "latents.safetensors"
    sizes = [len(encode_latents(tiny(), images(n), path, KEY, f)) for n, f in ((5, False), (5, True), (4, True))]
    assert sizes == [5, 10, 8]


def plant(kind: str, path: Path) -> None:
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-7])
    elif kind == "header alone":
        path.write_bytes(path.read_bytes()[:40])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("these are no tensors, but there are enough letters for a length of a header")
    else:
        save_file({"latents": torch.zeros(5, 3, 8, 8)}, path)


@pytest.mark.parametrize("kind", ["truncated", "header alone", "empty", "text", "without a key"])
def test_damaged_and_foreign_files_are_made_anew(kind, tmp_path):
    path, dataset = tmp_path / "latents.safetensors", Counting()
    first = encode_latents(tiny(), dataset, path, KEY, False)
    plant(kind, path)
    assert torch.equal(encode_latents(tiny(), dataset, path, KEY, False), first)
    assert dataset.read == 10
    assert torch.equal(encode_latents(tiny(), dataset, path, KEY, False), first)
    assert dataset.read == 10, "the new file is whole"


def test_classes_of_some_lists():
    datalist: dict[str, list[dict[str, str]]] = {
        "training": [{"class": "malignant"}, {"class": "benign"}, {"class": "malignant"}],
        "unlabeled": [{"class": ""}, {}, {"class": "cyst"}],
        "validation": [{"class": "never seen"}],
    }
    assert class_names(datalist, ["training", "unlabeled"]) == ["benign", "cyst", "malignant"]
    assert class_names(datalist, ["unlabeled"]) == ["cyst"]
    assert class_names(datalist, []) == []


def test_class_mix_is_the_share_among_those_that_have_one():
    items = [{"class": name} for name in ["b", "m", "b", "", "b", "other"]] + [{}]
    assert class_proportions(items, ["b", "m"]) == [0.75, 0.25]
    assert class_proportions(items, ["m", "b"]) == [0.25, 0.75]
    assert class_proportions(items, []) == []
    with pytest.raises(MGCCError, match=r"--classes: no image .*'typo'.* b, m, other"):
        class_proportions(items, ["b", "typo"])


def test_items_have_the_numbers_of_their_classes():
    """No class, or one that is not learned: the null class, whose number is that of the classes."""
    items: list[dict[str, Any]] = [{"class": "m"}, {"class": "b"}, {"class": ""}, {"class": "other"}, {}]
    latents = torch.arange(10.0).reshape(10, 1, 1, 1)
    found = latent_items(latents, items, ["b", "m"])
    assert [item["class_label"] for item in found] == 2 * [1, 0, 2, 2, 2]
    assert [float(item["image"]) for item in found] == list(range(10)), "flips have the class of their image"
    assert [item["class_label"] for item in latent_items(latents[:5], items, [])] == [0] * 5


def test_classes_that_are_numbers_are_text():
    """And 0 is a class, as is one that is called None; no class at all is neither."""
    items = [{"class": 2}, {"class": "2"}, {"class": 0}, {"class": "None"}, {"class": None}, {}, {"class": ""}]
    assert class_names({"training": items}, ["training"]) == ["0", "2", "None"]
    assert class_proportions(items, ["0", 2, "None"]) == [0.25, 0.5, 0.25]
    found = latent_items(torch.zeros(7, 1, 2, 2), items, ["0", "2", "None"])
    assert [item["class_label"] for item in found] == [1, 1, 0, 2, 3, 3, 3]
    assert [item["class_label"] for item in latent_items(torch.zeros(7, 1, 2, 2), items, [2])][:3] == [0, 0, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_latents_of_every_type_are_float32_and_kept_apart(dtype, tmp_path):
    path, dataset = tmp_path / "latents.safetensors", Counting()
    plain = encode_latents(tiny(), dataset, path, KEY, False)
    found = encode_latents(tiny().to(dtype), dataset, path, KEY, False)
    assert found.dtype == plain.dtype == torch.float32 and dataset.read == 10, "of other weights, so made anew"
    assert 0 < float((found - plain).abs().mean()) < 0.05


def test_latents_that_are_not_numbers_are_not_kept(tmp_path):
    vae = tiny()
    with torch.no_grad():
        vae.encoder.conv_in.weight.mul_(1e6)
    encode_latents(vae, images(), tmp_path / "latents.safetensors", KEY, False)
    with pytest.raises(MGCCError, match="not numbers, in torch.float16"):
        encode_latents(vae.half(), images(), tmp_path / "half.safetensors", KEY, False)
    assert [path.name for path in tmp_path.iterdir()] == ["latents.safetensors"]


def held_out(count: int) -> list[dict[str, Any]]:
    latents = torch.randn(count, 2, 3, 4, generator=torch.Generator().manual_seed(3))
    return [{"image": latent, "class_label": index % 3} for index, latent in enumerate(latents)]


@pytest.mark.parametrize("count, bands, steps", [(1, 4, 1000), (7, 4, 1000), (40, 5, 1000), (300, 4, 1000), (3, 2, 10)])
def test_time_steps_are_spread_over_every_band(count, bands, steps):
    draws = fixed_noise_items(held_out(count), steps, bands, seed=1)
    assert len(draws) == count * bands
    times = np.array([draw["timesteps"] for draw in draws]).reshape(bands, count)
    width = steps / bands
    for band, row in enumerate(times):
        assert row.min() >= band * width and row.max() < (band + 1) * width
        ideal = (band + (np.arange(count) + 0.5) / count) * width
        assert np.all(np.abs(row - ideal) <= 1), "evenly, to the step"
    for band in range(bands):
        assert [draw["class_label"] for draw in draws[band * count : (band + 1) * count]] == [
            item["class_label"] for item in held_out(count)
        ]


def test_draws_are_functions_of_seed_band_and_place():
    items = held_out(6)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = fixed_noise_items(items, 1000, 4, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before), "training draws what it would without"
    second = fixed_noise_items(items, 1000, 4, seed=5)
    other = fixed_noise_items(items, 1000, 4, seed=6)
    assert all(torch.equal(a["noise"], b["noise"]) for a, b in zip(first, second))
    assert not any(torch.equal(a["noise"], b["noise"]) for a, b in zip(first, other))
    noises = torch.stack([draw["noise"] for draw in first])
    assert len(torch.unique(noises[:, 0, 0, 0])) == 24, "each band and image has its own"
    assert abs(float(noises.mean())) < 0.2 and float(noises.std()) == pytest.approx(1, abs=0.15)
    assert all("noise" not in item for item in items)
