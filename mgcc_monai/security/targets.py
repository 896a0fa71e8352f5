"""What a config may name: modules, components and functions that run nothing but what they are for.

Everything is refused that is not listed here. Inside the listed packages, what reads code, downloads, or calls whatever
it is told to is refused again. Names are looked up in the installed packages, never in the bundle.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from monai.bundle import ComponentLocator

__all__ = ["MODULES", "argument_faults", "callable_fault", "target_fault"]

MODULES = {
    "ImageOps": "PIL.ImageOps",
    "diffusers": "diffusers",
    "ignite": "ignite",
    "math": "math",
    "mgcc_monai": "mgcc_monai",
    "monai": "monai",
    "np": "numpy",
    "numpy": "numpy",
    "os": "os",
    "torch": "torch",
}
"""The names that stand for a module in an expression; an import may bind these, to these modules, and no others."""

_OURS = ("data", "distributed", "engines", "evaluation", "generation", "handlers", "losses", "networks", "preflight")
_MONAI = ("data", "engines", "handlers", "inferers", "losses", "metrics", "networks", "optimizers", "transforms")
_PACKAGES = (
    *(f"mgcc_monai.{name}." for name in _OURS),
    *(f"monai.{name}." for name in _MONAI),
    "torch.nn.",
    "torch.optim.",
    "torch.utils.data.",
    "ignite.engine.",
    "ignite.handlers.",
    "ignite.metrics.",
    "diffusers.",
)
_SINGLE = {
    "mgcc_monai.lock.hold",
    "mgcc_monai.lock.release",
    "mgcc_monai.options.boolean",
    "mgcc_monai.options.whole",
    "monai.utils.set_determinism",
    *(f"torch.{name}" for name in ("Generator", "device", "tensor", "zeros", "ones", "arange", "linspace")),
}
# What a public function or class of the listed packages could be talked into, and so is refused: running files of
# code or TorchScript, downloads, connections, pickles, and calling by name what a string says.
_REFUSED = (
    "diffusers.pipelines.",
    "diffusers.loaders.",
    "diffusers.modular_pipelines.",
    "diffusers.utils.",
    "ignite.handlers.clearml_logger.",
    "ignite.handlers.fbresearch_logger.",
    "ignite.handlers.mlflow_logger.",
    "ignite.handlers.neptune_logger.",
    "ignite.handlers.polyaxon_logger.",
    "ignite.handlers.visdom_logger.",
    "ignite.handlers.wandb_logger.",
    "monai.data.torchscript_utils.",
    "monai.data.utils.pickle_",
    "monai.handlers.clearml_handlers.",
    "monai.handlers.mlflow_handler.",
    "monai.handlers.trt_handler.",
    "monai.losses.perceptual.",
    "monai.networks.nets.senet.load_state_dict",
    "monai.networks.nets.transchex.",
    "monai.networks.trt_compiler.",
    "monai.networks.utils.",
    "torch.optim.optimizer.register_",
    "torch.utils.data.graph",
    "torch.utils.data.backward_compatibility",
    "torch.utils.data.datapipes.",
)
_CONSTRUCTORS = {"from_config"}

# In expressions: what our own configs call or name, beside public names of our own package.
_EXPRESSIONS = {
    "diffusers.DPMSolverMultistepScheduler.from_config",
    "ignite.engine.Events",
    "monai.data.MetaTensor",
    "monai.handlers.from_engine",
    "monai.transforms.CopyItemsd",
    "monai.utils.set_determinism",
    "os.path.abspath",
    "os.path.basename",
    "os.path.dirname",
    "os.path.exists",
    "os.path.isdir",
    "os.path.isfile",
    "os.path.join",
    "torch.bfloat16",
    "torch.cuda.device_count",
    "torch.cuda.is_available",
    "torch.device",
    "torch.float16",
    "torch.float32",
    "torch.distributed.get_rank",
    "torch.distributed.get_world_size",
    "torch.distributed.is_initialized",
    "torch.nn.parallel.DistributedDataParallel",
    *(f"ignite.engine.Events.{name}_{when}" for name in ("ITERATION", "EPOCH") for when in ("STARTED", "COMPLETED")),
    *(f"ignite.engine.Events.{name}" for name in ("STARTED", "COMPLETED")),
    *(f"math.{name}" for name in ("ceil", "exp", "floor", "inf", "isfinite", "log", "log2", "pi", "sqrt")),
    *(f"numpy.{name}" for name in ("uint8", "uint16", "int32", "int64", "float16", "float32", "float64")),
    *(f"PIL.ImageOps.{name}" for name in ("autocontrast", "exif_transpose", "grayscale", "invert")),
}

_SWITCHES = {"allow_pickle": False, "trust_remote_code": False, "weights_only": True}
_NAMING = {"merger_cls": "monai.inferers", "reader": "monai.data", "writer": "monai.data"}
_FORBIDDEN = ("custom_pipeline", "pretrained_url", "pickle_module")


def _listed(name: str) -> bool:
    return (name in _SINGLE or name.startswith(_PACKAGES)) and not name.startswith(_REFUSED)


def _find(name: str) -> Any:
    """Find a dotted name, each step a module under its own name, or return a string that says why not."""
    parts = name.split(".")
    if any(not part.isidentifier() or part.startswith("_") for part in parts):
        return f"'{name}' is private or no name"
    thing: Any = None
    for index, part in enumerate(parts):
        path = ".".join(parts[: index + 1])
        if index == 0 or not hasattr(thing, part):
            try:
                thing = importlib.import_module(path)
            except Exception:  # whatever an installed package raises that cannot be imported
                return f"'{name}' is not installed here, so what it is cannot be told"
        else:
            thing = getattr(thing, part)
        if isinstance(thing, ModuleType) and thing.__name__ != path:
            return f"'{name}' reaches the module {thing.__name__}"
        if not isinstance(thing, ModuleType) and index < len(parts) - 1:
            rest = parts[index + 1 :]
            if not inspect.isclass(thing) or rest[0] not in _CONSTRUCTORS or len(rest) > 1:
                return f"'{name}' reaches into {path}"
    return thing


@functools.lru_cache(maxsize=4096)
def _fault(name: str) -> str:
    """Say what is wrong with the full name of a component, or nothing."""
    if not _listed(name):
        return f"'{name}' is not on the list of what a config may call"
    thing = _find(name)
    if isinstance(thing, str):
        return thing
    if not callable(thing):
        return f"'{name}' is nothing that can be called"
    true_name = f"{getattr(thing, '__module__', None) or name}.{getattr(thing, '__qualname__', '')}"
    if name not in _SINGLE and not _listed(true_name):  # what a listed module has only imported from elsewhere
        return f"'{name}' is {true_name}, which is not on the list of what a config may call"
    return ""


@functools.lru_cache(maxsize=1)
def _locator() -> ComponentLocator:
    return ComponentLocator()


def target_fault(target: Any) -> str:
    """Say what is wrong with the value of a ``_target_``.

    Args:
        target: the value, a full name or one of MONAI's bare names.

    Returns:
        One phrase; empty when it may be called.
    """
    if not isinstance(target, str):
        return "is no name"
    if target[:1] in ("$", "@", "%", ""):
        return f"'{target}' is worked out when the config runs, so what is called cannot be told"
    if "." in target:
        return _fault(target)
    homes = _locator().get_component_module_name(target)
    if not homes:
        return f"'{target}' is no component of MONAI"
    faults = [_fault(f"{home}.{target}") for home in ([homes] if isinstance(homes, str) else homes)]
    return next((fault for fault in faults if fault), "")


def callable_fault(name: str) -> str:
    """Say what is wrong with a name of a module's member in an expression, such as ``os.path.join``.

    Args:
        name: the full name.

    Returns:
        One phrase; empty when it may be used.
    """
    if name in _EXPRESSIONS:
        return ""
    if name.startswith("mgcc_monai."):
        return _fault(name)
    return f"'{name}' is not on the list of what an expression may use"


def argument_faults(component: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Find arguments of a component that would make it read code, download, or call what a string names.

    MONAI looks up a ``reader`` or ``writer`` that is a string wherever it points, ``subprocess.Popen`` for one.

    Args:
        component: a ``_target_`` dictionary, or what an overlay lays on one.

    Returns:
        Pairs of the argument and what is wrong with it.
    """
    faults = []
    for name, value in component.items():
        if name in _FORBIDDEN:
            faults.append((name, "makes the component load from elsewhere"))
        if name == "pretrained" and value is not False and "_target_" in component:
            faults.append((name, "makes the component download or read weights unverified; load them with a handler"))
        if name in _SWITCHES and value is not _SWITCHES[name]:
            faults.append((name, f"is {value!r}; only {str(_SWITCHES[name]).lower()} is allowed"))
        if name in _NAMING:
            for entry in value if isinstance(value, list) else [value]:
                if isinstance(entry, Mapping) or entry is None:
                    continue
                fault = target_fault(entry if "." in str(entry) or str(entry)[:1] in "$@%" else _reader(name, entry))
                faults += [(name, fault)] if fault else []
    if component.get("_mode_", "default") != "default":
        faults.append(("_mode_", f"is {component['_mode_']!r}, so what it is called with cannot be told; leave it out"))
    return faults


def _reader(argument: str, name: Any) -> str:
    return f"{_NAMING[argument]}.{name}"
