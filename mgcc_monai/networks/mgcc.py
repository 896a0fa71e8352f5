"""The segmentation network of MGCC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mgcc_monai.networks.blocks import ConvBlock, ConvMixer, Decoder
from mgcc_monai.networks.perturbations import Dropout, FeatureDropout, FeatureNoise
from mgcc_monai.parse import parse_bool

__all__ = ["MGCC"]


class MGCC(nn.Module):
    """One encoder, a chain of ConvMixer stages, a main decoder and one auxiliary decoder per perturbation.

    Auxiliary decoder i sees the features as they are before ConvMixer stage i, all levels of them under its own
    perturbation; the main decoder sees them clean, after the last stage. In training mode the network returns the
    list ``[main, auxiliary 1, auxiliary 2, ...]`` of logits, in evaluation mode, and always as TorchScript, the main
    logits alone.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits: 1 (sigmoid) or one a class, background first (softmax).
        channels: channels of the encoder's levels, finest first; each level halves height and width.
        mixer_depths: layers of each ConvMixer stage.
        mixer_kernel_size: odd size of the depthwise kernels in the ConvMixer stages.
        dropout: probability with which channels of the deepest features are dropped before the main decoder, in
            training mode; 0 in the paper.
        perturbations: one module per auxiliary decoder, from features BCHW to features BCHW; at most one per ConvMixer
            stage. None takes the paper's: feature dropout, dropout, feature noise, in turn.
        auxiliary_per_step: auxiliary decoders that run in a training step, drawn anew each time; None runs all, as in
            the paper. Tell the loss how many there are (``CrossConsistencyLoss(auxiliary=...)``), and its expectation
            stays that of all.
        recompute_decoders: compute the decoders a second time in the backward pass instead of keeping their features:
            less memory, the same gradients.

    Raises:
        ValueError: when the sizes do not fit together.

    Source:
        Tang et al. 2023, "Multi-Level Global Context Cross Consistency Model for Semi-Supervised Ultrasound Image
        Segmentation with Diffusion Model" (arXiv 2305.09447), and the code released with it.
    """

    # TorchScript gives the main logits alone, so it carries neither auxiliary decoders nor perturbations.
    __jit_ignored_attributes__ = ["auxiliary_decoders", "perturbations"]

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        mixer_depths: Sequence[int] = (3, 3, 3),
        mixer_kernel_size: int = 7,
        dropout: float = 0.0,
        perturbations: Sequence[nn.Module] | None = None,
        auxiliary_per_step: int | None = None,
        recompute_decoders: bool = False,
    ) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ValueError(f"MGCC needs at least two levels, got channels={tuple(channels)}.")
        if mixer_kernel_size % 2 == 0:
            raise ValueError(f"MGCC needs an odd mixer_kernel_size, got {mixer_kernel_size}.")
        if perturbations is None:
            defaults = (FeatureDropout, Dropout, FeatureNoise)
            perturbations = [defaults[i % len(defaults)]() for i in range(len(mixer_depths))]
        if len(perturbations) > len(mixer_depths):
            raise ValueError(
                f"MGCC has at most one auxiliary decoder per ConvMixer stage: got {len(perturbations)} perturbations "
                f"for {len(mixer_depths)} stages."
            )
        if auxiliary_per_step is not None and perturbations and not 1 <= auxiliary_per_step <= len(perturbations):
            raise ValueError(
                f"MGCC runs 1 to {len(perturbations)} auxiliary decoders per step, got "
                f"auxiliary_per_step={auxiliary_per_step}."
            )
        widths = [in_channels, *channels]
        self.auxiliary_per_step = auxiliary_per_step
        self.recompute_decoders = parse_bool(recompute_decoders, "recompute_decoders")
        self.stride = 2 ** (len(channels) - 1)
        self.encoder = nn.ModuleList(ConvBlock(a, b) for a, b in zip(widths, widths[1:]))
        self.pool = nn.MaxPool2d(2)
        self.mixers = nn.ModuleList(ConvMixer(channels[-1], depth, mixer_kernel_size) for depth in mixer_depths)
        self.dropout = nn.Dropout2d(dropout)
        self.main_decoder = Decoder(channels, out_channels)
        self.auxiliary_decoders = nn.ModuleList(Decoder(channels, out_channels) for _ in perturbations)
        self.perturbations = nn.ModuleList(perturbations)
        self.register_load_state_dict_pre_hook(_complete)

    def complete_state(self, state: Mapping[str, torch.Tensor], prefix: str = "") -> dict[str, torch.Tensor]:
        """Return a state dict with auxiliary decoders: weights that have none start them as copies of the main one."""
        complete, auxiliary = dict(state), f"{prefix}auxiliary_decoders."
        if not any(name.startswith(auxiliary) for name in state):
            for name in [name for name in state if name.startswith(f"{prefix}main_decoder.")]:
                for number in range(len(self.auxiliary_decoders)):
                    rest = name[len(f"{prefix}main_decoder.") :]
                    complete[f"{auxiliary}{number}.{rest}"] = state[name]
        return complete

    def forward(self, x: torch.Tensor):
        """Segment.

        Args:
            x: image, B x in_channels x H x W; H and W multiples of ``2 ** (levels - 1)``.

        Returns:
            logits B x out_channels x H x W; in training mode the list of them, main first.

        Raises:
            ValueError: when H or W is no such multiple.
        """
        features = self._encode(x)
        if torch.jit.is_scripting():
            for mixer in self.mixers:
                features[-1] = mixer(features[-1])
            return self.main_decoder(features)
        else:
            auxiliary, run = [], self._drawn() if self.training else set()
            for number, mixer in enumerate(self.mixers):
                if number in run:
                    auxiliary.append(
                        self._decode(self.auxiliary_decoders[number], features, self.perturbations[number])
                    )
                features[-1] = mixer(features[-1])
            features[-1] = self.dropout(features[-1])
            main = self._decode(self.main_decoder, features)
            return [main, *auxiliary] if self.training else main

    @torch.jit.unused
    def _drawn(self) -> set[int]:
        """The auxiliary decoders that run in this step."""
        count = len(self.auxiliary_decoders)
        if self.auxiliary_per_step is None:
            return set(range(count))
        return set(torch.randperm(count)[: self.auxiliary_per_step].tolist())

    @torch.jit.unused
    def _decode(
        self, decoder: nn.Module, features: list[torch.Tensor], perturb: nn.Module | None = None
    ) -> torch.Tensor:
        def decode(*features: torch.Tensor) -> torch.Tensor:
            return decoder(list(features) if perturb is None else [perturb(feature) for feature in features])

        if not (self.training and self.recompute_decoders):
            return decode(*features)

        def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
            return nullcontext(), frozen_statistics(decoder)

        return checkpoint(decode, *features, use_reentrant=False, context_fn=contexts)

    def _encode(self, x: torch.Tensor) -> list[torch.Tensor]:
        if x.shape[2] % self.stride != 0 or x.shape[3] % self.stride != 0:
            raise ValueError(
                f"MGCC got an image of {x.shape[2]} x {x.shape[3]} pixels; both sides must be multiples of "
                f"{self.stride}. Resize or pad it."
            )
        features: list[torch.Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else self.pool(x))
            features.append(x)
        return features


def _complete(network: MGCC, state: dict[str, torch.Tensor], prefix: str, *_: object) -> None:
    state.update(network.complete_state(state, prefix))


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep batch normalisations in training mode from counting a batch that they see a second time."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta, counts = [norm.momentum for norm in norms], [norm.num_batches_tracked.clone() for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)
