"""Laws of the saved networks: what is in the folders, the scale of the latents, and what is told of broken ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from tiny import tiny_vae
from torch import nn

from mgcc_monai.errors import MGCCError
from mgcc_monai.files import sha256
from mgcc_monai.generation import load_autoencoder, save_autoencoder
from mgcc_monai.generation.storage import WEIGHTS, save_pipeline, weights_hash
from mgcc_monai.handlers import EMA
from mgcc_monai.networks import Autoencoder
from mgcc_monai.weights import CHECKSUMS, write_checksums

SIDE = 16


def network(seed: int = 0) -> Autoencoder:
    return Autoencoder(tiny_vae(channels=4, seed=seed))


def images(count: int = 7) -> torch.Tensor:
    return torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(2)) * 2 - 1


def loader(size: int = 3) -> list[dict[str, torch.Tensor]]:
    """Batches of unequal size, which a mean of means would get wrong."""
    return [{"image": part} for part in images().split(size)]


def moved(net: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return net


@torch.no_grad()
def latents(vae: AutoencoderKL) -> np.ndarray:
    folded = torch.cat([images()[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=1)
    return vae.encode(folded).latent_dist.mean.double().numpy()


@pytest.fixture
def saved(tmp_path: Path) -> dict[str, Any]:
    """An autoencoder that trained three steps, saved, and what its averaged weights were."""
    net = network()
    ema = EMA(net, decay=0.9)
    for seed in (1, 2, 3):
        moved(net, seed)
        ema.model.step(net.parameters())
    own = [weight.detach().clone() for weight in net.parameters()]
    average = [weight.clone() for weight in ema.model.shadow_params]
    save_autoencoder(net, ema, loader(), str(tmp_path))
    return {"folder": tmp_path, "net": net, "own": own, "average": average}


def test_diffusers_reads_the_averaged_weights(saved):
    vae = AutoencoderKL.from_pretrained(str(saved["folder"] / "vae"), local_files_only=True)
    found = dict(vae.named_parameters())
    names = [name for name, _ in saved["net"].vae.named_parameters()]
    kept = [name for name in names if "quant_conv" not in name]  # the two beside the latents are turned
    averaged, own = dict(zip(names, saved["average"])), dict(zip(names, saved["own"]))
    assert list(found) == names and len(kept) == len(names) - 4
    assert all(torch.equal(found[name], averaged[name]) for name in kept)
    assert not torch.allclose(found[kept[0]], own[kept[0]], atol=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(saved["net"].parameters(), saved["own"])), "training keeps its own"
    assert sorted(path.name for path in (saved["folder"] / "vae").iterdir()) == ["config.json", WEIGHTS, CHECKSUMS]
    net = network()
    net.vae.load_state_dict(averaged)
    with torch.no_grad():
        torch.testing.assert_close(Autoencoder(vae).eval()(images()), net.eval()(images()), rtol=0, atol=1e-5)


def test_config_holds_the_scale_of_the_averaged_latents(saved):
    config = json.loads((saved["folder"] / "vae" / "config.json").read_text())
    vae = load_autoencoder(saved["folder"])
    found = latents(vae)
    np.testing.assert_allclose(config["latents_mean"], found.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(config["latents_std"], found.std((0, 2, 3)), rtol=1e-4)


def test_loaded_autoencoder_is_frozen(saved):
    vae = load_autoencoder(saved["folder"])
    assert not vae.training and not any(weight.requires_grad for weight in vae.parameters())


def test_autoencoder_that_has_not_learned_leaves_what_was_there(saved):
    before = sha256(saved["folder"] / "vae" / WEIGHTS)
    broken = Autoencoder(network().vae)
    broken.vae.quant_conv.weight.data[1] = 0
    weights = [weight.detach().clone() for weight in broken.parameters()]
    with pytest.raises(MGCCError, match="says nothing"):
        save_autoencoder(broken, EMA(broken), loader(), str(saved["folder"]))
    assert sha256(saved["folder"] / "vae" / WEIGHTS) == before
    assert all(torch.equal(a, b) for a, b in zip(broken.parameters(), weights))


def test_only_the_main_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("mgcc_monai.generation.storage.is_main_process", lambda: False)
    net = network()
    save_autoencoder(net, EMA(net), loader(), str(tmp_path))
    save_pipeline(None, EMA(net), str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_missing_autoencoder_is_told_with_what_to_run(tmp_path):
    with pytest.raises(MGCCError, match=r"vae: there is no trained autoencoder.*train_autoencoder\.json"):
        load_autoencoder(tmp_path)


def test_weights_without_a_config_are_none(saved):
    (saved["folder"] / "vae" / "config.json").unlink()
    with pytest.raises(MGCCError, match="there is no trained autoencoder"):
        load_autoencoder(saved["folder"])


def damage(path: Path, kind: str) -> None:
    if kind == "truncated":
        (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:-100])
    elif kind == "empty":
        (path / WEIGHTS).write_bytes(b"")
    elif kind == "gone":
        (path / WEIGHTS).unlink()
    elif kind == "pickle":
        (path / WEIGHTS).unlink()
        torch.save(network().vae.state_dict(), path / WEIGHTS.replace("safetensors", "bin"))
    elif kind == "config":
        (path / "config.json").write_text("{ half a conf")
    else:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, "block_out_channels": [16]}))


@pytest.mark.parametrize("kind", ["truncated", "empty", "gone", "pickle", "config", "another shape"])
def test_damaged_folders_are_told_in_one_line(kind, saved):
    """A pickle, which can run code, counts as no weights at all."""
    damage(saved["folder"] / "vae", kind)
    write_checksums(saved["folder"])
    with pytest.raises(MGCCError, match="vae: cannot be read as an autoencoder .*; train it again") as caught:
        load_autoencoder(saved["folder"])
    assert "\n" not in caught.value.message


def test_weights_are_those_that_were_saved(saved):
    """One flipped bit, which safetensors do not notice, and weights without a sha256."""
    path = saved["folder"] / "vae" / WEIGHTS
    content = bytearray(path.read_bytes())
    load_autoencoder(saved["folder"])
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(MGCCError, match=f"{WEIGHTS}: its sha256 is .* and {CHECKSUMS} says"):
        load_autoencoder(saved["folder"])
    (path.parent / CHECKSUMS).unlink()
    with pytest.raises(MGCCError, match=f"{WEIGHTS}: has no sha256 in a {CHECKSUMS} beside it"):
        load_autoencoder(saved["folder"])


def test_autoencoder_without_a_scale_is_refused(tmp_path):
    network().vae.save_pretrained(tmp_path / "vae")
    write_checksums(tmp_path)
    with pytest.raises(MGCCError, match="has no latents_mean and latents_std"):
        load_autoencoder(tmp_path)


class Pipeline:
    """Stands in for the pipeline over the network in training."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def save_pretrained(self, folder: Path, safe_serialization: bool) -> None:
        assert safe_serialization
        torch.save(self.net.state_dict(), Path(folder) / "weights")


def test_pipeline_is_saved_with_the_averaged_weights(tmp_path):
    net = nn.Linear(3, 2)
    ema = EMA(net)
    start = net.weight.detach().clone()
    moved(net, 1)
    own = net.weight.detach().clone()
    save_pipeline(Pipeline(net), ema, str(tmp_path))
    found = torch.load(tmp_path / "pipeline" / "weights", weights_only=True)
    assert torch.equal(found["weight"], start) and torch.equal(net.weight, own) and not torch.equal(start, own)


def test_hash_is_of_the_weights_in_order(tmp_path):
    for name, text in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / WEIGHTS).write_bytes(text)
        (tmp_path / name / "config.json").write_text(name)
    a, b, c = (tmp_path / name for name in "abc")
    assert weights_hash(a) == weights_hash(c) != weights_hash(b)
    assert weights_hash(a, b) == weights_hash(str(c), b)
    assert len({weights_hash(a, b), weights_hash(b, a), weights_hash(a), weights_hash(a, c)}) == 4
    with pytest.raises(MGCCError, match="there is no such file of weights"):
        weights_hash(a, tmp_path / "nowhere")
