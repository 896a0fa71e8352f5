"""Checks of options, data and weights before any work: what is refused, is refused first."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["generation", "leftovers", "resume", "segmentation", "shapes", "stages", "table", "weights"]
)
