"""Guided backpropagation and deconvnet: rules by hand, every rectifier, refusals, passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import BasicUNet, DynUNet, UNet
from torch import nn
from torch.nn import functional as F  # noqa: N812

from voxplain.attribution import ClassTarget, Everywhere, FunctionTarget, Gradient, explain
from voxplain.attribution.ask import ask
from voxplain.attribution.guided import Deconvnet, GuidedBackprop, GuidedGradCam
from voxplain.attribution.method import Method, Outcome
from voxplain.attribution.question import MapSum, Question
from voxplain.errors import MethodError, ModelError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import Passes, open_pipeline
from voxplain.inference.rectifiers import RectifierRule, Rule
from voxplain.inference.rolling import Emit
from voxplain.records.finding import finding
from voxplain.space.box import Box
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import Failing, Mirrored, Recorder, SmallNet, describe
from voxplain.testing.phantoms import oblique_grid, volume

DOUBLE = Compute("cpu", precision="float64")
METHODS: list[Method] = [GuidedBackprop(), Deconvnet()]
ALL = [ClassTarget(f"class_{k}", Everywhere()) for k in (1, 2)]
SLOPES = torch.tensor([0.1, -0.5, 2.0], dtype=torch.float64)


class Net(nn.Module):
    """Convolution, an activation, convolution, the activation, a weighted sum."""

    def __init__(self, activation: Callable[[torch.Tensor], torch.Tensor], rank: int = 3,
                 n_channels: int = 1, seed: int = 0) -> None:  # fmt: skip
        super().__init__()
        convolution = nn.Conv3d if rank == 3 else nn.Conv2d
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = convolution(n_channels, 4, 3, padding=1)
            self.second = convolution(4, 4, 3, padding=1)
            self.last = convolution(4, 3, 1)
        self.activation = activation

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        hidden = self.activation(self.second(self.activation(self.first(windows))))
        return torch.as_tensor(self.last(hidden))


def on_itself(function: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Throw the result away: what counts is what an in-place function leaves."""

    def run(x: torch.Tensor) -> torch.Tensor:
        function(x)
        return x

    return run


RECTIFIERS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float | torch.Tensor]] = {
    "nn.ReLU": (nn.ReLU(), 0.0),
    "nn.ReLU in place": (on_itself(nn.ReLU(inplace=True)), 0.0),
    "F.relu": (F.relu, 0.0),
    "F.relu in place": (lambda x: F.relu(input=x, inplace=True), 0.0),
    "torch.relu": (torch.relu, 0.0),
    "torch.relu_": (on_itself(torch.relu_), 0.0),
    "Tensor.relu": (lambda x: x.relu(), 0.0),
    "Tensor.relu_": (on_itself(lambda x: x.relu_()), 0.0),
    "nn.LeakyReLU": (nn.LeakyReLU(0.2), 0.2),
    "nn.LeakyReLU in place": (on_itself(nn.LeakyReLU(0.2, inplace=True)), 0.2),
    "negative slope": (nn.LeakyReLU(-0.3), -0.3),
    "F.leaky_relu": (F.leaky_relu, 0.01),
    "F.leaky_relu_": (on_itself(lambda x: F.leaky_relu_(x, negative_slope=0.3)), 0.3),
    "F.prelu": (lambda x: F.prelu(x, SLOPES), SLOPES.reshape(1, 3, 1)),
    "Tensor.prelu": (lambda x: x.prelu(SLOPES[:1]), 0.1),
    "nn.PReLU": (nn.PReLU(3, init=0.4, dtype=torch.float64), 0.4),
}


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
@pytest.mark.parametrize("name", RECTIFIERS)
def test_every_rectifier_follows_the_rule(name: str, rule: Rule) -> None:
    function, slope = RECTIFIERS[name]
    generator = torch.Generator().manual_seed(3)
    x, R = torch.randn(2, 2, 3, 5, generator=generator, dtype=torch.float64)
    x[0, 0, 0] = 0.0
    with torch.no_grad():
        forward = function(x.clone())
    leaf = x.clone().requires_grad_()
    with RectifierRule(rule) as active:
        y = function(leaf * 1.0)
        (found,) = torch.autograd.grad(y, leaf, R)
    assert torch.equal(y.detach(), forward)
    assert active.n_seen == 1
    ordinary = R * torch.where(x > 0, torch.ones_like(x), slope)
    wanted = ordinary.clamp_min(0) if rule == "guided" else R.clamp_min(0)
    assert bool((wanted > 0).any())
    assert torch.equal(found, wanted)


def test_a_rule_is_undone() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    R = torch.tensor([-1.0, 3.0])
    with RectifierRule("guided"):
        y = torch.relu(x)
        assert torch.equal(torch.autograd.grad(y, x, R)[0], torch.tensor([0.0, 3.0]))
    with pytest.raises(KeyboardInterrupt), RectifierRule("guided"):
        raise KeyboardInterrupt
    assert torch.equal(torch.autograd.grad(torch.relu(x), x, R)[0], R)


def test_without_a_graph_it_counts_and_is_the_function() -> None:
    x = torch.tensor([-1.0, 2.0])
    with torch.no_grad(), RectifierRule("guided") as active:
        y = torch.relu(x)
    assert active.n_seen == 1
    assert y.grad_fn is None
    assert torch.equal(y, torch.tensor([0.0, 2.0]))


# -- through windows ------------------------------------------------------------------------
WINDOWS = {
    3: WindowSettings((4, 5, 6), overlap=0.5, blend="gaussian", pad_value=0.1),
    2: WindowSettings((4, 9), overlap=0.25, blend="gaussian"),
}


def image_of(shape: tuple[int, ...], n_channels: int = 1) -> Volume:
    image = volume(oblique_grid(shape, (0.7, 1.1, 2.3)[: len(shape)]), n_channels, seed=1)
    return image.with_data(image.data.astype(np.float64) - 1)


def by_hand(net: Net, x: torch.Tensor, R: torch.Tensor, slope: float, rule: Rule) -> torch.Tensor:
    """Back through `Net`, one layer after another."""
    a = net.first(x)
    b = net.second(torch.where(a > 0, a, slope * a))
    transposed = F.conv_transpose3d if x.ndim == 5 else F.conv_transpose2d
    R = transposed(R, net.last.weight)
    for values, weight in ((b, net.second.weight), (a, net.first.weight)):
        if rule == "guided":
            R = torch.where(values > 0, R, slope * R)
        R = transposed(R.clamp_min(0), weight, padding=1)
    return R


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
@pytest.mark.parametrize(("shape", "n_channels"), [((5, 7, 11), 2), ((3, 7, 5), 1), ((6, 13), 2)])
def test_windows_are_the_rule_with_their_share(
    shape: tuple[int, ...], n_channels: int, rule: Rule
) -> None:
    """Also for an image smaller than the window, in 2D, and with two channels."""
    rank = len(shape)
    image = image_of(shape, n_channels)
    net = Net(nn.LeakyReLU(0.2, inplace=True), rank, n_channels)
    model = describe(net, rank=rank, n_channels=n_channels, window=WINDOWS[rank])
    method = GuidedBackprop() if rule == "guided" else Deconvnet()
    result = explain(model, image, ALL, method, compute=DOUBLE)
    net = net.double()
    with open_pipeline(model, image, DOUBLE) as pipeline, torch.no_grad():
        for k in (1, 2):
            wanted = torch.zeros((n_channels, *pipeline.plan.padded_shape), dtype=torch.float64)
            for w in range(len(pipeline.plan)):
                box = pipeline.plan.box(w)
                R = torch.zeros((1, 3, *box.shape), dtype=torch.float64)
                R[0, k] = pipeline.share(w)
                common = box.intersect(pipeline.inner)
                assert common is not None
                inside = torch.zeros_like(R)
                inside[(..., *common.within(box))] = 1.0
                part = by_hand(net, pipeline.clean(box)[None], R * inside, 0.2, rule)
                wanted[(slice(None), *box.slices)] += part[0]
            wanted = wanted[(slice(None), *pipeline.inner.slices)]
            found = result[ALL[k - 1].name].values
            assert np.abs(found).max() > 1e-3
            np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_views_are_averaged(method: Method) -> None:
    """A mirrored copy is the mirrored network's window, each with half its share."""
    image, folds = image_of((5, 7, 11)), [Net(nn.ReLU(), seed=s) for s in (0, 1)]
    both = explain(Mirrored(folds, (1,), n_classes=3, window=WINDOWS[3]), image, ALL[0], method,
                   compute=DOUBLE)  # fmt: skip
    singles = [
        explain(Mirrored([net], (1,), n_classes=3, window=WINDOWS[3]), image, ALL[0], method,
                compute=DOUBLE)[ALL[0].name].values
        for net in folds
    ]  # fmt: skip
    np.testing.assert_allclose(both[ALL[0].name].values, sum(singles) / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("name", ["UNet", "DynUNet", "BasicUNet"])
def test_networks_of_monai(name: str, method: Method) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = {
            "UNet": lambda: UNet(3, 1, 3, (4, 8), (2,)),
            "DynUNet": lambda: DynUNet(3, 1, 3, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 8]),
            "BasicUNet": lambda: BasicUNet(3, 1, 3, (4, 4, 4, 4, 4, 4)),
        }[name]()
    size = (16, 16, 32) if name == "BasicUNet" else (8, 8, 12)
    model = describe(net, window=size)
    image = image_of((size[0], size[1] - 1, size[2]))
    found, ordinary = (
        np.stack([a.values for a in explain(model, image, ALL, one).attributions.values()])
        for one in (method, Gradient())
    )
    assert np.abs(found).max() > 0
    assert np.abs(found - ordinary).max() > 0.01 * np.abs(ordinary).max()


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_passes_are_those_told(method: Method) -> None:
    net = Recorder(Net(nn.ReLU()))
    targets = [*ALL, FunctionTarget(lambda L: torch.relu(L[0] * L[1]).sum(), "f")]
    model, image = describe(net, window=WINDOWS[3]), image_of((5, 7, 11))
    with open_pipeline(model, image, Compute("cpu")) as pipeline:
        question = ask(pipeline, image, targets, None, seed=0)
        _ = question.linear
        net.clear()
        told, before = method.passes(question), pipeline.passes.total
        method.attribute(question, lambda box, values: None)
        assert net.n_windows == told.n_forward == len(pipeline.plan)
        assert told.n_backward == 3 * len(pipeline.plan)
        assert pipeline.passes.total - before == told.total


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_an_absent_class_is_zero(method: Method) -> None:
    net = Net(nn.ReLU())
    with torch.no_grad():
        net.last.bias[2] = -1e6
    result = explain(describe(net), image_of((5, 7, 11)),
                     [ClassTarget("class_2"), ALL[0]], method)  # fmt: skip
    assert not result["class_2"].values.any()
    assert result[ALL[0].name].values.any()


# -- refusals -------------------------------------------------------------------------------
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize(
    ("activation", "found"),
    [(F.gelu, "it runs gelu;"), (lambda x: F.silu(torch.tanh(x)), "it runs silu, tanh;"),
     (lambda x: x.clamp_min(0), "no activation function of torch;")],
)  # fmt: skip
def test_a_network_without_rectifiers_is_refused_after_one_window(
    activation: Callable[[torch.Tensor], torch.Tensor], found: str, method: Method
) -> None:
    net = Recorder(Net(activation))
    image = image_of((5, 7, 11))
    emitted: list[Box] = []
    with open_pipeline(describe(net), image, Compute("cpu")) as pipeline:
        question = ask(pipeline, image, ALL, None, seed=0)
        _ = question.linear
        net.clear()
        with pytest.raises(MethodError, match=found):
            method.attribute(question, lambda box, values: emitted.append(box))
    assert net.n_windows == 1
    assert not emitted


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_scripted_and_compiled_parts_are_refused(method: Method) -> None:
    net = Net(nn.ReLU())
    net.second = torch.jit.script(nn.Sequential(net.second, nn.ReLU()))
    with pytest.raises(MethodError, match="compiled parts of the network: second"):
        explain(describe(net), image_of((5, 7, 11)), ALL, method)
    net = Net(nn.ReLU())
    net.first.compile()
    with pytest.raises(MethodError, match="compiled parts of the network: first"):
        explain(describe(net), image_of((5, 7, 11)), ALL, method)


# -- the model ------------------------------------------------------------------------------
def state(net: nn.Module) -> list[Any]:
    hooks = [(key, len(value)) for m in net.modules()
             for key, value in vars(m).items() if key.endswith("_hooks")]  # fmt: skip
    return [
        [sorted(vars(m)) for m in net.modules()],
        {n: (id(p), p.requires_grad, p.detach().numpy().tobytes())
         for n, p in net.named_parameters()},
        [m.training for m in net.modules()],
        hooks,
    ]  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_the_model_is_unchanged(method: Method) -> None:
    net = Net(nn.PReLU())
    before, image = state(net), image_of((5, 7, 11))
    explain(describe(net), image, ALL, method)
    assert state(net) == before
    failing = Failing(net, after=14)
    with pytest.raises(ModelError, match="fails on purpose"):
        explain(describe(failing), image, ALL, method, compute=Compute("cpu", batch_size=1))
    assert state(net) == before
    leaf = torch.ones(2, requires_grad=True)
    (gradient,) = torch.autograd.grad(torch.relu(leaf), leaf, -torch.ones(2))
    assert torch.equal(gradient, -torch.ones(2))


# -- guided Grad-CAM ------------------------------------------------------------------------
@dataclass(frozen=True)
class Ramp:
    """In place of Grad-CAM: a slope that falls below zero, over the whole padded volume."""

    layers: str = "auto"
    upsampling: str = "half_pixel"

    def __post_init__(self) -> None:
        if self.layers == "nowhere":
            raise MethodError("no layer 'nowhere'")

    def passes(self, question: Question) -> Passes:
        return Passes(5, 7)

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        shape = question.pipeline.plan.padded_shape
        ramp = torch.linspace(-1, 2, int(np.prod(shape)), dtype=torch.float64).reshape(shape)
        maps = torch.stack([ramp, ramp.flip(0)])[:, None]
        half = shape[0] // 2
        emit(Box((0,) * len(shape), (half, *shape[1:])), maps[:, :, :half])
        emit(Box((half, *(0 for _ in shape[1:])), shape), maps[:, :, half:])
        return Outcome(findings=(finding("VX104", "issue", "dead", ALL[0].name),))


@pytest.fixture
def ramp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxplain.attribution.guided.GradCam", Ramp)


@pytest.mark.usefixtures("ramp")
@pytest.mark.parametrize(("shape", "n_channels"), [((5, 7, 11), 2), ((3, 7, 5), 1)])
def test_guided_grad_cam_is_the_product(shape: tuple[int, ...], n_channels: int) -> None:
    image = image_of(shape, n_channels)
    model = describe(Net(nn.ReLU(), 3, n_channels), n_channels=n_channels, window=WINDOWS[3])
    with open_pipeline(model, image, DOUBLE) as pipeline:
        question = ask(pipeline, image, ALL, None, seed=0)
        guided, product, cam = MapSum(question), MapSum(question), MapSum(question, 1)
        GuidedBackprop().attribute(question, guided.add)
        outcome = GuidedGradCam().attribute(question, product.add)
        Ramp().attribute(question, cam.add)
        assert bool((guided.values < 0).any())
        assert bool((cam.values < 0).any())
        assert torch.equal(product.values, guided.values * cam.values.clamp_min(0))
        one = GuidedBackprop().passes(question)
        told = GuidedGradCam().passes(question)
    assert (told.n_forward, told.n_backward) == (one.n_forward + 5, one.n_backward + 7)
    assert [f.code for f in outcome.findings] == ["VX104"]


@pytest.mark.usefixtures("ramp")
def test_guided_grad_cam_refuses_what_its_parts_refuse() -> None:
    with pytest.raises(MethodError, match="nowhere"):
        GuidedGradCam(layers="nowhere")
    with pytest.raises(MethodError, match="it runs tanh"):
        explain(describe(SmallNet()), image_of((5, 7, 11)), ALL, GuidedGradCam())


@pytest.mark.usefixtures("ramp")
def test_unit_and_channels_of_guided_grad_cam() -> None:
    result = explain(describe(Net(nn.ReLU(), 3, 2), n_channels=2), image_of((5, 7, 11), 2), ALL,
                     GuidedGradCam())  # fmt: skip
    assert (result.kind, result.unit) == ("localisation", "logit² per intensity")
    assert result[ALL[0].name].channels == ("channel_0", "channel_1")
