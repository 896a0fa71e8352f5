"""Where a segmenter's weights are: by the name of a shipped one, by a run's folder, or by their file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mgcc_monai.errors import MGCCError
from mgcc_monai.weights import weights_in

__all__ = ["DEFAULT", "Found", "find_weights", "shipped"]

DEFAULT = "breast"
"""The shipped weights that are used where there is no run."""

_SETTINGS = "inference.json"


class Found(NamedTuple):
    """Weights, and the config that segments with them."""

    weights: Path
    config: Path


def shipped(bundle_root: str | Path) -> list[str]:
    """Return the names of the weights that come with a bundle."""
    return sorted(path.parent.name for path in Path(bundle_root).glob(f"models/*/{_SETTINGS}"))


def find_weights(name: str, bundle_root: str | Path) -> Found:
    """Return the weights that a user means.

    Args:
        name: one of :func:`shipped`; a run's folder, or its ``segmentation``; a file of weights beside its
            ``inference.json``; or nothing, for the run in ``runs`` or, where there is none, ``DEFAULT``.
        bundle_root: the bundle's folder.

    Raises:
        MGCCError: when there are none, or they have no ``inference.json``.
    """
    name = name or ("runs" if (Path("runs/segmentation") / _SETTINGS).is_file() else DEFAULT)
    path = Path(bundle_root) / "models" / name if name in shipped(bundle_root) else Path(name).expanduser()
    if path.is_file():
        weights, config = path, path.with_name(_SETTINGS)
    else:
        folder = next((one for one in (path, path / "segmentation") if (one / _SETTINGS).is_file()), path)
        weights, config = weights_in(folder), folder / _SETTINGS
    known = ", ".join(shipped(bundle_root)) or "none are shipped with this bundle"
    if not path.exists():
        raise MGCCError(
            f"--weights {name}: there is no such file, run or name; give a run's folder, or one of {known}."
        )
    if not weights.is_file():
        raise MGCCError(
            f"--weights {name}: holds no model.pt or model.safetensors; give a finished run, or one of {known}."
        )
    if not config.is_file():
        raise MGCCError(f"--weights {name}: there is no {_SETTINGS} beside {weights.name}; keep the two together.")
    return Found(weights.absolute(), config.absolute())
