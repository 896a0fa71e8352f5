"""Other tools' files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"authors": ["convert"], "export": ["choose_network"], "fast": ["FastRoute"]}
)
