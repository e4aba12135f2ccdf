"""Cascades against closed forms and Quantus: plans, targets held, passes, entropy, smoothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import sobel
from sklearn.metrics import auc
from torch import nn

from voxplain.assess.cascade import (
    METRICS,
    CascadeSettings,
    Row,
    area_under_cascade,
    cascade_passes,
    plan,
    run_cascade,
)
from voxplain.assess.random_entropy import ENTROPY_RISE, Smoothed, entropy_rise, histogram_entropy
from voxplain.assess.randomised import WeightLayer, randomised
from voxplain.attribution import ClassTarget, Everywhere, Gradient, InputXGradient, Voxel
from voxplain.attribution.ask import ask
from voxplain.attribution.baselines import Constant
from voxplain.attribution.maps import compute_maps
from voxplain.attribution.question import Question
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import Model, wrap
from voxplain.records.metric import CONSTANT_MAP, EMPTY_MAP, EMPTY_MASK, Measured
from voxplain.testing.models import Pooled, Quadratic, Recorder, SmallNet, describe
from voxplain.testing.phantoms import oblique_grid, volume

DOUBLE = Compute("cpu", "float64")
IMAGE = volume(oblique_grid((7, 6, 8)), seed=2)
FLAT = volume(oblique_grid((7, 11), (0.7, 1.1)), seed=2)
TARGETS = [ClassTarget("class_1", Everywhere()), ClassTarget("class_2")]
ALL_ORDERS = ("top_down", "bottom_up", "independent")
Array = NDArray[np.floating]


def pearson(a: Array, b: Array, **_: Any) -> Measured:
    return Measured(float(np.corrcoef(a.ravel(), b.ravel())[0, 1]))


@dataclass(frozen=True)
class Edges:
    """Gradient magnitude of the image; no weight has a say."""

    values: Array

    @classmethod
    def of(cls, question: Question) -> Edges:
        data = question.pipeline.image.data.astype(np.float64).sum(0)
        edges = np.sqrt(sum(sobel(data, axis) ** 2 for axis in range(data.ndim)))
        return cls(np.stack([edges] * len(question.targets)))

    def magnitude(self) -> Array:
        return self.values


class Segmenter(nn.Module):
    """Convolution, norm, PReLU, twice; then logits."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            self.body = nn.Sequential(
                nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.PReLU(),
                nn.Conv3d(4, 4, 3, padding=1), nn.PReLU(init=0.1), nn.Conv3d(4, 3, 1),
            )  # fmt: skip
            for p in self.body.parameters():
                p.data += 0.2 * torch.randn_like(p)
        self.body[1].running_mean += 0.5
        self.eval()

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.body(windows))


class Halved(nn.Conv2d):
    """A convolution that is drawn without chance: every weight is -1/2 of ever larger ones."""

    def reset_parameters(self) -> None:
        for p in self.parameters():
            p.data = torch.linspace(-0.5, 1, p.numel(), dtype=p.dtype).reshape(p.shape) ** 2 - 0.2


class Flat(nn.Module):
    """A classifier of three such convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Halved(1, 3, 3, padding=1), Halved(3, 3, 3, padding=1)
        self.three = Halved(3, 3, 1)
        generator = torch.Generator().manual_seed(1)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.two(torch.tanh(self.one(windows))))
        return torch.as_tensor(self.three(hidden).flatten(2).mean(-1))


def segmenter(net: nn.Module | None = None) -> Model:
    return describe(Segmenter() if net is None else net, window=(5, 6, 4))


def classifier(net: nn.Module) -> Model:
    return wrap(
        net, classes=["a", "b", "c"], channels=["c"], rank=2, kind="classification", check=False
    )


def run(model: Model, settings: CascadeSettings, compute: Compute = DOUBLE, **more: Any) -> Any:
    sources = more.pop("sources", {"gradient": Gradient(), "edges": Edges.of})
    return run_cascade(
        model, more.pop("image", IMAGE), more.pop("targets", TARGETS), sources,
        {"pearson": pearson}, settings, regions=None, seed=0, compute=compute, **more,
    )[:2]  # fmt: skip


def chosen(rows: list[Row], **wanted: Any) -> list[float]:
    return [r.value for r in rows if all(getattr(r, k) == v for k, v in wanted.items())]


def test_plans() -> None:
    layers = [WeightLayer(name, "Conv", n) for n, name in enumerate("abcde", 1)]
    down = plan(layers, 2, "top_down")
    assert [s.layers for s in down] == [(), ("e", "d"), ("c", "b", "a")]
    assert [s.n_parameters for s in down] == [0, 9, 6]
    assert down[2].randomised == ("e", "d", "c", "b", "a")
    up = plan(layers, 8, "bottom_up")
    assert [s.layers for s in up] == [(), ("a",), ("b",), ("c",), ("d",), ("e",)]
    assert up[3].randomised == ("a", "b", "c")
    alone = plan(layers, 3, "independent")
    assert [s.randomised for s in alone] == [s.layers for s in alone]
    assert sum(len(s.layers) for s in alone) == 5


def test_step_0_is_the_network_itself_and_edges_never_change() -> None:
    rows, steps = run(segmenter(), CascadeSettings(ALL_ORDERS, 3, seeds=(0, 1)))
    assert list(steps) == list(ALL_ORDERS)
    assert {r.stage for r in rows} == {f"{o}:{k}" for o in ALL_ORDERS for k in range(4)}
    assert len({(r.stage, r.seed, r.method, r.target, r.metric) for r in rows}) == len(rows)
    np.testing.assert_allclose(chosen(rows, step=0, metric="pearson"), 1, atol=1e-12)
    assert set(chosen(rows, step=0, metric="target_change")) == {0.0}
    assert set(chosen(rows, step=0, metric="prediction_change")) == {0.0}
    np.testing.assert_allclose(chosen(rows, method="edges"), 1, atol=1e-12)
    last = chosen(rows, order="top_down", step=3, method="gradient", metric="pearson")
    assert len(last) == 4
    assert max(last) < 0.8
    assert min(chosen(rows, order="top_down", step=3, metric="target_change")) > 0.01


def test_both_directions_end_at_the_same_network() -> None:
    rows, _ = run(segmenter(), CascadeSettings(("top_down", "bottom_up"), 2))
    ends = [
        [r[3:] for r in rows if r.order == order and r.step == 2]
        for order in ("top_down", "bottom_up")
    ]
    assert ends[0] == ends[1]
    assert ends[0] != [r[3:] for r in rows if r.order == "top_down" and r.step == 1]


def test_the_target_keeps_the_mask_of_the_trained_network() -> None:
    model = segmenter()
    rows, steps = run(model, CascadeSettings(n_stages=1), sources={})
    with open_pipeline(model, IMAGE, DOUBLE) as pipeline:
        logits = pipeline.logits(pipeline.clean, pipeline.inner)
    with (
        randomised(model, steps["top_down"][1].randomised, 0),
        open_pipeline(model, IMAGE, DOUBLE) as pipeline,
    ):
        random = pipeline.logits(pipeline.clean, pipeline.inner)
    mask = logits.argmax(0) == 2
    before, after = float(logits[2][mask].sum()), float(random[2][mask].sum())
    found = chosen(rows, step=1, target=TARGETS[1].name, metric="target_change")
    np.testing.assert_allclose(found, abs(after - before) / abs(before), rtol=1e-12)
    a, b = logits.argmax(0), random.argmax(0)
    dice = 2 * int(((a == b) & (a > 0)).sum()) / int((a > 0).sum() + (b > 0).sum())
    found = chosen(rows, step=1, metric="prediction_change")
    np.testing.assert_allclose(found, 1 - dice, rtol=1e-12)


@pytest.mark.parametrize("targets", [TARGETS, [ClassTarget("class_1", Voxel((0, 1, 0)))]])
def test_passes_are_told_before_and_do_not_depend_on_the_batch(targets: list[ClassTarget]) -> None:
    settings = CascadeSettings(("top_down", "independent"), 2, seeds=(3, 4))
    seen: list[tuple[int, int]] = []
    found = []
    for batch_size in (1, 3):
        net = Recorder(Segmenter()).eval()
        model = segmenter(net)
        compute = replace(DOUBLE, batch_size=batch_size)
        seen.clear()
        rows, _ = run(model, settings, compute, targets=targets, progress=lambda *n: seen.append(n))
        with open_pipeline(model, IMAGE, DOUBLE) as pipeline:
            n_recorded = net.n_windows
            question = ask(pipeline, IMAGE, targets, None, 0)
            told = cascade_passes(question, {"g": Gradient(), "e": Edges.of}, 8)
        assert n_recorded == told.n_forward + 1
        assert seen[-1] == (told.total, told.total)
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
        found.append([r.value for r in rows])
    np.testing.assert_allclose(found[0], found[1], atol=1e-10)


def test_a_failing_source_leaves_the_trained_weights() -> None:
    net = Segmenter()
    before = {name: (id(p), p.data_ptr(), p.detach().clone()) for name, p in net.named_parameters()}
    n_calls = 0

    def failing(question: Question) -> Edges:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 2:
            raise ZeroDivisionError
        return Edges.of(question)

    with pytest.raises(ZeroDivisionError):
        run(segmenter(net), CascadeSettings(), sources={"failing": failing})
    for name, p in net.named_parameters():
        assert before[name][:2] == (id(p), p.data_ptr())
        assert torch.equal(before[name][2], p)


def test_pictures_are_given_every_map() -> None:
    seen: dict[tuple[str, int, str], tuple[int, ...]] = {}

    def picture(stage: str, seed: int, method: str, maps: Array) -> None:
        seen[stage, seed, method] = maps.shape

    run(segmenter(), CascadeSettings(n_stages=2), picture=picture)
    stages = [f"top_down:{k}" for k in range(3)]
    assert list(seen) == [(s, 0, m) for s in stages for m in ("gradient", "edges")]
    assert set(seen.values()) == {(2, *IMAGE.grid.shape)}


def test_the_class_of_the_random_network_on_request() -> None:
    net = Flat()
    net.three.bias.data = torch.tensor([5.0, 0.0, 0.0])
    model = classifier(net)
    target = ClassTarget()
    held, steps = run(model, CascadeSettings(), image=FLAT, targets=target)
    own, _ = run(model, CascadeSettings(is_fixed=False), image=FLAT, targets=target)
    for step in steps["top_down"]:
        with randomised(model, step.randomised, 0), open_pipeline(model, FLAT, DOUBLE) as pipeline:
            logits = pipeline.logits(pipeline.clean, pipeline.inner).reshape(-1)
        if step.number == 0:
            first, index = logits, int(logits.argmax())
        changes = [abs(float(t - first[index])) for t in (logits[index], logits.max())]
        for rows, change in zip((held, own), changes, strict=True):
            found = chosen(rows, step=step.number, metric="target_change")
            np.testing.assert_allclose(found, change / abs(float(first[index])), rtol=1e-9)
            moved = float((logits.softmax(0) - first.softmax(0)).abs().sum()) / 2
            found = chosen(rows, step=step.number, metric="prediction_change")
            np.testing.assert_allclose(found, moved, atol=1e-12)
            flip = chosen(rows, step=step.number, metric="prediction_flip")
            assert flip == [float(int(logits.argmax()) != index)]
    assert 1.0 in chosen(own, metric="prediction_flip")


def test_an_absent_class_is_flagged() -> None:
    model = segmenter()
    with torch.no_grad():
        model.module.get_parameter("body.5.bias")[2] = -100.0
    rows, _ = run(model, CascadeSettings(n_stages=1), sources={})
    flags = {(r.target, r.flags) for r in rows if r.metric == "target_change"}
    assert flags == {(TARGETS[0].name, ()), (TARGETS[1].name, (EMPTY_MASK,))}
    assert np.isnan(chosen(rows, target=TARGETS[1].name, metric="target_change")).all()


@pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])
def test_quantus_walks_the_same_cascade(order: str) -> None:
    """Layers whose draw is the same everywhere, one a step, Pearson of |gradient|."""

    def explain(model: nn.Module, inputs: Array, targets: Array, **_: Any) -> Array:
        leaf = torch.as_tensor(np.asarray(inputs), dtype=torch.float64).requires_grad_()
        logits = model(leaf)
        (made,) = torch.autograd.grad(logits[range(len(leaf)), targets.tolist()].sum(), leaf)
        return made.abs().numpy()

    net = Flat()
    rows, _ = run(
        classifier(net), CascadeSettings((order,)), image=FLAT, targets=ClassTarget("b"),  # type: ignore[arg-type]
        sources={"gradient": Gradient()},
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import quantus

        metric = quantus.MPRT(
            similarity_func=lambda a, b, **_: np.array(
                [pearson(x, y).value for x, y in zip(*np.atleast_2d(a, b), strict=True)]
            ),
            layer_order=order, normalise=False, abs=False, skip_layers=False,
            disable_warnings=True, display_progressbar=False,
        )  # fmt: skip
        found = metric(
            model=Flat().double().eval(), x_batch=FLAT.data[None].astype(np.float64),
            y_batch=np.array([1]), explain_func=explain, device="cpu", channel_first=True,
        )  # fmt: skip
    wanted = [float(np.ravel(values)[0]) for values in found.values()]
    ours = chosen(rows, method="gradient", metric="pearson")
    if order == "independent":  # Quantus starts at the input there
        wanted.reverse()
    else:
        wanted = wanted[-3:]
    np.testing.assert_allclose(ours[1:], wanted[:3], rtol=1e-6)  # ours draws in float32
    assert min(ours[1:]) < 0.9


def test_area_under_a_cascade() -> None:
    values = [1.0, 0.5, 0.4, -0.2]
    np.testing.assert_allclose(area_under_cascade(values), auc(range(4), values) / 3, rtol=1e-12)
    assert area_under_cascade([1.0, 1.0, 1.0]) == 1
    assert np.isnan(area_under_cascade([1.0, np.nan, 0.0]))
    assert np.isnan(area_under_cascade([1.0]))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"orders": ("sideways",)}, "an order is top_down"),
        ({"orders": ()}, "orders are at least one"),
        ({"seeds": (1, 1)}, "seeds are at least one, each once"),
        ({"n_stages": 0}, "n_stages is at least 1, got 0"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(MethodError, match=text):
        CascadeSettings(**settings)


def test_metrics_have_their_own_names() -> None:
    assert len({metric.name for metric in (*METRICS, ENTROPY_RISE)}) == 4


def test_entropy_of_known_histograms() -> None:
    two = np.array([[0.0, 0.0, 0.0], [5.0, 5.0, 5.0]])
    np.testing.assert_allclose(histogram_entropy(two).value, np.log(2), rtol=1e-12)
    ramp = np.arange(40.0).reshape(2, 4, 5)
    np.testing.assert_allclose(histogram_entropy(ramp, 8).value, np.log(8), rtol=1e-12)
    np.testing.assert_allclose(entropy_rise(two, ramp, n_bins=8).value, 2, rtol=1e-12)
    assert entropy_rise(ramp, 3 * ramp).value == 0
    for flat, flag in ((np.zeros(7), EMPTY_MAP), (np.full(7, 2.0), CONSTANT_MAP)):
        value, flags = entropy_rise(flat, ramp)
        assert np.isnan(value)
        assert flags == (flag,)
        assert entropy_rise(ramp, flat) == (-1.0, (flag,))
    with pytest.raises(MethodError, match="n_bins is at least 2, got 1"):
        histogram_entropy(two, 1)


def test_entropy_rise_is_that_of_quantus() -> None:
    rng = np.random.default_rng(3)
    maps = [rng.exponential(size=(1, 7, 11)) ** 3, rng.uniform(size=(1, 7, 11))]

    def explain(model: nn.Module, inputs: Array, targets: Array, **_: Any) -> Array:
        is_trained = torch.equal(model.get_parameter("one.weight").float(), Flat().one.weight)
        return np.stack([maps[not is_trained]] * len(inputs))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import quantus

        metric = quantus.EfficientMPRT(disable_warnings=True)
        (wanted,) = metric(
            model=Flat().eval(), x_batch=FLAT.data[None], y_batch=np.array([1]),
            explain_func=explain, device="cpu", channel_first=True,
        )  # fmt: skip
    np.testing.assert_allclose(entropy_rise(*maps).value, wanted, rtol=1e-12)
    assert wanted > 0


def test_smoothing_adds_what_the_noise_adds() -> None:
    weight = np.array([[0.5, -1.0], [2.0, 0.3], [1.0, 0.0]])
    image = volume(oblique_grid((5, 7, 6)), 2, seed=1)
    model = describe(Quadratic(weight), n_channels=2, window=(4, 5, 6))
    with open_pipeline(model, image, DOUBLE) as pipeline:
        question = ask(pipeline, image, TARGETS[0], None, 0)
        smoothed = Smoothed(Gradient(), n=4, noise=0.2)
        noisy = [image.data, *(smoothed.noisy(question, i) for i in (1, 2, 3))]
        _ = question.regions, question.linear
        before = pipeline.passes.total
        made = smoothed(question)
        assert pipeline.passes.total - before == smoothed.passes(question).total
        single = Smoothed(Gradient(), n=1)(question)
        np.testing.assert_array_equal(single.values, compute_maps(question, Gradient()).values)
    mean = np.mean(np.asarray(noisy, np.float64), axis=0)
    wanted = 2 * weight[1].reshape(2, 1, 1, 1) * mean
    np.testing.assert_allclose(made.values[0], wanted, rtol=1e-6)
    spread = np.ptp(image.data.reshape(2, -1), axis=1)
    for channel in range(2):
        sigma = np.std([copy[channel] - image.data[channel] for copy in noisy[1:]])
        np.testing.assert_allclose(sigma, 0.2 * spread[channel], rtol=0.15)


def test_smoothing_is_that_of_quantus(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Pooled(SmallNet(2)).double()
    image, smoothed = FLAT, Smoothed(InputXGradient(Constant(0.0)), n=5, noise=0.3)
    model = classifier(net)
    with open_pipeline(model, image, DOUBLE) as pipeline:
        question = ask(pipeline, image, ClassTarget("b"), None, 0)
        made = smoothed(question).values[0]
        noise = [smoothed.noisy(question, i) - image.data for i in range(1, 5)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import quantus

        metric = quantus.SmoothMPRT(nr_samples=5, disable_warnings=True)
        fields = iter(noise)
        monkeypatch.setattr(np.random, "randn", lambda *shape: next(fields)[None])
        wanted = metric.explain_smooth_batch_numpy(
            model=net.float(), x_batch=image.data[None], y_batch=np.array([1]), std=1.0,
            method="InputXGradient", device="cpu",
        )  # fmt: skip
    np.testing.assert_allclose(made, wanted[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "make", [lambda: Smoothed(Gradient(), n=0), lambda: Smoothed(Gradient(), noise=0.0)]
)
def test_smoothing_settings_are_checked(make: Callable[[], Smoothed]) -> None:
    with pytest.raises(MethodError, match="got 0"):
        make()
