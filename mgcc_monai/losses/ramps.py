"""Schedules as pure functions of progress."""

from __future__ import annotations

import math

__all__ = ["consistency_ramp"]


def consistency_ramp(
    current_step: int, *, max_iterations: int, weight: float = 7.0, ramp_fraction: float = 0.75, stair: int = 1
) -> float:
    """Weight of the consistency loss: ``weight * exp(-5 (1 - t)^2)``, t rising from 0 to 1, then ``weight``.

    The signature is what :class:`monai.handlers.ParamSchedulerHandler` calls: the step first, the rest by keyword.

    Args:
        current_step: iterations counted from 1, as ignite counts at the start of an iteration.
        max_iterations: length of the training, in iterations.
        weight: the final weight.
        ramp_fraction: the part of the training that the ramp takes; 0 means no ramp. The released code's fixed ramp
            of 30,000 iterations is ``30000 / max_iterations``, whatever it exceeds.
        stair: iterations for which the weight stands still; the released code changes it every 150.

    Returns:
        the weight of this iteration; never above ``weight``, however long training goes on.

    Raises:
        ValueError: when a length is not positive or the fraction negative.

    Source:
        Laine and Aila 2017 (arXiv 1610.02242), section 2, Gaussian ramp-up; its use in Tang et al. 2023.
    """
    if max_iterations < 1 or stair < 1 or ramp_fraction < 0:
        raise ValueError(
            "consistency_ramp needs max_iterations >= 1, stair >= 1 and ramp_fraction >= 0, "
            f"got {max_iterations}, {stair} and {ramp_fraction}."
        )
    length = ramp_fraction * max_iterations
    done = max(current_step - 1, 0) // stair * stair
    if done >= length:
        return float(weight)
    return weight * math.exp(-5.0 * (1.0 - done / length) ** 2)
