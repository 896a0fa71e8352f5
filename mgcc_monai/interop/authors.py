"""Checkpoints of the authors' released code, turned into ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mgcc_monai.errors import MGCCError, plain_os_errors
from mgcc_monai.files import try_writable
from mgcc_monai.networks import MGCC
from mgcc_monai.weights import load_state_dict, save_atomically

__all__ = ["convert", "network_arguments", "to_mgcc"]

_LEVEL = {"5": 0, "4": 1, "3": 2, "2": 3}  # the authors count levels from the finest, our decoders from the deepest
_RULES = (
    (r"^Conv(\d+)\.conv\.(.+)$", lambda m: f"encoder.{int(m[1]) - 1}.{m[2]}"),
    (r"^ConvMixer(\d+)\.block\.(\d+)\.0\.fn\.(.+)$", lambda m: f"mixers.{int(m[1]) - 1}.{m[2]}.depthwise.{m[3]}"),
    (
        r"^ConvMixer(\d+)\.block\.(\d+)\.([123])\.(.+)$",
        lambda m: f"mixers.{int(m[1]) - 1}.{m[2]}.pointwise.{int(m[3]) - 1}.{m[4]}",
    ),
    (r"^main_decoder\.(.+)$", lambda m: f"main_decoder.{_decoder_name(m[1])}"),
    (r"^aux_decoder(\d+)\.(.+)$", lambda m: f"auxiliary_decoders.{int(m[1]) - 1}.{_decoder_name(m[2])}"),
)
_GATE = {"pointwiseConv": "point", "ordinaryConv": "local", "dilationConv": "dilated", "voteConv": "vote"}


def _decoder_name(name: str) -> str:
    if match := re.match(r"^Up_conv([2-5])\.conv\.(.+)$", name):
        return f"merges.{_LEVEL[match[1]]}.{match[2]}"
    if match := re.match(r"^Up([2-5])\.up\.(.+)$", name):
        return f"ups.{_LEVEL[match[1]]}.{match[2]}"
    if match := re.match(r"^msag([1-4])\.(\w+)\.(.+)$", name):
        return f"gates.{4 - int(match[1])}.{_GATE[match[2]]}.{match[3]}"
    return name.replace("Conv_1x1.", "head.", 1)


def to_mgcc(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the entries of an authors' state dict (also one saved under ``DataParallel``) to those of ours.

    Args:
        state: name to tensor, as their training script saves it.

    Returns:
        the same tensors under the names of :class:`mgcc_monai.networks.MGCC`.

    Raises:
        MGCCError: when a name is none of theirs.
    """
    renamed = {}
    for name, tensor in state.items():
        plain = name.removeprefix("module.")
        for pattern, rule in _RULES:
            if match := re.match(pattern, plain):
                renamed[rule(match)] = tensor
                break
        else:
            raise MGCCError(
                f"'{name}' is no entry of the authors' MGCC network; give a state dict that their train.py saved."
            )
    return renamed


def network_arguments(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Read the arguments of :class:`mgcc_monai.networks.MGCC` off the shapes of a state dict with our names.

    Args:
        state: name to tensor.

    Returns:
        in_channels, out_channels, channels, mixer_depths and mixer_kernel_size.

    Raises:
        MGCCError: when entries are missing.
    """
    levels = 1 + max((int(m[1]) for n in state if (m := re.match(r"encoder\.(\d+)\.", n))), default=-1)
    stages = 1 + max((int(m[1]) for n in state if (m := re.match(r"mixers\.(\d+)\.", n))), default=-1)
    try:
        depths = [
            1 + max(int(m[1]) for n in state if (m := re.match(rf"mixers\.{i}\.(\d+)\.", n))) for i in range(stages)
        ]
        return {
            "in_channels": state["encoder.0.0.weight"].shape[1],
            "out_channels": state["main_decoder.head.weight"].shape[0],
            "channels": [state[f"encoder.{i}.0.weight"].shape[0] for i in range(levels)],
            "mixer_depths": depths,
            "mixer_kernel_size": state["mixers.0.0.depthwise.0.weight"].shape[-1],
        }
    except (KeyError, ValueError) as error:
        raise MGCCError(f"The checkpoint lacks {error}: it is no MGCC network.") from error


@plain_os_errors()
def convert(checkpoint: str, output: str) -> dict[str, Any]:
    """Turn a checkpoint of the authors' training script into a flat state dict for :class:`MGCC`.

    Args:
        checkpoint: their file, such as checkpoint/model.pth; read with weights_only, so no code in it can run.
        output: the file to write, such as models/model.pt.

    Returns:
        the arguments of the network that the weights fit, read from the shapes.

    Raises:
        MGCCError: when the file is missing, unreadable or holds another network.
    """
    try_writable(output, file=True)
    state = to_mgcc(load_state_dict(checkpoint))
    arguments = network_arguments(state)
    network = MGCC(**arguments)
    expected, found = network.state_dict(), state
    faults = sorted(expected.keys() ^ found.keys())
    faults += [n for n in expected.keys() & found.keys() if expected[n].shape != found[n].shape]
    if faults:
        raise MGCCError(
            f"{checkpoint}: {len(faults)} entries do not fit an MGCC network of {arguments}, first: {faults[0]}."
        )
    save_atomically({name: found[name].clone() for name in expected}, Path(output))
    return arguments
