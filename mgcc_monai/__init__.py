"""Multi-level global context cross consistency (MGCC) for ultrasound segmentation, as a MONAI bundle.

Source:
    Tang et al. 2023 (arXiv 2305.09447).
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "allocator",
        "data",
        "distributed",
        "evaluation",
        "gate",
        "generation",
        "handlers",
        "interop",
        "lock",
        "losses",
        "methods",
        "networks",
        "parse",
        "runs",
    ],
    submod_attrs={"compat": ["options", "preflight"], "errors": ["MGCCError"]},
)
