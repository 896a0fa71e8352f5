"""Other people's files."""

from mgcc_monai.interop.authors import convert

__all__ = [
    "convert",
]
