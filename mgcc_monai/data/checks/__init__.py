"""Checks of a dataset: ``python -m mgcc_monai check``."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"check": ["Check", "Finding"], "report": ["CHECKS", "Report", "check_dataset", "register"]}
)
