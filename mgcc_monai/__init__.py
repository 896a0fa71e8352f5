"""Multi-level global context cross consistency (MGCC) for ultrasound segmentation, as a MONAI bundle.

Source:
    Tang et al. 2023 (arXiv 2305.09447).
"""

__version__ = "0.1.0"

from mgcc_monai import (  # noqa: E402
    data,
    engines,
    evaluation,
    generation,
    handlers,
    lock,
    losses,
    networks,
    options,
    preflight,
)
from mgcc_monai.errors import MGCCError  # noqa: E402

__all__ = [
    "MGCCError",
    "data",
    "engines",
    "evaluation",
    "generation",
    "handlers",
    "lock",
    "losses",
    "networks",
    "options",
    "preflight",
]
