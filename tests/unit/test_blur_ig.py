"""Blur IG: closed forms along the path of blurs, completeness, passes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from voxplain.attribution import (
    Blurred,
    ClassTarget,
    Everywhere,
    FunctionTarget,
    InputXGradient,
    Mask,
    Voxel,
    explain,
)
from voxplain.attribution.ask import ask
from voxplain.attribution.blur_ig import BlurIG, Spacing
from voxplain.attribution.method import Method
from voxplain.attribution.targets import Target
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import Model, wrap
from voxplain.records import Explanation
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import (
    Linear,
    Mirrored,
    Pooled,
    Product,
    Quadratic,
    Recorder,
    SmallNet,
    describe,
)
from voxplain.testing.phantoms import oblique_grid, volume

SHAPES = [(5, 7, 11), (3, 9, 4), (7, 9)]  # windows, padded, 2D
W = np.array([[1.0, -2.0], [0.5, 3.0], [0.25, 1.5]])
K = 1  # the class explained
FLOAT64 = Compute("cpu", precision="float64", batch_size=32)
PLAIN = ClassTarget("class_1", Everywhere())
SEED = 7
SPACINGS: list[Spacing] = ["sigma", "variance"]
METHODS: list[Method] = [BlurIG(n=3, max_sigma_mm=2.0), BlurIG(n=2, spacing="variance")]
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


def blurred(image: Volume, sigma_mm: float) -> np.ndarray:
    if sigma_mm == 0:
        return image.data
    sigma = sigma_mm / np.array(image.grid.spacing)
    return np.stack([gaussian_filter(c, sigma, mode="nearest") for c in image.data])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("n", [1, 3])
def test_a_linear_network_and_a_square(shape: tuple[int, ...], spacing: Spacing, n: int) -> None:
    """W (x − blurred) and W (x² − blurred²), whatever lies between."""
    image, rank = image_of(shape), len(shape)
    start = blurred(image, 2.5)
    method = BlurIG(n, 2.5, spacing)
    found = values(model_of(Linear(W), rank), image, method)
    wanted = weights(rank) * (image.data - start)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)
    found = values(model_of(Quadratic(W), rank), image, method)
    wanted = weights(rank) * (image.data**2 - start**2)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_product_takes_the_blurs_between(spacing: Spacing) -> None:
    image = image_of()
    sigmas = [2.5 * (k / 4 if spacing == "sigma" else (k / 4) ** 0.5) for k in range(5)]
    path = [blurred(image, s) for s in sigmas]
    wanted = np.zeros_like(image.data)
    for sharp, soft in pairwise(path):
        wanted += W[K, 0] * ((sharp + soft) / 2)[::-1] * (sharp - soft)
    result = run(model_of(Product(W[:, 0])), image, BlurIG(4, 2.5, spacing))
    np.testing.assert_allclose(result[PLAIN.name].values, wanted, rtol=0, atol=1e-10)
    assert gap(result) == pytest.approx(0, abs=1e-9)  # quadratic along each step
    total = W[K, 0] * (path[0].prod(0) - path[-1].prod(0)).sum()
    assert result[PLAIN.name].total() == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("target", [PLAIN, SMOOTH], ids=["logit", "probability"])
@pytest.mark.parametrize(
    ("shape", "is_mirrored"), [*((s, False) for s in SHAPES), *((s, True) for s in SHAPES[1:])]
)
def test_the_gap_vanishes_with_more_steps(
    target: ClassTarget, shape: tuple[int, ...], is_mirrored: bool
) -> None:
    image, rank = image_of(shape), len(shape)
    model = views_of(rank) if is_mirrored else model_of(SmallNet(rank, 2, 3, seed=5), rank)
    results = [run(model, image, BlurIG(n, 3.0), target) for n in (16, 64)]
    gaps = [abs(gap(result)) for result in results]
    assert gaps[1] < gaps[0] / 6  # (64/16)² = 16
    change = results[1][target.name].total()
    assert gaps[1] < 1e-3 * abs(change)


def test_the_path_starts_at_the_blurred_baseline() -> None:
    image, model = image_of(), model_of(SmallNet(3, 2, 3, seed=5))
    start = run(model, image, InputXGradient(Blurred(3.0)), SMOOTH)
    result = run(model, image, BlurIG(2, 3.0), SMOOTH)
    ends = [r[SMOOTH.name].total() - gap(r) for r in (start, result)]
    assert ends[0] == pytest.approx(ends[1], abs=1e-9)


def test_a_classifier() -> None:
    image = image_of((7, 9))
    model = wrap(
        Pooled(Quadratic(W)), kind="classification", classes=("a", "b", "c"),
        channels=("x", "y"), rank=2, check=False,
    )  # fmt: skip
    result = run(model, image, BlurIG(3, 2.0), ClassTarget("b"))
    wanted = weights(2) * (image.data**2 - blurred(image, 2.0) ** 2) / 63
    np.testing.assert_allclose(result["b"].values, wanted, rtol=0, atol=1e-10)


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "n is at least 1 step, got 0"),
        ({"max_sigma_mm": 0.0}, "max_sigma_mm is positive and finite, got 0.0"),
        ({"max_sigma_mm": float("inf")}, "positive and finite, got inf"),
        ({"max_sigma_mm": float("nan")}, "positive and finite, got nan"),
        ({"spacing": "log"}, "spacing is sigma or variance, got 'log'"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        BlurIG(**settings)
