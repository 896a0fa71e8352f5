"""Seeds that depend on numbers alone: the run's seed and what is drawn."""

from __future__ import annotations

import numpy as np

__all__ = ["torch_seed"]


def torch_seed(*numbers: int) -> int:
    """Mix whole numbers of at least 0 into a seed for ``torch``: half of the first 64 bits of their SeedSequence."""
    return int(np.random.SeedSequence([int(number) for number in numbers]).generate_state(1, np.uint64)[0]) >> 1
