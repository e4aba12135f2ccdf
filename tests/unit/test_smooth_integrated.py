"""Smooth IG and its square: closed forms, what the noise does to the gap, passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from voxplain.attribution import (
    ClassTarget,
    Constant,
    Everywhere,
    FunctionTarget,
    IntegratedGradients,
    Mask,
    Voxel,
    explain,
)
from voxplain.attribution.ask import ask
from voxplain.attribution.method import Method
from voxplain.attribution.smooth_integrated import SmoothIG, SmoothIGSquared
from voxplain.attribution.targets import Target
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.inference.noise import NoiseField
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import Model
from voxplain.records import Explanation
from voxplain.space.box import Box
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import Linear, Mirrored, Quadratic, Recorder, SmallNet, describe
from voxplain.testing.phantoms import oblique_grid, volume

SHAPES = [(5, 7, 11), (3, 9, 4), (7, 9)]  # windows, padded, 2D
W = np.array([[1.0, -2.0], [0.5, 3.0], [0.25, 1.5]])
K = 1  # the class explained
FLOAT64 = Compute("cpu", precision="float64", batch_size=4)
PLAIN = ClassTarget("class_1", Everywhere())
SEED = 7
METHODS: list[Method] = [
    SmoothIG(n=2, points=3, baseline=Constant(0.2)),
    SmoothIGSquared(n=3, points=2, rule="agg2exp"),
]
SMOOTH = ClassTarget("class_1", Everywhere(), score="probability")


def image_of(shape: tuple[int, ...] = SHAPES[0]) -> Volume:
    made = volume(oblique_grid(shape, (0.7, 1.1, 2.3)[: len(shape)]), n_channels=2, seed=4)
    return made.with_data(made.data.astype(np.float64))


def model_of(net: Any, rank: int = 3) -> Model:
    window = WindowSettings((4, 5, 6)[:rank], overlap=0.4, blend="gaussian")
    return describe(net, rank=rank, n_channels=2, window=window)


def views_of(rank: int = 3) -> Model:
    nets = [SmallNet(rank, 2, 3, seed=s) for s in (5, 6)]
    window = WindowSettings((4, 5, 6)[:rank], overlap=0.4)
    return Mirrored(nets, axes=(0,), rank=rank, n_channels=2, window=window)


def run(model: Model, image: Volume, method: Any, target: Any = PLAIN) -> Explanation:
    return explain(model, image, target, method, seed=SEED, compute=FLOAT64)


def values(model: Model, image: Volume, method: Any) -> np.ndarray:
    return run(model, image, method)[PLAIN.name].values.astype(np.float64)


def gap(result: Explanation, t: int = 0) -> float:
    value = result.targets[t].gap
    assert value is not None
    return value


def weights(rank: int) -> np.ndarray:
    return np.asarray(W[K].reshape(2, *[1] * rank))


def corner(image: Volume) -> Mask:
    mask = np.zeros(image.grid.shape, dtype=bool)
    mask[tuple(slice(n - 2, n) for n in image.grid.shape)] = True
    return Mask(LabelMap.of(mask, image.grid), name="corner")


def copies(image: Volume, n: int, noise: float) -> np.ndarray:
    """The noisy copies, (n, n_channels, *shape)."""
    field = NoiseField(SEED, case=int(image.sha256()[:16], 16))
    sigma = noise * np.ptp(image.data, axis=tuple(range(1, image.data.ndim)), keepdims=True)
    box = Box.whole(image.grid.shape)
    return np.stack([image.data + sigma * field.crop(i, 2, box) for i in range(n)])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["linear", "quadratic"])
def test_closed_forms(shape: tuple[int, ...], name: str) -> None:
    """IG of a linear network is W (x − b), of a square W (x² − b²), for each copy."""
    image, rank, b = image_of(shape), len(shape), 0.4
    model = model_of(Linear(W) if name == "linear" else Quadratic(W), rank)
    x = copies(image, 3, 0.2)
    each = weights(rank) * (x - b if name == "linear" else x**2 - b**2)
    settings: dict[str, Any] = {"n": 3, "noise": 0.2, "points": 1, "baseline": Constant(b)}
    found = values(model, image, SmoothIG(**settings))
    np.testing.assert_allclose(found, each.mean(0), rtol=0, atol=1e-10)
    found = values(model, image, SmoothIGSquared(**settings))
    np.testing.assert_allclose(found, (each**2).mean(0), rtol=0, atol=1e-10)


@pytest.mark.parametrize("target", [PLAIN, SMOOTH], ids=["logit", "probability"])
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_without_noise_it_is_integrated_gradients(target: ClassTarget, is_mirrored: bool) -> None:
    image = image_of()
    model = views_of() if is_mirrored else model_of(SmallNet(3, 2, 3, seed=5))
    plain = run(model, image, IntegratedGradients(n=4, rule="midpoint"), target)
    method = SmoothIG(n=2, noise=1e-9, points=4, rule="midpoint")
    result = run(model, image, method, target)
    wanted = plain[target.name].values
    atol = 1e-7 * np.abs(wanted).max()
    np.testing.assert_allclose(result[target.name].values, wanted, rtol=0, atol=atol)
    assert gap(result) == pytest.approx(gap(plain), abs=1e-6)
    squared = run(model, image, SmoothIGSquared(n=2, noise=1e-9, points=4, rule="midpoint"), target)
    np.testing.assert_allclose(
        squared[target.name].values, wanted**2, rtol=0, atol=1e-7 * (wanted**2).max()
    )
    assert squared.targets[0].gap is None


def test_the_gap_holds_what_the_noise_does_to_the_score() -> None:
    """Of a square: Σ W (mean (x + ε)² − x²); more points do not change it."""
    image = image_of()
    noise = (weights(3) * ((copies(image, 4, 0.15) ** 2).mean(0) - image.data**2)).sum()
    for points in (1, 6):
        result = run(model_of(Quadratic(W)), image, SmoothIG(n=4, points=points))
        assert gap(result) == pytest.approx(noise, rel=1e-9)


def test_the_map_does_not_hang_on_the_order_of_windows() -> None:
    model, image = model_of(SmallNet(3, 2, 3, seed=5)), image_of()
    for method in METHODS:
        maps = [
            explain(model, image, SMOOTH, method, seed=SEED,
                    compute=Compute("cpu", "float64", n))[SMOOTH.name].values
            for n in (1, 5)
        ]  # fmt: skip
        np.testing.assert_allclose(maps[0], maps[1], rtol=0, atol=1e-12 * np.abs(maps[0]).max())
        other = explain(model, image, SMOOTH, method, seed=SEED + 1, compute=FLOAT64)
        assert np.abs(other[SMOOTH.name].values - maps[0]).max() > 1e-3 * np.abs(maps[0]).max()


def questions(image: Volume) -> dict[str, list[Target]]:
    return {
        "one": [PLAIN],
        "smooth": [SMOOTH],
        "smooth and not": [ClassTarget("class_2", corner(image)), SMOOTH],
        "two corners": [
            ClassTarget("class_2", corner(image), score="margin"),
            ClassTarget("class_1", Voxel((0,) * image.grid.rank), score="margin"),
        ],
        "dice": [ClassTarget("class_1", corner(image), reduction="dice")],
        "function": [FunctionTarget(lambda logits: (logits[0] * logits[1]).sum(), "f")],
    }


@pytest.mark.parametrize("name", questions(image_of()))
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_passes_are_those_told(name: str, is_mirrored: bool) -> None:
    image = image_of()
    net = Recorder(SmallNet(3, 2, 3, seed=2))
    model = (
        Mirrored([net], axes=(1,), n_channels=2, window=(4, 5, 6))
        if is_mirrored
        else (model_of(net))
    )
    with open_pipeline(model, image, FLOAT64) as pipeline:
        question = ask(pipeline, image, questions(image)[name], None, seed=SEED)
        _ = question.regions, question.linear
        before = pipeline.passes.n_backward
        for method in METHODS:
            net.clear()
            told = method.passes(question)
            method.attribute(question, lambda box, values: None)
            assert net.n_windows == told.n_forward > 0
            assert pipeline.passes.n_backward - before == told.n_backward > 0
            before = pipeline.passes.n_backward


def test_several_targets_are_those_alone() -> None:
    model, image = model_of(SmallNet(3, 2, 3, seed=5)), image_of()
    targets = [
        ClassTarget("class_2", corner(image)),
        ClassTarget("class_1", corner(image), score="margin", label="margin"),
        SMOOTH,
    ]
    for method in METHODS:
        both = run(model, image, method, targets)
        for t, target in enumerate(targets):
            alone = run(model, image, method, target)
            np.testing.assert_allclose(
                both[target.name].values, alone[target.name].values, rtol=0, atol=1e-10
            )
            assert np.abs(alone[target.name].values).max() > 1e-6
            if both.kind == "contribution":
                assert gap(both, t) == pytest.approx(gap(alone), abs=1e-9)


@pytest.mark.parametrize("kind", [SmoothIG, SmoothIGSquared])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "n is at least 1 noise copy, got 0"),
        ({"noise": 0.0}, "noise is a share of the intensity range, 0 < noise < 10; got 0.0"),
        ({"noise": float("nan")}, "0 < noise < 10; got nan"),
        ({"points": 0}, "points is at least 1 point on each path, got 0"),
        ({"rule": "simpson"}, "rule is one of gauss_legendre, midpoint, agg2exp; got 'simpson'"),
    ],
)
def test_refused(kind: type[Method], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        kind(**settings)
