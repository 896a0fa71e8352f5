"""Segmenting: one image of 128 and 256 pixels, and sixteen at a time; how far probabilities differ stands beside."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

import torch

from benchmarks.measure import Row, rows
from benchmarks.plain import mgcc, plain
from mgcc_monai.interop import export
from mgcc_monai.interop.fast import Compiled, fold


@torch.no_grad()
def measure(device: str, repeats: int, rate: float) -> list[Row]:
    """Time the routes."""
    network = mgcc().to(device).eval()
    routes = {"plain": plain(network), "fused upsampling": network}
    if device == "cpu":
        routes["folded batch normalisations"] = fold(network)
        routes["frozen TorchScript"] = torch.jit.freeze(torch.jit.script(network))
        if importlib.util.find_spec("onnxruntime"):
            with tempfile.TemporaryDirectory() as folder:
                export._onnx(network, {}, Path(folder) / "model.onnx")
                routes["ONNX Runtime"] = export.Engine(Path(folder) / "model.onnx")
        if importlib.util.find_spec("openvino"):
            routes["OpenVINO"] = Compiled(network)
    found: list[Row] = []
    for count, side in ((1, 128), (1, 256), (16, 256)):
        image = torch.randn(count, 1, side, side, device=device)
        wanted = routes["plain"](image).sigmoid()
        variants = {}
        for name, route in routes.items():
            off = float((route(image).sigmoid() - wanted).abs().max())
            variants[f"{name} (off by {off:.0e})"] = lambda route=route, image=image: route(image)
        found += rows(f"segmenting {count} of {side} x {side}", variants, repeats, rate)
    return found
