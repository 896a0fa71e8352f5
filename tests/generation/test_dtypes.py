"""Laws of number types: the same picture in each, the same bits in float32, and no picture from what overflowed."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.utils import is_accelerate_available

from mgcc_monai.errors import MGCCError
from mgcc_monai.generation import load_autoencoder
from mgcc_monai.generation.pipeline import LatentDiffusionPipeline
from mgcc_monai.networks.denoiser import Denoiser
from mgcc_monai.weights import write_checksums

FEW: dict[str, Any] = {"indices": [0, 5], "seed": 7, "num_inference_steps": 3}
CLOSE = 0.02  # mean absolute difference of an image in [0, 1]
HALVES = (torch.bfloat16, torch.float16)


def apart(images: torch.Tensor, others: torch.Tensor) -> float:
    """The largest of the images' mean absolute differences."""
    assert images.dtype == others.dtype == torch.float32 and images.shape == others.shape
    return float((images - others).abs().flatten(1).mean(1).max())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"guidance_scale": 3.0, "class_labels": "malignant"},
        {"scheduler": "DDPMScheduler"},
        {"scheduler": "EulerAncestralDiscreteScheduler"},
    ],
    ids=lambda options: options.get("scheduler", "guided" if options else "plain"),
)
def test_every_type_draws_the_same_picture(pipeline, new_pipeline, options):
    expected = pipeline(**FEW, **options)
    other = expected.flip(0)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        images = new_pipeline().to("cpu", dtype)(**FEW, **options)
        assert apart(images, expected) < (CLOSE if dtype in HALVES else 1e-5) < apart(other, expected)
        assert 0 <= images.min() and images.max() <= 1


@pytest.mark.parametrize("part", ["vae", "unet"])
def test_each_network_has_a_type_of_its_own(pipeline, new_pipeline, part):
    mixed = new_pipeline()
    getattr(mixed, part).to(torch.bfloat16)
    assert apart(mixed(**FEW), pipeline(**FEW)) < CLOSE
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    assert apart(mixed.reconstruct(images), pipeline.reconstruct(images)) < CLOSE
    assert torch.equal(mixed.reconstruct(images), pipeline.reconstruct(images)) == (part == "unet")
    assert mixed.encode(images.to(torch.bfloat16)).dtype == mixed.encode(images.double()).dtype == torch.float32


def test_noise_is_that_of_float32_and_an_image_needs_no_others(new_pipeline):
    half, seen = new_pipeline().to(torch.bfloat16), []
    half.unet.register_forward_pre_hook(lambda network, inputs: seen.append(inputs[0]))
    images = half(**{**FEW, "indices": range(6)}, output_type="pt")
    noise = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(state(7, 5)))
    first = seen[FEW["num_inference_steps"]]  # of the second group, which images 4 and 5 are in
    assert first.dtype == torch.bfloat16 and torch.equal(first[1], noise.to(torch.bfloat16))
    assert torch.equal(half(**FEW), images[[0, 5]])
    assert half(**FEW, output_type="pil")[0].mode == "L"


def state(seed: int, index: int) -> int:
    return int(np.random.SeedSequence([seed, 0, index]).generate_state(1, np.uint64)[0]) // 2


def test_the_default_type_of_torch_changes_nothing(new_pipeline, pipeline):
    expected = pipeline(**FEW)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(pipeline(**FEW), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_fingerprint_knows_the_type_and_is_in_float32_what_it_was(pipeline, new_pipeline):
    digest = hashlib.sha256(json.dumps([[0.1, -0.2, 0.3, 0.0], [1.0, 2.0, 0.5, 0.8]]).encode())
    for part in (pipeline.vae, pipeline.unet):
        for name, tensor in sorted(part.state_dict().items()):
            values = tensor.numpy()
            digest.update(f"{name}:{values.dtype}:{values.shape}:".encode() + values.tobytes())
    assert pipeline.fingerprint() == digest.hexdigest()[:16]
    kinds = [new_pipeline().to(dtype).fingerprint() for dtype in (torch.bfloat16, torch.float16, torch.float64)]
    assert len({*kinds, pipeline.fingerprint()}) == 4
    assert new_pipeline().to(torch.bfloat16).fingerprint() == kinds[0]


def test_a_saved_pipeline_of_bfloat16_is_read_again(new_pipeline, pipeline, tmp_path):
    half = new_pipeline().to(torch.bfloat16)
    half.save_pretrained(tmp_path / "pipeline")
    again = LatentDiffusionPipeline.from_pretrained(tmp_path / "pipeline", torch_dtype=torch.bfloat16)
    assert again.fingerprint() == half.fingerprint() and torch.equal(again(**FEW), half(**FEW))
    plain = LatentDiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    assert plain.unet.dtype == torch.float32 and apart(plain(**FEW), pipeline(**FEW)) < CLOSE
    mixed = {"unet": torch.bfloat16, "default": torch.float32}
    mixed_pipeline = LatentDiffusionPipeline.from_pretrained(tmp_path / "pipeline", torch_dtype=mixed)
    assert (mixed_pipeline.vae.dtype, mixed_pipeline.unet.dtype) == (torch.float32, torch.bfloat16)
    half.vae.save_pretrained(tmp_path / "vae")
    write_checksums(tmp_path / "vae")
    assert load_autoencoder(tmp_path).dtype == torch.float32


@pytest.mark.parametrize("dtype", ["bfloat16", "auto", torch.int8, torch.float8_e4m3fn, {"unet": "half"}], ids=str)
def test_types_that_cannot_be_computed_with_are_refused(saved_pipeline, new_pipeline, dtype):
    for name in ("torch_dtype", "dtype"):
        with pytest.raises(MGCCError, match=f"{name} .*: give one of torch.float32, torch.bfloat16"):
            LatentDiffusionPipeline.from_pretrained(saved_pipeline, **{name: dtype})
    if dtype == torch.float8_e4m3fn:
        with pytest.raises(MGCCError, match="float8_e4m3fn: give one of"):
            new_pipeline().to(dtype)(**FEW)


@pytest.mark.parametrize("part", ["unet", "decoder", "encoder", "infinite"])
def test_what_overflows_is_no_picture(new_pipeline, part):
    """In float16 65,504 is the largest number; an infinite pixel would be black or white once it is clipped."""
    half, images = new_pipeline(), torch.rand(2, 1, 32, 32)
    layer = {
        "unet": half.unet.conv_in,
        "decoder": half.vae.decoder.conv_in,
        "encoder": half.vae.encoder.conv_in,
        "infinite": half.vae.decoder.conv_out,
    }[part]
    with torch.no_grad():
        layer.weight.mul_(1e5)
    assert bool(torch.isfinite(half(**FEW)).all())
    half.to(torch.float16)
    draw = (lambda: half.encode(images)) if part == "encoder" else lambda: half(**FEW)
    with pytest.raises(MGCCError, match="not numbers; in float16 they overflow") as error:
        draw()
    assert "\n" not in str(error.value)


def test_pixels_that_are_whole_numbers_are_refused(pipeline):
    for dtype in (torch.uint8, torch.int64, torch.bool):
        with pytest.raises(MGCCError, match="give floating-point numbers"):
            pipeline.reconstruct(torch.ones(1, 1, 32, 32, dtype=dtype))


def test_the_denoiser_takes_float32_whatever_its_type(new_pipeline):
    unet, x = new_pipeline().unet.to(torch.bfloat16).eval(), torch.randn(2, 4, 8, 8)
    found = Denoiser(unet)(x, torch.tensor([1, 500]), torch.tensor([0, 2]))
    assert torch.equal(found, unet(x.bfloat16(), torch.tensor([1, 500]), class_labels=torch.tensor([0, 2])).sample)


def offload(network: torch.nn.Module) -> Any:
    """Keep a network's weights elsewhere until it computes, as the hooks of accelerate do; returns what frees them."""
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def loading(function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if network.device.type == "meta":
                network.to_empty(device="cpu").load_state_dict(weights)
            return function(*args, **options)

        return call

    for name in ("forward", "encode", "decode"):
        if hasattr(network, name):
            setattr(network, name, loading(getattr(network, name)))
    network._hf_hook = SimpleNamespace(execution_device=torch.device("cpu"))
    network.to("meta")
    return lambda: network.to("meta")


def test_networks_that_lie_elsewhere_until_they_compute(new_pipeline, pipeline, monkeypatch):
    offloaded, freed, images = new_pipeline(), [], torch.rand(2, 1, 32, 32)
    free = [offload(offloaded.unet), offload(offloaded.vae)]
    monkeypatch.setattr(offloaded, "maybe_free_model_hooks", lambda: freed.append([part() for part in free]))
    assert offloaded.device.type == "meta" and offloaded.group_size(1) == 4
    assert torch.equal(offloaded(**FEW), pipeline(**FEW)) and len(freed) == 1
    assert torch.equal(offloaded.reconstruct(images), pipeline.reconstruct(images)) and len(freed) == 2
    with pytest.raises(MGCCError, match="offloaded"):
        offloaded.fingerprint()


def test_offloading_of_diffusers_lacks_nothing_of_ours(new_pipeline):
    assert LatentDiffusionPipeline.model_cpu_offload_seq == "unet->vae"
    if not is_accelerate_available():
        with pytest.raises(ImportError, match="accelerate"):
            new_pipeline().enable_model_cpu_offload()
