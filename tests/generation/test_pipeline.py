"""Laws of the pipeline: an image is a function of (seed, index), and diffusers reads what it saves."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler

from mgcc_monai.errors import MGCCError
from mgcc_monai.generation.pipeline import LatentDiffusionPipeline

FEW = {"seed": 7, "num_inference_steps": 3}
STOCHASTIC = ("DDPMScheduler", "EulerAncestralDiscreteScheduler")


@pytest.fixture(scope="module")
def drawn(pipeline) -> torch.Tensor:
    return pipeline(indices=range(16), **FEW)


def generators_state() -> tuple:
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


def noise_of(seed: int, index: int) -> torch.Tensor:
    state = int(np.random.SeedSequence([seed, 0, index]).generate_state(1, np.uint64)[0])
    return torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(state // 2))


def test_images(drawn):
    assert drawn.shape == (16, 1, 32, 32) and drawn.dtype == torch.float32
    assert drawn.min() >= 0 and drawn.max() <= 1 and drawn.std() > 0.02
    assert len({image.numpy().tobytes() for image in drawn}) == 16


def test_an_image_is_the_same_whatever_it_is_drawn_with(pipeline, drawn):
    assert torch.equal(pipeline(indices=range(7), batch_size=7, **FEW), drawn[:7])
    for index in (0, 5, 15):
        assert torch.equal(pipeline(indices=index, batch_size=1, **FEW)[0], drawn[index])
    assert torch.equal(pipeline(indices=[9, 2, 9, 14, 0], **FEW), drawn[[9, 2, 9, 14, 0]])


def test_batches_of_a_gpu_agree_to_rounding(new_pipeline, drawn):
    pipeline = new_pipeline()
    pipeline.group_size = lambda batch_size: batch_size
    for size, count in ((1, 3), (7, 7), (16, 16)):
        images = pipeline(indices=range(count), batch_size=size, **FEW)
        torch.testing.assert_close(images, drawn[:count], atol=1e-5, rtol=0)


def test_seeds_and_indices_differ(pipeline, drawn):
    other = pipeline(indices=range(4), seed=8, num_inference_steps=3)
    assert not any(torch.equal(a, b) for a in other for b in drawn)


def test_the_global_random_state_is_neither_used_nor_touched(pipeline, drawn):
    torch.manual_seed(99)
    before = generators_state()
    images = pipeline(indices=[3], **FEW)
    for name in STOCHASTIC:
        pipeline(indices=[3], scheduler=name, **FEW)
    assert generators_state() == before
    assert torch.equal(images[0], drawn[3])


@pytest.mark.parametrize("name", [*STOCHASTIC, "DDIMScheduler", "HeunDiscreteScheduler", "UniPCMultistepScheduler"])
def test_schedulers_by_name(pipeline, drawn, name):
    images = pipeline(indices=range(5), scheduler=name, **FEW)
    assert torch.isfinite(images).all() and images.std() > 0.02
    assert not torch.equal(images, drawn[:5])
    assert torch.equal(pipeline(indices=[3, 1], scheduler=name, **FEW), images[[3, 1]])


def test_a_scheduler_object_is_left_as_it_was(pipeline, drawn):
    mine = DDIMScheduler(prediction_type="v_prediction", timestep_spacing="linspace", clip_sample=False)
    mine.set_timesteps(11)
    steps, own = mine.timesteps.tolist(), pipeline.scheduler.timesteps.tolist()
    images = pipeline(indices=[2], scheduler=mine, **FEW)
    assert torch.equal(images, pipeline(indices=[2], scheduler="DDIMScheduler", **FEW))
    assert mine.timesteps.tolist() == steps and pipeline.scheduler.timesteps.tolist() == own
    assert torch.equal(pipeline(indices=[2], **FEW)[0], drawn[2])


def test_guidance_in_one_step_by_hand(pipeline):
    """DDIM from the last time step to none: x0 of the guided velocity, decoded."""
    scale, label, step = 3.0, 1, torch.tensor(999)
    noise = torch.stack([noise_of(7, index) for index in (4, 11, 4, 4)])
    with torch.no_grad():
        given, null = (pipeline.unet.eval()(noise, step, torch.full((4,), k)).sample for k in (label, 2))
        velocity = null + scale * (given - null)
        alpha = DDPMScheduler().alphas_cumprod[-1]
        latents = alpha.sqrt() * noise - (1 - alpha).sqrt() * velocity
        mean, std = (torch.tensor(pipeline.vae.config[f"latents_{k}"])[:, None, None] for k in ("mean", "std"))
        expected = pipeline.vae.decode(latents * std + mean).sample / 2 + 0.5
    scheduler = DDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing", clip_sample=False)
    scheduler.register_to_config(set_alpha_to_one=True)
    options = {"seed": 7, "num_inference_steps": 1, "scheduler": scheduler, "class_labels": "malignant"}
    images = pipeline(indices=[4, 11], guidance_scale=scale, **options)
    torch.testing.assert_close(images, expected[:2].clamp(0, 1), atol=1e-5, rtol=0)
    assert (images - pipeline(indices=[4, 11], **options)).abs().max() > 1e-4, "guidance does something"


def test_classes_follow_the_mix_and_the_index(pipeline):
    count = 2000
    for mix, share in ((None, 0.3), ([1, 3], 0.75), ([1, 0], 0.0), ([0.0, 0.2], 1.0)):
        numbers = pipeline.class_ids(range(count), seed=3, class_proportions=mix)
        assert abs(np.mean(numbers) - share) <= 4 * np.sqrt(share * (1 - share) / count)
        assert pipeline.class_ids([17, 5], seed=3, class_proportions=mix) == [numbers[17], numbers[5]]
    assert pipeline.class_ids(range(50), seed=3) != pipeline.class_ids(range(50), seed=4)


def test_classes_by_name_and_number(pipeline, drawn):
    numbers = pipeline.class_ids(range(4), seed=7)
    names = [pipeline.config.classes[number] for number in numbers]
    assert torch.equal(pipeline(indices=range(4), class_labels=names, **FEW), drawn[:4])
    assert torch.equal(pipeline(indices=range(4), class_labels=torch.tensor(numbers), **FEW), drawn[:4])
    one = pipeline(indices=range(2), class_labels="malignant", **FEW)
    assert torch.equal(one, pipeline(indices=range(2), class_labels=[1, 1], **FEW))
    assert not torch.equal(one, pipeline(indices=range(2), class_labels=0, **FEW))


def test_without_classes(new_pipeline):
    pipeline = new_pipeline(classes=())
    images = pipeline(indices=range(2), **FEW)
    assert images.shape == (2, 1, 32, 32) and pipeline.class_ids([0, 1]) is None
    for options in ({"guidance_scale": 2.0}, {"class_labels": "benign"}, {"class_proportions": [1.0]}):
        with pytest.raises(MGCCError, match="no class"):
            pipeline(**options)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"indices": []}, "indices"),
        ({"indices": [0, -1]}, "indices -1"),
        ({"indices": [0.5]}, "indices 0.5"),
        ({"seed": -1}, "seed -1"),
        ({"class_labels": "benignant"}, "class_labels benignant: no such class; the model knows 'benign', 'malignant'"),
        ({"class_labels": 2}, "class_labels 2: no such class"),
        ({"class_labels": ["benign"] * 3}, "3 for 1 images"),
        ({"class_proportions": [1.0]}, "give 2 shares"),
        ({"class_proportions": [0, 0]}, "give 2 shares"),
        ({"class_proportions": [2, -1]}, "give 2 shares"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"num_inference_steps": 0}, "num_inference_steps 0"),
        ({"num_inference_steps": 1001}, "trained with 1000 steps"),
        ({"scheduler": "DPMSolverMultistepSchedular"}, "give DPMSolverMultistepScheduler"),
        ({"scheduler": "PNDMScheduler", "num_inference_steps": 2}, "scheduler PNDMScheduler with 2 steps"),
        ({"scheduler": "UNet2DModel"}, "scheduler UNet2DModel"),
        ({"scheduler": "FlowMatchEulerDiscreteScheduler"}, "scheduler FlowMatch.*EulerDiscreteScheduler"),
        ({"scheduler": FlowMatchEulerDiscreteScheduler()}, "scheduler FlowMatch"),
        ({"output_type": "np"}, "output_type"),
    ],
)
def test_what_cannot_be_is_refused(pipeline, options, words):
    with pytest.raises(MGCCError, match=words) as error:
        pipeline(**options)
    assert "\n" not in str(error.value)


def test_encode_and_decode_are_the_autoencoder_with_a_scale(pipeline):
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(pipeline.vae.config[f"latents_{k}"])[:, None, None] for k in ("mean", "std"))
    with torch.no_grad():
        latents = pipeline.vae.encode(images * 2 - 1).latent_dist.mean
        rebuilt = (pipeline.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(pipeline.encode(images), (latents - mean) / std)
    torch.testing.assert_close(pipeline.reconstruct(images), rebuilt, atol=1e-5, rtol=0)


def test_networks_in_training_draw_the_same_and_go_on_training(new_pipeline, drawn):
    pipeline = new_pipeline()
    pipeline.unet.train()
    pipeline.vae.eval()
    assert torch.equal(pipeline(indices=[1], **FEW)[0], drawn[1])
    assert pipeline.unet.training and not pipeline.vae.training


def test_pictures(pipeline, drawn):
    pictures = pipeline(indices=range(2), output_type="pil", **FEW)
    assert [picture.mode for picture in pictures] == ["L", "L"]
    assert np.abs(np.asarray(pictures[1]) / 255 - drawn[1, 0].numpy()).max() <= 0.5 / 255 + 1e-6


def test_a_broken_model_is_told(new_pipeline):
    pipeline = new_pipeline()
    torch.nn.init.constant_(pipeline.unet.conv_out.weight, float("nan"))
    with pytest.raises(MGCCError, match="not numbers"):
        pipeline(**FEW)


def test_another_process_draws_the_same_from_the_saved_parts(pipeline, saved_pipeline, drawn, tmp_path):
    program = """
import sys, diffusers, torch
from mgcc_monai.generation.pipeline import LatentDiffusionPipeline
folder, result = sys.argv[1:]
pipeline = LatentDiffusionPipeline.from_pretrained(folder)
quiet = {"low_cpu_mem_usage": False}
vae = diffusers.AutoencoderKL.from_pretrained(folder, subfolder="vae", **quiet)
unet = diffusers.UNet2DModel.from_pretrained(folder, subfolder="unet", **quiet)
same = lambda a, b: all(torch.equal(x, b.state_dict()[n]) for n, x in a.state_dict().items())
assert same(vae, pipeline.vae) and same(unet, pipeline.unet) and list(vae.config.latents_std) == [1.0, 2.0, 0.5, 0.8]
options = {"indices": [12, 3], "seed": 7, "num_inference_steps": 3}
images = [pipeline(**options), pipeline(scheduler="DDPMScheduler", **options)]
torch.save([*images, pipeline.fingerprint()], result)
"""
    result = tmp_path / "images.pt"
    words = [sys.executable, "-c", program, str(saved_pipeline), str(result)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "components" not in done.stderr and "accelerate" not in done.stderr
    images, stochastic, fingerprint = torch.load(result)
    torch.testing.assert_close(images, drawn[[12, 3]], atol=1e-5, rtol=0)
    expected = pipeline(indices=[12, 3], scheduler="DDPMScheduler", **FEW)
    torch.testing.assert_close(stochastic, expected, atol=1e-5, rtol=0)
    assert fingerprint == pipeline.fingerprint()


def test_the_saved_config(pipeline, saved_pipeline):
    config = LatentDiffusionPipeline.from_pretrained(saved_pipeline).config
    assert config.classes == ["benign", "malignant"] and config.class_proportions == [0.7, 0.3]
    assert config.image_size == [32, 32] and config.provenance["dataset_hash"] == "d" * 64
    assert not list(saved_pipeline.rglob("*.bin")) and len(list(saved_pipeline.rglob("*.safetensors"))) == 2


def test_fingerprint_is_of_weights_and_scale(new_pipeline):
    pipeline = new_pipeline()
    first = pipeline.fingerprint()
    pipeline.vae.register_to_config(latents_mean=[0.1, -0.2, 0.3, 0.1])
    second = pipeline.fingerprint()
    with torch.no_grad():
        pipeline.unet.conv_out.bias[0] += 1e-6
    assert len({first, second, pipeline.fingerprint()}) == 3 and len(first) == 16


def damage(folder: Path, how: str) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    if how == "missing":
        shutil.rmtree(folder)
    elif how == "another pipeline":
        (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "DDPMPipeline"}))
    elif how == "another library":
        (folder / "model_index.json").write_text(json.dumps({**index, "unet": ["os", "UNet2DModel"]}))
    elif how == "no JSON":
        (folder / "model_index.json").write_text("{")
    elif how == "no weights":
        weights.unlink()
    elif how == "cut off":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif how == "other classes":
        (folder / "model_index.json").write_text(json.dumps({**index, "classes": ["benign"]}))


@pytest.mark.parametrize(
    "how", ["missing", "another pipeline", "another library", "no JSON", "no weights", "cut off", "other classes"]
)
def test_a_folder_that_cannot_be_read_is_told_in_a_line(saved_pipeline, tmp_path, how):
    folder = tmp_path / "pipeline"
    shutil.copytree(saved_pipeline, folder)
    damage(folder, how)
    with pytest.raises(MGCCError) as error:
        LatentDiffusionPipeline.from_pretrained(folder)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_parts_that_do_not_fit_are_refused(pipeline, new_pipeline):
    other = new_pipeline(classes=())
    with pytest.raises(MGCCError, match="knows 0 classes, 2 are named"):
        LatentDiffusionPipeline(pipeline.vae, other.unet, pipeline.scheduler, classes=["a", "b"])
    other.vae.register_to_config(latents_std=None)
    with pytest.raises(MGCCError, match="latents_std of 4 numbers"):
        LatentDiffusionPipeline(other.vae, other.unet, other.scheduler)
