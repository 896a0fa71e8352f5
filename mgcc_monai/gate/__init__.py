"""Which generated images may be trained on: quality limits and the memorisation audit."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"apply": ["apply_gate"]})
