"""Laws of the network: which decoder sees what, what a size must be, and that TorchScript computes the same."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from mgcc_monai.networks import MGCC

CHANNELS = (4, 6, 8)


class Recorder(nn.Module):
    """A perturbation that keeps what it was given and multiplies it."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.detach().clone())
        return x * self.factor


def build(mixer_depths=(1, 1, 1), seed=0, **arguments) -> MGCC:
    torch.manual_seed(seed)
    return MGCC(channels=CHANNELS, mixer_depths=mixer_depths, mixer_kernel_size=3, **arguments)


def image(channels=1, side=16, batch=3) -> torch.Tensor:
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(1))


def reached(output: torch.Tensor, modules: nn.ModuleList) -> list[bool]:
    """For each module, whether the output depends on any of its parameters."""
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
    answers = []
    for module in modules:
        gradients = torch.autograd.grad(
            (output * weight).sum(), list(module.parameters()), retain_graph=True, allow_unused=True
        )
        answers.append(any(g is not None and float(g.abs().max()) > 1e-5 for g in gradients))
    return answers


def test_auxiliary_decoders_see_the_mixers_before_them_alone():
    network = build().train()
    main, *auxiliary = network(image())
    assert reached(main, network.mixers) == [True, True, True]
    for i, output in enumerate(auxiliary):
        assert reached(output, network.mixers) == [j < i for j in range(3)], f"auxiliary decoder {i + 1}"


def test_each_output_has_its_own_decoder_and_the_common_encoder():
    network = build().train()
    outputs = network(image())
    decoders = nn.ModuleList([network.main_decoder, *network.auxiliary_decoders])
    for i, output in enumerate(outputs):
        assert reached(output, decoders) == [j == i for j in range(4)]
        assert reached(output, network.encoder) == [True] * 3


@pytest.mark.parametrize("depths", [(), (2,), (1, 3), (1, 1, 1, 2, 1)])
def test_as_many_decoders_as_mixer_stages(depths):
    network = build(mixer_depths=depths)
    outputs = network.train()(image())
    assert [output.shape for output in outputs] == [(3, 1, 16, 16)] * (1 + len(depths))
    assert [len(stage) for stage in network.mixers] == list(depths)
    with torch.no_grad():
        assert network.eval()(image()).shape == (3, 1, 16, 16)


def test_default_perturbations_are_the_papers_in_its_order():
    names = [type(module).__name__ for module in build(mixer_depths=(1, 1, 1, 1)).perturbations]
    assert names == ["FeatureDropout", "Dropout", "FeatureNoise", "FeatureDropout"]


def test_perturbations_act_on_every_level_and_the_main_decoder_sees_none():
    clean = build(perturbations=[Recorder() for _ in range(3)]).train()
    outputs = clean(image())
    strong = build(perturbations=[Recorder(0.0), Recorder(), Recorder(3.0)]).train()
    others = strong(image())
    for recorder in clean.perturbations:
        assert [tuple(x.shape) for x in recorder.seen] == [(3, 4, 16, 16), (3, 6, 8, 8), (3, 8, 4, 4)]
    equal = [torch.equal(a, b) for a, b in zip(outputs, others)]
    assert equal == [True, False, True, False]
    # the three see one encoder, and its deepest level after none, one and two ConvMixer stages
    first, second, third = (recorder.seen for recorder in clean.perturbations)
    assert torch.equal(first[1], third[1])
    assert not torch.equal(first[2], second[2]) and not torch.equal(second[2], third[2])


def test_evaluation_neither_perturbs_nor_draws():
    network = build(perturbations=[Recorder() for _ in range(3)], dropout=0.5).eval()
    state = torch.get_rng_state()
    with torch.no_grad():
        assert torch.equal(network(image()), network(image()))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(not recorder.seen for recorder in network.perturbations)


def test_dropout_drops_whole_channels_before_the_main_decoder_alone():
    seen = {}
    network = build(perturbations=[Recorder() for _ in range(3)], dropout=0.5).train()
    network.mixers[-1].register_forward_hook(lambda module, args, out: seen.update(before=out.detach().clone()))
    network.main_decoder.register_forward_pre_hook(lambda module, args: seen.update(after=args[0][-1].detach()))
    first, second = network(image()), network(image())
    scale = (seen["after"] / seen["before"]).flatten(2)
    dropped = (scale == 0).all(dim=2)
    kept = torch.isclose(scale, torch.full_like(scale, 2.0)).all(dim=2)
    assert torch.equal(dropped, ~kept)
    assert 0 < dropped.sum() < dropped.numel()
    assert [torch.equal(a, b) for a, b in zip(first, second)] == [False, True, True, True]


def test_torchscript_equals_eager_in_both_modes():
    network = build().eval()
    network.train()(image())  # move the running statistics off their start
    network.eval()
    scripted = torch.jit.script(network)
    with torch.no_grad():
        torch.testing.assert_close(scripted(image()), network(image()), rtol=0, atol=1e-5)
        evaluated = scripted(image())
        trained = scripted.train()(image())
        torch.testing.assert_close(trained, network.train()(image())[0], rtol=0, atol=1e-5)
    assert isinstance(trained, torch.Tensor)
    assert not torch.allclose(trained, evaluated, atol=1e-3), "training mode must have changed something"


def test_torchscript_file_carries_the_main_path_alone():
    network = build(out_channels=2).eval()
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(network), buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    with torch.no_grad():
        torch.testing.assert_close(loaded(image()), network(image()), rtol=0, atol=1e-5)
    used = {name for name in network.state_dict() if not name.startswith("auxiliary_decoders.")}
    assert set(loaded.state_dict()) == used and used < set(network.state_dict())


@pytest.mark.parametrize("height, width", [(40, 32), (32, 24), (17, 33)])
def test_size_that_does_not_divide_is_told(height, width):
    network = MGCC(channels=(2, 2, 2, 2, 2), mixer_depths=(1,), mixer_kernel_size=3)
    with pytest.raises(ValueError, match=rf"{height} x {width} .*multiples of 16"):
        network(torch.zeros(1, 1, height, width))
    scripted = torch.jit.script(network)
    with pytest.raises(torch.jit.Error, match=rf"{height} x {width}"):
        scripted(torch.zeros(1, 1, height, width))


def test_oblong_images_need_multiples_of_the_stride_and_no_more():
    network = MGCC(channels=(2, 3, 4, 5, 6), mixer_depths=(1,), mixer_kernel_size=3).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 1, 48, 80)).shape == (2, 1, 48, 80)


@pytest.mark.parametrize("channels", [(4, 6), (3, 4, 5, 6), (2, 2, 3, 3, 4, 4)])
def test_any_number_of_levels(channels):
    network = MGCC(in_channels=3, out_channels=2, channels=channels, mixer_depths=(1, 2), mixer_kernel_size=3).train()
    side = 2 ** (len(channels) - 1)
    outputs = network(torch.randn(2, 3, 2 * side, 4 * side))
    assert [output.shape for output in outputs] == [(2, 2, 2 * side, 4 * side)] * 3
    assert reached(outputs[0], network.encoder) == [True] * len(channels)
    with pytest.raises(ValueError, match=f"multiples of {side}"):
        network(torch.zeros(1, 3, side, side + 1))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"channels": (4,)}, r"two levels.*\(4,\)"),
        ({"mixer_kernel_size": 4}, "odd mixer_kernel_size, got 4"),
        ({"mixer_depths": (1,), "perturbations": [nn.Identity()] * 2}, "got 2 perturbations for 1 stages"),
    ],
)
def test_arguments_that_do_not_fit_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        MGCC(**{"channels": CHANNELS, **arguments})


def test_a_step_of_fewer_auxiliary_decoders_runs_each_in_turn_and_leaves_the_others_alone():
    network = build(auxiliary_per_step=1, perturbations=[Recorder() for _ in range(3)]).train()
    whole = build(perturbations=[Recorder() for _ in range(3)]).train()
    ran = []
    for seed in range(30):
        torch.manual_seed(seed)
        main, auxiliary = network(image())
        (number,) = (n for n, perturb in enumerate(network.perturbations) if perturb.seen)
        ran.append(number)
        network.perturbations[number].seen.clear()
        outputs = whole(image())
        torch.testing.assert_close(main, outputs[0])
        torch.testing.assert_close(auxiliary, outputs[1 + number])
    assert [7 <= ran.count(number) for number in range(3)] == [True] * 3  # 1 in 3 of 30; fewer than 7: 5 % at most
    torch.manual_seed(3)
    again = network(image())
    torch.manual_seed(3)
    assert all(torch.equal(a, b) for a, b in zip(again, network(image())))


@pytest.mark.parametrize("count", [0, 4])
def test_a_number_of_auxiliary_decoders_that_there_is_not_is_refused(count):
    with pytest.raises(ValueError, match=f"1 to 3 auxiliary decoders per step.*{count}"):
        build(auxiliary_per_step=count)


def test_decoders_computed_twice_give_the_same_step():
    """Outputs, gradients and every buffer, with random perturbations, whose draws must be repeated."""
    steps = []
    for recompute in (False, True):
        network = build(recompute_decoders=recompute).train()
        torch.manual_seed(5)
        outputs = network(image())
        torch.stack([output.square().mean() for output in outputs]).sum().backward()
        steps.append((outputs, network))
    assert all(torch.equal(a, b) for a, b in zip(steps[0][0], steps[1][0]))
    for (name, kept), (_, again) in zip(steps[0][1].named_parameters(), steps[1][1].named_parameters()):
        assert torch.equal(kept.grad, again.grad), name
    for (name, kept), (_, again) in zip(steps[0][1].named_buffers(), steps[1][1].named_buffers()):
        assert torch.equal(kept, again), name


def test_decoders_computed_twice_keep_fewer_features():
    kept = []
    for recompute in (False, True):
        network = build(recompute_decoders=recompute).train()
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = network(image())
        kept.append(sum(sizes.values()))
        del outputs
    assert kept[1] < 0.6 * kept[0]
