"""What a method adds to the stock trainer of MONAI."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "diffusion": ["DiffusionPrepareBatch"],
        "growing": ["GrowingInferer"],
        "mean_teacher": ["MeanTeacherInferer"],
        "two_streams": ["TwoStreamPrepareBatch"],
    },
)
