"""Schedulers of diffusers that can draw with the noise of a training, and drawing with them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import SchedulerMixin

from mgcc_monai.errors import MGCCError, one_line
from mgcc_monai.parse import parse_int

__all__ = ["denoise", "matching", "new_scheduler"]

_ERRORS = (ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError)

# The noise that the denoiser was trained with, and what stands for a setting that a scheduler does not have.
_NOISE = {
    **dict.fromkeys(("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")),
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "use_flow_sigmas": False,
}
_STEPS = ("timestep_spacing", "steps_offset")  # where they lie: taken over too, but free
_CLIPPING = ("clip_sample", "thresholding")  # latents lie beyond [-1, 1]
_OTHER = ("DPMSolverSDEScheduler", "DPMSolverMultistepInverseScheduler")  # draws without a generator; adds noise
_OTHER += ("CogVideoXDDIMScheduler",)  # shifts the noise schedule


def new_scheduler(
    scheduler: str | SchedulerMixin | None,
    default: SchedulerMixin,
    num_inference_steps: int,
    device: Any = "cpu",
    trained: SchedulerMixin | None = None,
) -> SchedulerMixin:
    """Return a scheduler of one's own with its steps set, so that nothing is carried from one call to the next.

    One that is named gets the noise schedule of the training and else its own defaults; latents are never clipped.

    Args:
        scheduler: an object, the name of a class of diffusers, or None for one like ``default``.
        default: the model's own.
        num_inference_steps: number of steps.
        device: where the latents are.
        trained: the one whose noise the denoiser learned; None takes ``default``.

    Raises:
        MGCCError: when there is no such scheduler, its noise is not that of the training, or it cannot draw with this
            model, or not in so many steps.
    """
    steps, most = parse_int(num_inference_steps, "num_inference_steps", 1), default.config.num_train_timesteps
    if steps > most:
        raise MGCCError(f"num_inference_steps {steps}: the model was trained with {most} steps; give no more.")
    made = matching(scheduler, default, trained or default)
    try:
        made.set_timesteps(steps, device=device)
    except _ERRORS as error:
        reason = one_line(error)
        raise MGCCError(
            f"scheduler {type(made).__name__} with {steps} steps: {reason}; give more, or another."
        ) from None
    return made


def matching(scheduler: Any, default: SchedulerMixin, trained: SchedulerMixin) -> SchedulerMixin:
    """Return a new scheduler whose noise is that of the training; see :func:`new_scheduler`."""
    if scheduler is None or scheduler == type(default).__name__:
        scheduler = default
    kind = getattr(diffusers, scheduler, None) if isinstance(scheduler, str) else type(scheduler)
    if not _can_draw(kind):
        name = scheduler if isinstance(scheduler, str) else kind.__name__
        known = [known for known in dir(diffusers) if _can_draw(getattr(diffusers, known, None))]
        near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.3) or known
        raise MGCCError(f"scheduler {name}: diffusers has no such one for this model; give {' or '.join(near)}.")
    if isinstance(scheduler, str):
        config = {name: default.config[name] for name in _STEPS if name in default.config} | {"clip_sample": False}
        config |= {name: trained.config[name] for name in _NOISE if name in trained.config}
    else:
        config = dict(scheduler.config)
    taken = inspect.signature(kind.__init__).parameters
    try:
        made = kind(**{name: value for name, value in config.items() if name in taken})
    except _ERRORS as error:
        raise MGCCError(f"scheduler {kind.__name__}: {one_line(error)}; give another.") from None
    _check_noise(made, trained)
    return made


def _check_noise(scheduler: SchedulerMixin, trained: SchedulerMixin) -> None:
    """Refuse a scheduler with other noise settings than those of the training."""
    name, found, wanted = type(scheduler).__name__, scheduler.config, trained.config
    pairs = {key: (found.get(key, plain), wanted.get(key, plain)) for key, plain in _NOISE.items()}
    pairs |= {key: (found[key], wanted[key]) for key in _CLIPPING if key in found and key in wanted}
    for key, (own, learned) in pairs.items():
        if np.asarray(own).tolist() != np.asarray(learned).tolist():
            shown = f"{key} {str(own)[:60]}, the model was trained with {str(learned)[:60]}"
            raise MGCCError(f"scheduler {name}: {shown}; give it the same, or give its name alone.")
    own, learned = (np.asarray(one.alphas_cumprod, np.float64) for one in (scheduler, trained))
    if own.shape != learned.shape or not np.allclose(own, learned, rtol=1e-4, atol=1e-6):
        ends = f"alphas_cumprod ends at {own[-1]:.3g}, that of the training at {learned[-1]:.3g}"
        raise MGCCError(f"scheduler {name}: {ends}; give another.")


def denoise(
    unet: Any,
    sampler: SchedulerMixin,
    generators: Sequence[torch.Generator],
    labels: torch.Tensor | None,
    guidance_scale: float,
    device: Any,
) -> torch.Tensor:
    """Go from noise to latents BCHW. All is float32 but what the denoiser computes, whatever its type.

    Args:
        unet: the denoiser; where it has classes, the last one is the null class.
        sampler: of :func:`new_scheduler`, not used before.
        generators: of each image, on the CPU.
        labels: classes, B; None for a denoiser that knows none.
        guidance_scale: weight of the class against the null class.
        device: where the denoiser computes.
    """
    config, plain = unet.config, {"dtype": torch.float32, "device": "cpu"}
    sides = [config.sample_size] * 2 if isinstance(config.sample_size, int) else list(config.sample_size)
    noise = [torch.randn(config.in_channels, *sides, generator=generator, **plain) for generator in generators]
    latents = torch.stack(noise).to(device) * sampler.init_noise_sigma
    draws = {"generator": list(generators)} if "generator" in inspect.signature(sampler.step).parameters else {}
    for timestep in sampler.timesteps:
        seen = sampler.scale_model_input(latents, timestep).to(unet.dtype)
        predicted = unet(seen, timestep, class_labels=labels, return_dict=False)[0].float()
        if labels is not None and guidance_scale != 1:
            null = torch.full_like(labels, config.num_class_embeds - 1)
            unguided = unet(seen, timestep, class_labels=null, return_dict=False)[0].float()
            predicted = unguided + guidance_scale * (predicted - unguided)
        latents = sampler.step(predicted, timestep, latents, **draws).prev_sample
    return latents


def _can_draw(kind: Any) -> bool:
    """Whether a class is a scheduler for the noise of ``DDPMScheduler`` that diffusers steps in the usual way."""
    if not isinstance(kind, type) or not issubclass(kind, SchedulerMixin) or kind.__name__ in _OTHER:
        return False
    if "DDPMScheduler" not in kind._compatibles or not hasattr(kind, "step"):
        return False
    return list(inspect.signature(kind.step).parameters)[1:4] == ["model_output", "timestep", "sample"]
