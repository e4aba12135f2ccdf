"""Guided IG: closed forms of its path, ties, completeness, one path a target, passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from voxplain.attribution import (
    ClassTarget,
    Constant,
    Everywhere,
    FunctionTarget,
    GivenImage,
    IntegratedGradients,
    Mask,
    Voxel,
    explain,
)
from voxplain.attribution.ask import ask
from voxplain.attribution.guided_ig import GuidedIG
from voxplain.attribution.method import Method
from voxplain.attribution.targets import Target
from voxplain.errors import MethodError, ModelError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import Model, wrap
from voxplain.records import Explanation
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import (
    Failing,
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
FLOAT64 = Compute("cpu", precision="float64", batch_size=4)
PLAIN = ClassTarget("class_1", Everywhere())
SEED = 7
METHODS: list[Method] = [GuidedIG(n=2), GuidedIG(n=3, max_distance=0.5, baseline=Constant(0.2))]
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


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("n", "fraction", "distance"), [(1, 0.25, 0.02), (6, 0.25, 0.02), (5, 0.1, 1.0), (4, 1.0, 0.0)]
)
def test_a_linear_network(shape: tuple[int, ...], n: int, fraction: float, distance: float) -> None:
    """W (x − b) on every path: every voxel gets to its end."""
    image, rank = image_of(shape), len(shape)
    method = GuidedIG(n, fraction, distance, Constant(0.4))
    result = run(model_of(Linear(W), rank), image, method)
    wanted = weights(rank) * (image.data - 0.4)
    np.testing.assert_allclose(result[PLAIN.name].values, wanted, rtol=0, atol=1e-10)
    assert gap(result) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        (SHAPES[0], WindowSettings((4, 5, 6), overlap=0.4, blend="gaussian")),
        (SHAPES[0], WindowSettings((4, 5, 6), overlap=0.4, blend="constant")),
        ((2, 3, 4), WindowSettings((5, 6, 9))),  # most is padding, which does not count
    ],
)
def test_the_shallow_channel_goes_first(shape: tuple[int, ...], window: WindowSettings) -> None:
    """From (1, 2) to (3, 5), logit x·y: ∂x = y is the steeper, so y goes first, at ∂y = x = 1.

    Then x goes, at ∂x = y = 5: contributions 3 and 10 in every voxel. The gradients of the
    voxels differ in the last place, since windows overlap; they still count as equal.
    """
    grid = oblique_grid(shape)
    image = Volume(np.stack([np.full(grid.shape, v) for v in (3.0, 5.0)]), grid)
    start = Volume(np.stack([np.full(grid.shape, v) for v in (1.0, 2.0)]), grid)
    model = describe(Product([0.5, 1.0, 2.0]), n_channels=2, window=window)
    guided = GuidedIG(5, 0.25, 1.0, GivenImage(start))  # 5 steps: 3 for y, 2 for x
    found = values(model, image, guided)
    np.testing.assert_allclose(found[0], 10, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found[1], 3, rtol=0, atol=1e-9)
    straight = values(model, image, IntegratedGradients(5, baseline=GivenImage(start)))
    np.testing.assert_allclose(straight[0], 7, rtol=0, atol=1e-9)
    # 0.1 of the way ahead or behind at most: between the straight path and the free one
    near = values(model, image, GuidedIG(100, 0.25, 0.1, GivenImage(start)))
    assert 7.2 < near[0].min() <= near[0].max() < 9
    np.testing.assert_allclose(near.sum(0), 13, rtol=0, atol=0.1)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_distance_is_the_straight_path(shape: tuple[int, ...]) -> None:
    """Of a square: W (x − b)·2·(b + (x − b)(n − 1)/2n), the gradients at the steps' starts."""
    image, rank, n, b = image_of(shape), len(shape), 4, 0.4
    found = values(model_of(Quadratic(W), rank), image, GuidedIG(n, 0.25, 0.0, Constant(b)))
    way = image.data - b
    wanted = weights(rank) * way * 2 * (b + way * (n - 1) / (2 * n))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("target", [PLAIN, SMOOTH], ids=["logit", "probability"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_the_gap_vanishes_with_more_steps(
    target: ClassTarget, shape: tuple[int, ...], is_mirrored: bool
) -> None:
    image, rank = image_of(shape), len(shape)
    model = views_of(rank) if is_mirrored else model_of(SmallNet(rank, 2, 3, seed=5), rank)
    gaps = [abs(gap(run(model, image, GuidedIG(n, 0.25, 0.1), target))) for n in (3, 15)]
    assert gaps[1] < gaps[0] / 2


def test_voxels_that_are_the_baseline_get_nothing() -> None:
    image = image_of()
    image.data[:, 1:3, 2:5] = 0.4
    for distance in (0.02, 1.0):
        method = GuidedIG(4, 0.25, distance, Constant(0.4))
        found = values(model_of(SmallNet(3, 2, 3, seed=5)), image, method)
        assert not found[:, 1:3, 2:5].any()
        assert np.count_nonzero(found) > found.size / 2
    alike = run(model_of(SmallNet(3, 2, 3, seed=5)), image, GuidedIG(2, baseline=GivenImage(image)))
    assert not alike[PLAIN.name].values.any()


def test_a_target_far_away_does_not_matter() -> None:
    """Voxels that no window of the target holds take no part in its path."""
    image = image_of((5, 7, 31))
    far = image.data.copy()
    far[..., 12:] += 5.0
    target = ClassTarget("class_1", Voxel((2, 3, 1)))
    model = model_of(SmallNet(3, 2, 3, seed=5))
    maps = [
        run(model, image.with_data(data), GuidedIG(4, 0.25, 0.3), target)[target.name].values
        for data in (image.data, far)
    ]
    assert maps[0].any()
    np.testing.assert_array_equal(maps[0], maps[1])


def test_a_classifier() -> None:
    image = image_of((7, 9))
    model = wrap(
        Pooled(Linear(W)), kind="classification", classes=("a", "b", "c"), channels=("x", "y"),
        rank=2, check=False,
    )  # fmt: skip
    result = run(model, image, GuidedIG(3), [ClassTarget("a"), ClassTarget("b", score="margin")])
    np.testing.assert_allclose(
        result["a"].values, W[0].reshape(2, 1, 1) * image.data / 63, rtol=0, atol=1e-12
    )
    assert abs(gap(result, 1)) < 1.0


def test_the_model_is_unchanged_after_an_error() -> None:
    net = Failing(SmallNet(3, 2, 3, seed=5), after=40)
    net.train()
    before = {name: p.clone() for name, p in net.named_parameters()}
    with pytest.raises(ModelError, match="on purpose"):
        run(model_of(net), image_of(), GuidedIG(20))
    assert net.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in net.parameters())
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())


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
        ({"fraction": 0.0}, "fraction is a share, 0 < fraction <= 1; got 0.0"),
        ({"fraction": 1.5}, "0 < fraction <= 1; got 1.5"),
        ({"fraction": float("nan")}, "0 < fraction <= 1; got nan"),
        ({"max_distance": -0.1}, "max_distance is a share, 0 <= max_distance <= 1; got -0.1"),
        ({"max_distance": float("nan")}, "0 <= max_distance <= 1; got nan"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        GuidedIG(**settings)
