"""Exporting a trained segmenter for other run times, and running what was exported in place of the network."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mgcc_monai.errors import MGCCError, one_line
from mgcc_monai.files import try_writable, write_file
from mgcc_monai.runs.settings import read_trained

__all__ = ["FORMATS", "TOLERANCE", "Engine", "choose_network", "compile_openvino", "export"]

TOLERANCE = 1e-4  # of probabilities, to the network's own
_SUFFIXES = {"onnx": ".onnx", "torchscript": ".ts", "openvino": ".xml"}
_EXPORTS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}
_RUNS = {"onnx": ("onnxruntime",), "openvino": ("openvino",)}
_SETTINGS = ("image_size", "image_mean", "image_std", "threshold", "ckpt_sha256")
_OPSET = 20
_FILE = "mgcc_settings.json"


def export(weights: str, output: str, format: str = "onnx") -> Path:
    """Export a run's segmenter, and check that it gives the same probabilities.

    The exported network takes ``image`` (B1WH, normalised, sides that are multiples of 16) and gives ``pred``, logits
    of the same shape. Batch and sides are free. Its metadata hold image size, mean, standard deviation and threshold.

    Args:
        weights: a run's segmentation folder, or another with its model.pt and inference.json.
        output: the file to write: .onnx, .ts, or .xml with a .bin beside it.
        format: onnx, torchscript or openvino.

    Returns:
        the file.

    Raises:
        MGCCError: when the format is none, its library is missing, the weights are missing or do not fit, the file has
            another suffix, or the exported network differs from the trained one.
    """
    if format not in FORMATS:
        raise MGCCError(f"--format {format}: expected one of {', '.join(FORMATS)}.")
    target = Path(output)
    if target.suffix != _SUFFIXES[format]:
        raise MGCCError(f"--output {output}: expected a file that ends in {_SUFFIXES[format]}.")
    _need(_EXPORTS.get(format, ()), f"--format {format}", format)
    try_writable(target, file=True)
    network, settings = read_trained(weights)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / target.name
        FORMATS[format](network, {name: settings[name] for name in _SETTINGS if name in settings}, path)
        _check(network, Engine(path), settings["image_size"], output)
        for part in sorted(Path(folder).iterdir()):  # a .bin before its .xml
            write_file(target.with_name(part.name), part.read_bytes())
    return target


def _onnx(network: nn.Module, settings: Mapping[str, Any], path: Path) -> None:
    onnx = importlib.import_module("onnx")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of libraries that are not used
    batch, width, height = (torch.export.Dim(name, min=1) for name in ("batch", "width_16", "height_16"))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (torch.zeros(2, 1, 48, 64),),
            dynamo=True,
            opset_version=_OPSET,
            input_names=["image"],
            output_names=["pred"],
            dynamic_shapes=({0: batch, 2: 16 * width, 3: 16 * height},),
            verbose=False,
        )
    program.save(str(path), external_data=False)
    model = onnx.load(str(path))
    for name, value in settings.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, json.dumps(value)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _torchscript(network: nn.Module, settings: Mapping[str, Any], path: Path) -> None:
    extra = {_FILE: json.dumps(dict(settings))}
    torch.jit.save(torch.jit.freeze(torch.jit.script(network)), str(path), _extra_files=extra)


def _openvino(network: nn.Module, settings: Mapping[str, Any], path: Path) -> None:
    openvino = importlib.import_module("openvino")
    with tempfile.TemporaryDirectory() as folder:
        _onnx(network, settings, Path(folder) / "model.onnx")
        model = openvino.convert_model(str(Path(folder) / "model.onnx"))
        for name, value in settings.items():
            model.set_rt_info(json.dumps(value), [_FILE, name])
        openvino.save_model(model, str(path), compress_to_fp16=False)


FORMATS: dict[str, Callable[[nn.Module, Mapping[str, Any], Path], None]] = {
    "onnx": _onnx,
    "torchscript": _torchscript,
    "openvino": _openvino,
}


@torch.no_grad()
def _check(network: nn.Module, engine: Engine, image_size: Sequence[int], output: str) -> None:
    """Compare probabilities at the run's size, at another one and for another batch."""
    for shape in ((1, 1, *image_size), (3, 1, 32, 80)):
        image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        off = (engine(image).sigmoid() - network(image).sigmoid()).abs().max().item()
        if not off <= TOLERANCE:
            raise MGCCError(f"{output}: differs from the network by {off:.1e} in probability; not written. Report it.")


def _need(libraries: Sequence[str], what: str, format: str) -> None:
    for name in libraries:
        if importlib.util.find_spec(name) is None:
            raise MGCCError(f"{what}: needs {name}; run `pip install 'mgcc_monai[{format}]'`.")


class Engine(nn.Module):
    """An exported segmenter in place of the network: ONNX Runtime, OpenVINO or TorchScript, on the CPU.

    Args:
        path: the file that :func:`export` wrote.

    Raises:
        MGCCError: when it is missing, of none of these kinds, damaged, or its library is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        path = Path(path)
        format = next((name for name, end in _SUFFIXES.items() if path.suffix == end), None)
        if format is None or not path.is_file():
            raise MGCCError(f"--engine {path}: expected a file of `export`: {', '.join(_SUFFIXES.values())}.")
        _need(_RUNS.get(format, ()), f"--engine {path}", format)
        try:
            self.run, self.settings = _LOADERS[format](path)
        except Exception as error:  # whatever a run time raises
            raise MGCCError(f"--engine {path}: cannot be read ({one_line(error)}); export it again.") from None
        self.ckpt_sha256 = self.settings.get("ckpt_sha256", "")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give logits.

        Args:
            image: B1WH, float32, normalised.
        """
        return self.run(torch.as_tensor(image).contiguous()).to(image.device)


Run = Callable[[torch.Tensor], torch.Tensor]


def _load_onnx(path: Path) -> tuple[Run, dict[str, Any]]:
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    settings = session.get_modelmeta().custom_metadata_map
    known = {name: json.loads(settings[name]) for name in _SETTINGS if name in settings}
    return lambda image: torch.from_numpy(session.run(["pred"], {"image": image.cpu().numpy()})[0]), known


def _load_torchscript(path: Path) -> tuple[Run, dict[str, Any]]:
    extra = {_FILE: ""}
    module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
    return lambda image: module(image.cpu()), json.loads(extra[_FILE])


def _load_openvino(path: Path) -> tuple[Run, dict[str, Any]]:
    openvino = importlib.import_module("openvino")
    model = openvino.Core().read_model(str(path))
    names = [name for name in _SETTINGS if model.has_rt_info([_FILE, name])]
    known = {name: json.loads(model.get_rt_info([_FILE, name]).astype(str)) for name in names}
    compiled = compile_openvino(model)
    return lambda image: torch.from_numpy(np.array(compiled({"image": image.cpu().numpy()})["pred"])), known


def compile_openvino(model: Any) -> Any:
    """Compile a model of OpenVINO for the CPU, in float32 and with torch's number of threads."""
    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    return importlib.import_module("openvino").compile_model(model, "CPU", options)


_LOADERS: dict[str, Callable[[Path], tuple[Run, dict[str, Any]]]] = {
    "onnx": _load_onnx,
    "torchscript": _load_torchscript,
    "openvino": _load_openvino,
}


def choose_network(network: nn.Module, engine: str = "") -> nn.Module:
    """Return the engine in place of the network, where one is named; see :class:`Engine`."""
    return Engine(engine) if engine else network
