"""Schedulers of diffusers by name: those that can draw with a given noise schedule."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

import diffusers
from diffusers import SchedulerMixin

from mgcc_monai.errors import MGCCError, one_line
from mgcc_monai.options import whole

__all__ = ["new_scheduler"]

# What another scheduler takes over: the noise that the denoiser was trained with, and where the steps lie.
_PROCESS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
_PROCESS += ("rescale_betas_zero_snr", "timestep_spacing", "steps_offset")
_OTHER = ("DPMSolverSDEScheduler", "DPMSolverMultistepInverseScheduler")  # draws without a generator; adds noise


def new_scheduler(
    scheduler: str | SchedulerMixin | None, default: SchedulerMixin, num_inference_steps: int, device: Any = "cpu"
) -> SchedulerMixin:
    """Return a scheduler of one's own with its steps set, so that nothing is carried from one call to the next.

    One that is named gets the noise schedule of ``default`` and else its own defaults; latents are never clipped.

    Args:
        scheduler: an object, the name of a class of diffusers, or None for one like ``default``.
        default: the model's own.
        num_inference_steps: number of steps.
        device: where the latents are.

    Raises:
        MGCCError: when there is no such scheduler, it cannot draw with this model, or not in so many steps.
    """
    if scheduler is None or scheduler == type(default).__name__:
        scheduler = default
    kind = getattr(diffusers, scheduler, None) if isinstance(scheduler, str) else type(scheduler)
    if not _can_draw(kind):
        name = scheduler if isinstance(scheduler, str) else kind.__name__
        known = [known for known in dir(diffusers) if _can_draw(getattr(diffusers, known, None))]
        near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.3) or known
        raise MGCCError(f"scheduler {name}: diffusers has no such one for this model; give {' or '.join(near)}.")
    if isinstance(scheduler, str):
        config = {name: default.config[name] for name in _PROCESS if name in default.config} | {"clip_sample": False}
    else:
        config = dict(scheduler.config)
    steps, most = whole(num_inference_steps, "num_inference_steps", 1), default.config.num_train_timesteps
    if steps > most:
        raise MGCCError(f"num_inference_steps {steps}: the model was trained with {most} steps; give no more.")
    taken = inspect.signature(kind.__init__).parameters
    try:
        made = kind(**{name: value for name, value in config.items() if name in taken})
        made.set_timesteps(steps, device=device)
    except (ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError) as error:
        reason = one_line(error)
        raise MGCCError(f"scheduler {kind.__name__} with {steps} steps: {reason}; give more, or another.") from None
    return made


def _can_draw(kind: Any) -> bool:
    """Whether a class is a scheduler for the noise of ``DDPMScheduler`` that diffusers steps in the usual way."""
    if not isinstance(kind, type) or not issubclass(kind, SchedulerMixin) or kind.__name__ in _OTHER:
        return False
    if "DDPMScheduler" not in kind._compatibles or not hasattr(kind, "step"):
        return False
    return list(inspect.signature(kind.step).parameters)[1:4] == ["model_output", "timestep", "sample"]
