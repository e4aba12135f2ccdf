"""DeepLIFT: closed forms, completeness through windows, passes, refusals, the model unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import BasicUNet, UNet
from torch import nn
from torch.nn import functional as F  # noqa: N812

from voxplain.attribution import (
    ClassTarget,
    Constant,
    Difference,
    Everywhere,
    InputXGradient,
    MeanImage,
    explain,
)
from voxplain.attribution.ask import ask
from voxplain.attribution.baselines import Baseline
from voxplain.attribution.deep_lift import DeepLift
from voxplain.errors import MethodError, ModelError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import Model
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import Failing, Linear, Mirrored, Recorder, describe
from voxplain.testing.phantoms import oblique_grid, volume

DOUBLE = Compute("cpu", precision="float64")
WINDOW = WindowSettings((4, 5, 6), overlap=0.5, blend="gaussian", pad_value=0.1)
ALL = [ClassTarget(f"class_{k}", Everywhere()) for k in (1, 2)]


def image_of(shape: tuple[int, ...] = (5, 7, 11), n_channels: int = 1) -> Volume:
    image = volume(oblique_grid(shape, (0.7, 1.1, 2.3)[: len(shape)]), n_channels, seed=1)
    return image.with_data(image.data.astype(np.float64) - 1)


def network(*middle: nn.Module, rank: int = 3, n_channels: int = 1, seed: int = 0) -> nn.Sequential:
    """Convolutions with modules between."""
    convolution = nn.Conv3d if rank == 3 else nn.Conv2d
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = [convolution(n_channels, 4, 3, padding=1)]
        for module in middle:
            layers += [module, convolution(4, 4, 3, padding=1)]
        return nn.Sequential(*layers, convolution(4, 3, 1))


class Calls(nn.Module):
    """A function between two convolutions."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv3d(1, 4, 1), nn.Conv3d(4, 3, 1)
        self.function = function

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.last(self.function(self.first(windows))))


class Twice(Calls):
    """One activation module, used twice."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return super().forward(self.function(windows))


@pytest.mark.parametrize(("shape", "n_channels"), [((5, 7, 11), 2), ((3, 7, 5), 1), ((6, 13), 2)])
@pytest.mark.parametrize("baseline", [Constant(0.4), MeanImage()], ids=["constant", "mean"])
def test_of_a_linear_network_is_input_times_gradient(
    shape: tuple[int, ...], n_channels: int, baseline: Baseline
) -> None:
    rank = len(shape)
    weight = np.random.default_rng(0).normal(size=(3, n_channels)).astype(np.float32)
    window = WindowSettings((4, 5, 6)[:rank], overlap=0.5, blend="gaussian")
    model = describe(Linear(weight, [1.0, 2.0, 3.0]), rank=rank, n_channels=n_channels,
                     window=window)  # fmt: skip
    image = image_of(shape, n_channels)
    targets = [*ALL, Difference(*ALL)]
    found = explain(model, image, targets, DeepLift(baseline), compute=DOUBLE)
    wanted = explain(model, image, targets, InputXGradient(baseline), compute=DOUBLE)
    for name, attribution in found.attributions.items():
        np.testing.assert_allclose(attribution.values, wanted[name].values, rtol=0, atol=1e-12)
        assert attribution.gap == pytest.approx(0, abs=1e-9)
    by_hand = weight[2].reshape(-1, *[1] * rank) * image.data
    if baseline == Constant(0.4):
        by_hand = weight[2].reshape(-1, *[1] * rank) * (image.data - 0.4)
        np.testing.assert_allclose(found[ALL[1].name].values, by_hand, rtol=0, atol=1e-12)


@pytest.mark.parametrize("is_in_place", [False, True])
def test_of_a_rectified_sum_by_hand(is_in_place: bool) -> None:
    """T = max(2a − b − 1, 0): Δout/Δin times each channel's change, also where the slope is 0."""
    first, last = Linear([[2.0, -1.0]], [-1.0]), Linear([[0.0], [1.0], [-3.0]], [7.0] * 3)
    net = nn.Sequential(first, nn.ReLU(inplace=is_in_place), last)
    image = image_of(n_channels=2)
    result = explain(describe(net, n_channels=2, window=WINDOW), image, ALL,
                     DeepLift(Constant(1.5)), compute=DOUBLE)  # fmt: skip
    a, b = image.data
    inside, start = 2 * a - b - 1, 2 * 1.5 - 1.5 - 1  # 0.5 at the baseline
    multiplier = (np.maximum(inside, 0) - start) / (inside - start)
    assert ((inside < 0).sum() > 9) & ((inside > 0).sum() > 9)
    wanted = np.stack([2 * (a - 1.5) * multiplier, -(b - 1.5) * multiplier])
    np.testing.assert_allclose(result[ALL[0].name].values, wanted, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result[ALL[1].name].values, -3 * wanted, rtol=0, atol=1e-9)


COMPLETE: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: network(nn.ReLU(), nn.ReLU(inplace=True)),
    "leaky relu, elu": lambda: network(nn.LeakyReLU(0.2), nn.ELU()),
    "sigmoid, tanh, softplus": lambda: network(nn.Sigmoid(), nn.Tanh(), nn.Softplus()),
    "batch norm, dropout": lambda: network(nn.BatchNorm3d(4), nn.ReLU(), nn.Dropout()).train(),
    "max pooling": lambda: network(
        nn.Sequential(nn.ReLU(), nn.MaxPool3d((2, 1, 2)), nn.Upsample(scale_factor=(2, 1, 2)))
    ),
}


@pytest.mark.parametrize("shape", [(5, 7, 11), (3, 7, 5)])
@pytest.mark.parametrize("name", COMPLETE)
def test_the_map_sums_to_the_change(name: str, shape: tuple[int, ...]) -> None:
    image = image_of(shape)
    result = explain(describe(COMPLETE[name](), window=WINDOW), image, [*ALL, Difference(*ALL)],
                     DeepLift(Constant(0.3)), compute=DOUBLE)  # fmt: skip
    for attribution in result.attributions.values():
        assert attribution.values.any()
        assert attribution.gap == pytest.approx(0, abs=1e-8 * abs(attribution.score))
    assert not result.findings
    assert (result.kind, result.unit) == ("contribution", "logit")


@pytest.mark.parametrize("name", ["UNet", "BasicUNet"])
def test_networks_of_monai_with_batch_norm(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: nn.Module = (
            UNet(2, 1, 3, (4, 8), (2,), act="relu", norm="batch", num_res_units=1)
            if name == "UNet"
            else BasicUNet(2, 1, 3, (4,) * 6, act="relu", norm="batch")
        )
    size = (32, 16)
    image = image_of((30, 16))
    result = explain(describe(net, rank=2, window=size), image, ALL, DeepLift(), compute=DOUBLE)
    for attribution in result.attributions.values():
        assert attribution.gap == pytest.approx(0, abs=1e-8 * abs(attribution.score))


def test_views_add_up() -> None:
    image = image_of()
    folds = [network(nn.ReLU(), seed=s) for s in (0, 1)]

    def values(*nets: nn.Module) -> np.ndarray:
        model = Mirrored(nets, (0, 2), n_classes=3, window=WINDOW)
        result = explain(model, image, ALL, DeepLift(), compute=DOUBLE)
        assert result[ALL[0].name].gap == pytest.approx(0, abs=1e-9)
        return result[ALL[0].name].values

    np.testing.assert_allclose(
        values(*folds), (values(folds[0]) + values(folds[1])) / 2, rtol=0, atol=1e-12
    )


def test_batches_of_windows_change_nothing() -> None:
    model = describe(COMPLETE["max pooling"](), window=WINDOW)
    one, many = (
        explain(model, image_of(), ALL, DeepLift(),
                compute=Compute("cpu", precision="float64", batch_size=n))[ALL[1].name].values
        for n in (1, 8)
    )  # fmt: skip
    assert np.array_equal(one, many)


@pytest.mark.parametrize("n_axes", [0, 2])
def test_passes_are_those_told(n_axes: int) -> None:
    net, image = Recorder(network(nn.ReLU())), image_of()
    model: Model = Mirrored([net], range(n_axes), n_classes=3, window=WINDOW)
    with open_pipeline(model, image, Compute("cpu", batch_size=3)) as pipeline:
        question = ask(pipeline, image, [*ALL, ClassTarget("class_1")], None, seed=0)
        _ = question.linear
        told = DeepLift().passes(question)
        net.clear()
        before = (pipeline.passes.n_forward, pipeline.passes.n_backward)
        DeepLift().attribute(question, lambda box, values: None)
        ran = (pipeline.passes.n_forward - before[0], pipeline.passes.n_backward - before[1])
    assert ran == (told.n_forward, told.n_backward)
    assert net.n_windows == told.n_forward > 4 * len(pipeline.plan)


def test_an_absent_class_is_zero() -> None:
    net = network(nn.ReLU())
    with torch.no_grad():
        net[-1].bias[2] = -1e6
    result = explain(describe(net), image_of(), [ClassTarget("class_2"), ALL[0]], DeepLift())
    assert not result["class_2"].values.any()
    assert [f.code for f in result.findings if f.target == "class_2"] == ["VX103"]


# -- refusals -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("module", "text"),
    [
        (nn.PReLU(), r"PReLU \(1 times\)"),
        (nn.GELU(), r"GELU \(1 times\)"),
        (nn.Softmax(1), r"Softmax \(1 times\)"),
        (nn.InstanceNorm3d(4), r"InstanceNorm3d \(1 times\)"),
        (nn.GroupNorm(2, 4), r"GroupNorm \(1 times\)"),
        (nn.BatchNorm3d(4, track_running_stats=False), r"BatchNorm3d \(1 times\)"),
        (nn.AdaptiveMaxPool3d((4, 5, 6)), r"AdaptiveMaxPool3d \(1 times\)"),
        (type("MyReLU", (nn.ReLU,), {})(), r"MyReLU \(1 times\)"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_modules_without_a_rule_are_refused_before_running(module: nn.Module, text: str) -> None:
    net, image = Recorder(network(module)), image_of()
    with open_pipeline(describe(net), image, Compute("cpu")) as pipeline:
        question = ask(pipeline, image, ALL, None, seed=0)
        net.clear()
        with pytest.raises(MethodError, match=text):
            DeepLift().attribute(question, lambda box, values: None)
        with pytest.raises(MethodError, match="integrated_gradients"):
            DeepLift().passes(question)
    assert net.n_windows == 0


@pytest.mark.parametrize(
    ("net", "text"),
    [
        (Calls(torch.relu), r"it calls relu\(\)"),
        (Calls(lambda x: F.leaky_relu(x, 0.1)), r"it calls leaky_relu\(\)"),
        (Calls(lambda x: F.max_pool3d(x, 3, 1, 1)), r"it calls max_pool3d\(\)"),
        (Calls(lambda x: x * x.mean()), r"it calls mul\(\)"),
        (Calls(lambda x: x**2), r"it calls pow\(\)"),
        (Calls(lambda x: x / x.std()), r"it calls div\(\); it calls std\(\)|truediv"),
        (Twice(nn.ReLU()), r"it uses inner.function 2 times|it uses function 2 times"),
    ],
    ids=["relu", "leaky_relu", "max_pool", "mul", "pow", "div", "twice"],
)
def test_steps_without_a_rule_are_refused_at_the_first_window(net: nn.Module, text: str) -> None:
    recorder, image = Recorder(net), image_of()
    emitted: list[Any] = []
    with open_pipeline(describe(recorder), image, Compute("cpu")) as pipeline:
        question = ask(pipeline, image, ALL, None, seed=0)
        _ = question.linear
        recorder.clear()
        with pytest.raises(MethodError, match=text):
            DeepLift().attribute(question, lambda box, values: emitted.append(box))
    assert recorder.n_windows == 2  # image and baseline
    assert not emitted


def test_targets_that_are_not_linear_are_refused() -> None:
    target = ClassTarget("class_1", score="probability")
    with pytest.raises(MethodError, match=r"not so: class_1\[probability\]; explain the logit"):
        explain(describe(network(nn.ReLU())), image_of(), [ALL[0], target], DeepLift())


def test_a_backward_hook_is_refused() -> None:
    net = network(nn.ReLU())
    net[1].register_full_backward_hook(lambda *_: None)
    with pytest.raises(MethodError, match="1 has a backward hook"):
        explain(describe(net), image_of(), ALL, DeepLift())


def test_what_cannot_be_seen_shows_in_the_gap() -> None:
    result = explain(describe(Calls(torch.sin)), image_of(), ALL, DeepLift(), compute=DOUBLE)
    found = [f for f in result.findings if f.code == "VX102"]
    assert [f.target for f in found] == [target.name for target in ALL]
    assert "no rule" in found[0].evidence
    gap = result[ALL[0].name].gap
    assert gap is not None
    assert abs(gap) > 0.1


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


class FailsLate(nn.Identity):
    """Raises, when it is told to, after the activations before it have run."""

    is_broken = False

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        if self.is_broken and torch.is_grad_enabled():
            raise RuntimeError("broken on purpose")
        return windows


def test_the_model_is_unchanged() -> None:
    net = network(nn.ReLU(), nn.MaxPool3d(1), FailsLate())
    net[1].input = "the user's own"
    before, image = state(net), image_of()
    explain(describe(net, window=WINDOW), image, ALL, DeepLift())
    assert state(net) == before
    with pytest.raises(ModelError, match="fails on purpose"):
        explain(describe(Failing(net, after=12), window=WINDOW), image, ALL, DeepLift())
    assert state(net) == before
    net[5].is_broken = True
    before = state(net)
    with pytest.raises(ModelError, match="broken on purpose"):
        explain(describe(net, window=WINDOW), image, ALL, DeepLift())
    assert state(net) == before
    assert net[1].input == "the user's own"
