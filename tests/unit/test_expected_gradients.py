"""Expected gradients: closed forms, stratified draws, the gap of sampling, passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from voxplain.attribution import (
    Blurred,
    ClassTarget,
    Constant,
    Everywhere,
    FunctionTarget,
    GivenImage,
    Gradient,
    IntegratedGradients,
    Mask,
    MeanImage,
    Voxel,
    explain,
)
from voxplain.attribution.ask import ask
from voxplain.attribution.expected import ExpectedGradients
from voxplain.attribution.method import Method
from voxplain.attribution.targets import Target
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.inference.noise import NoiseField
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import Model
from voxplain.records import Explanation
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import (
    Linear,
    Mirrored,
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
METHODS: list[Method] = [
    ExpectedGradients(n=3, references=(Constant(0.1), MeanImage())),
    ExpectedGradients(n=2, references=(Blurred(2.0),)),
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


def other_of(image: Volume) -> Volume:
    return image.with_data(np.flip(image.data, -1).copy() - 0.5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_linear_network(shape: tuple[int, ...]) -> None:
    """W times the image less the mean of the references, whatever is drawn."""
    image, rank = image_of(shape), len(shape)
    other = other_of(image)
    means = image.data.mean(tuple(range(1, rank + 1)), keepdims=True)
    references = (Constant(0.4), GivenImage(other), MeanImage())
    result = run(model_of(Linear(W), rank), image, ExpectedGradients(5, references))
    wanted = weights(rank) * (image.data - (0.4 + other.data + means) / 3)
    np.testing.assert_allclose(result[PLAIN.name].values, wanted, rtol=0, atol=1e-10)
    assert gap(result) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_square(shape: tuple[int, ...]) -> None:
    """Each reference has its own points, one in each stratum."""
    image, rank, n = image_of(shape), len(shape), 5
    field = NoiseField(SEED, case=int(image.sha256()[:16], 16))
    wanted = np.zeros_like(image.data)
    for number, (b, m) in enumerate([(0.4, 3), (-1.0, 2)]):  # 5 draws dealt to two
        points = (np.arange(m) + field.generator(number).random(m)) / m
        way = image.data - b
        wanted += weights(rank) * way * 2 * (b + points.mean() * way) / 2
    method = ExpectedGradients(n, (Constant(0.4), Constant(-1.0)))
    found = values(model_of(Quadratic(W), rank), image, method)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)


def test_a_product_is_halved() -> None:
    """From 0 each of two channels has half of the logit, up to the draws."""
    image = image_of()
    found = values(model_of(Product(W[:, 0])), image, ExpectedGradients(200, (Constant(),)))
    half = W[K, 0] * image.data.prod(0) / 2
    np.testing.assert_allclose(found, np.stack([half] * 2), atol=2e-3 * np.abs(half).max())


@pytest.mark.parametrize("target", [PLAIN, SMOOTH], ids=["logit", "probability"])
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_many_draws_from_one_reference_are_integrated_gradients(
    target: ClassTarget, is_mirrored: bool
) -> None:
    image = image_of()
    model = views_of() if is_mirrored else model_of(SmallNet(3, 2, 3, seed=5))
    baseline = Constant(0.2)
    exact = run(model, image, IntegratedGradients(8, baseline=baseline), target)[target.name].values
    errors, gaps = [], []
    for n in (2, 24):
        result = run(model, image, ExpectedGradients(n, (baseline,)), target)
        errors.append(np.abs(result[target.name].values - exact).max() / np.abs(exact).max())
        gaps.append(abs(gap(result)))
    assert errors[1] < 1e-2
    assert errors[1] < errors[0] / 5
    assert gaps[1] < 1e-2 * np.abs(exact).sum()


def test_the_gap_is_that_of_map_and_mean_reference() -> None:
    image, model = image_of(), model_of(SmallNet(3, 2, 3, seed=5))
    other = other_of(image)
    black = image.with_data(np.zeros_like(image.data))
    result = run(model, image, ExpectedGradients(4, (GivenImage(other), Constant())), SMOOTH)
    gained = [change(model, image, start, SMOOTH) for start in (other, black)]
    wanted = result[SMOOTH.name].total() - np.mean(gained)
    assert gap(result) == pytest.approx(wanted, abs=1e-9)
    assert abs(wanted) > 1e-6


def test_draws_follow_from_the_seed_alone() -> None:
    model, image = model_of(SmallNet(3, 2, 3, seed=5)), image_of()
    method = ExpectedGradients(6, (Constant(0.1), MeanImage()))
    maps = [
        explain(model, image, PLAIN, method, seed=seed,
                compute=Compute("cpu", "float64", n))[PLAIN.name].values
        for seed, n in [(1, 1), (1, 5), (2, 1)]
    ]  # fmt: skip
    np.testing.assert_allclose(maps[0], maps[1], rtol=0, atol=1e-12 * np.abs(maps[0]).max())
    assert np.abs(maps[0] - maps[2]).max() > 1e-4 * np.abs(maps[0]).max()


def change(model: Model, image: Volume, other: Volume, target: Any) -> float:
    """What the target gains from the other image to the image."""
    found = [run(model, i, Gradient(), target).targets[0].score for i in (image, other)]
    return found[0] - found[1]


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
        ({"n": 3}, "n is at least one draw a reference, 4; got 3"),
        ({"n": 0, "references": (MeanImage(),)}, "one draw a reference, 1; got 0"),
        ({"references": ()}, r"a tuple of at least one baseline, e.g. .*; got \(\)"),
        ({"references": MeanImage()}, r"a tuple of at least one baseline, .*; got MeanImage\(\)"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        ExpectedGradients(**settings)
