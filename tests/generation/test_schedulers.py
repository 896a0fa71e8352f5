"""Laws of samplers: those with the noise of the training draw, however their steps lie, and no others."""

from __future__ import annotations

import json
import shutil

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

from mgcc_monai.errors import MGCCError
from mgcc_monai.generation.pipeline import LatentDiffusionPipeline
from mgcc_monai.generation.sample import generate
from mgcc_monai.generation.schedulers import _can_draw, new_scheduler

FEW = {"indices": [1], "seed": 7, "num_inference_steps": 3}
V = {"prediction_type": "v_prediction"}
NOISE = [
    ({"beta_schedule": "scaled_linear"}, ["scaled_linear", "linear"]),
    ({"beta_schedule": "squaredcos_cap_v2"}, ["squaredcos_cap_v2", "linear"]),
    ({"beta_start": 0.002}, ["0.002", "0.0001"]),
    ({"beta_end": 0.012}, ["0.012", "0.02"]),
    ({"trained_betas": [0.01] * 1000}, ["0.01", "None"]),
    ({"num_train_timesteps": 500}, ["500", "1000"]),
    ({"prediction_type": "epsilon"}, ["epsilon", "v_prediction"]),
    ({"prediction_type": "sample"}, ["sample", "v_prediction"]),
    ({"rescale_betas_zero_snr": True}, ["True", "False"]),
]


@pytest.mark.parametrize(("other", "words"), NOISE, ids=lambda value: next(iter(value)) if value else "")
@pytest.mark.parametrize("kind", [DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_other_noise_than_that_of_the_training_is_refused(pipeline, kind, other, words):
    with pytest.raises(MGCCError, match=rf"scheduler {kind.__name__}: {next(iter(other))} ") as error:
        pipeline(scheduler=kind(**{**V, **other}), **FEW)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_it_is_refused_wherever_a_scheduler_is_given(saved_pipeline, new_pipeline, tmp_path):
    other, fitting = (
        DDIMScheduler(beta_end=0.012, timestep_spacing="linspace", **V),
        DDIMScheduler(clip_sample=False, **V),
    )
    replaced = new_pipeline()
    replaced.scheduler = other
    for refused in (
        lambda: LatentDiffusionPipeline.from_pretrained(saved_pipeline, scheduler=other),
        lambda: replaced(**FEW),
        lambda: replaced.save_pretrained(tmp_path / "pipeline"),
        lambda: generate(new_pipeline(), tmp_path / "generated", num_images=1, scheduler=other),
        lambda: LatentDiffusionPipeline.from_pipe(new_pipeline(), scheduler=other)(**FEW),
    ):
        with pytest.raises(MGCCError, match="beta_end 0.012, the model was trained with 0.02"):
            refused()
    assert not list(tmp_path.iterdir())
    read = LatentDiffusionPipeline.from_pretrained(saved_pipeline, scheduler=fitting)
    assert read.scheduler is fitting
    assert torch.equal(read(**FEW), new_pipeline()(scheduler=fitting, **FEW))
    name = "EulerDiscreteScheduler"
    assert torch.equal(replaced(scheduler=name, **FEW), new_pipeline()(scheduler=name, **FEW))


def test_where_steps_lie_and_how_they_are_taken_is_free(pipeline):
    for scheduler in (
        DDIMScheduler(timestep_spacing="trailing", steps_offset=1, set_alpha_to_one=False, **V),
        DPMSolverMultistepScheduler(solver_order=1, algorithm_type="sde-dpmsolver++", use_karras_sigmas=True, **V),
        EulerDiscreteScheduler(timestep_spacing="leading", use_karras_sigmas=True, final_sigmas_type="zero", **V),
        DDPMScheduler(variance_type="fixed_large", clip_sample=False, **V),
    ):
        assert pipeline(scheduler=scheduler, **FEW).std() > 0


def test_latents_are_not_clipped_where_the_training_says_so(saved_pipeline, tmp_path):
    shutil.copytree(saved_pipeline, tmp_path / "pipeline")
    file = tmp_path / "pipeline" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "clip_sample": False}))
    read = LatentDiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    with pytest.raises(MGCCError, match="clip_sample True, the model was trained with False"):
        read(scheduler=DDIMScheduler(**V), **FEW)
    with pytest.raises(MGCCError, match="thresholding True, the model was trained with False"):
        read(scheduler=DPMSolverMultistepScheduler(thresholding=True, **V), **FEW)
    read(scheduler=DDIMScheduler.from_config(read.scheduler.config), **FEW)


@pytest.mark.parametrize("zero_snr", [False, True])
def test_a_named_scheduler_has_the_noise_of_the_training_or_is_refused(zero_snr):
    """Some cannot be rescaled to end in pure noise, and would go on without."""
    trained = DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.002, rescale_betas_zero_snr=zero_snr, clip_sample=False, **V
    )
    refused = []
    for name in (name for name in dir(diffusers) if _can_draw(getattr(diffusers, name, None))):
        try:
            made = new_scheduler(name, trained, 10)
        except MGCCError:
            refused.append(name)
            continue
        assert torch.allclose(made.alphas_cumprod.double(), trained.alphas_cumprod.double(), atol=1e-6), name
        assert made.config.prediction_type == "v_prediction"
    assert ("PNDMScheduler" in refused) == zero_snr and len(refused) < (9 if zero_snr else 1)
    with pytest.raises(MGCCError, match="CogVideoXDDIMScheduler"):
        new_scheduler("CogVideoXDDIMScheduler", trained, 10)
