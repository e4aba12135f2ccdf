"""What holds of attributions for every image, window and network of a kind."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from voxplain.attribution import (
    ClassTarget,
    Constant,
    Difference,
    Everywhere,
    Gradient,
    IntegratedGradients,
    Mask,
    SmoothGrad,
    explain,
)
from voxplain.attribution.method import Method
from voxplain.attribution.scores import SCORES, Score, ScoreCotangent, score_of
from voxplain.attribution.targets import Target
from voxplain.inference.compute import Compute
from voxplain.models import Model
from voxplain.records import Explanation
from voxplain.space.box import Box
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import Linear, Quadratic, SmallNet, describe
from voxplain.testing.phantoms import oblique_grid

SHAPES = st.tuples(st.integers(2, 7), st.integers(3, 8), st.integers(2, 9))
SEEDS = st.integers(0, 2**32 - 1)
WINDOWS = st.builds(
    WindowSettings,
    size=st.tuples(st.integers(2, 5), st.integers(2, 6), st.integers(3, 5)),
    overlap=st.sampled_from([0.0, 0.25, 0.5]),
    blend=st.sampled_from(["constant", "gaussian"]),
    scheme=st.sampled_from(["monai", "nnunet"]),
)


def image_of(shape: tuple[int, ...], seed: int) -> Volume:
    return Volume(np.random.default_rng(seed).normal(size=(2, *shape)), oblique_grid(shape))


def mask_of(image: Volume, seed: int) -> Mask:
    array = np.random.default_rng(seed).random(image.grid.shape) < 0.3
    array[0, -1, 0] = True
    return Mask(LabelMap.of(array, image.grid), name=f"mask {seed}")


def run(model: Model, image: Volume, targets: list[Target], method: Method) -> Explanation:
    whole = LabelMap.of(np.ones(image.grid.shape, bool), image.grid)
    compute = Compute("cpu", "float64", batch_size=16)
    return explain(model, image, targets, method, regions=whole, compute=compute)


def maps(result: Explanation) -> list[NDArray[np.floating]]:
    return [attribution.values for attribution in result.attributions.values()]


@settings(max_examples=12)
@given(SHAPES, WINDOWS, SEEDS)
def test_linearity_and_sharing(shape: tuple[int, ...], window: WindowSettings, seed: int) -> None:
    """A difference's map is the difference of maps; targets together are as targets alone."""
    image = image_of(shape, seed)
    model = describe(SmallNet(3, 2, 3, seed=seed % 7), n_channels=2, window=window)
    one: Target = ClassTarget("class_1", mask_of(image, 1), score="probability")
    other: Target = ClassTarget("class_2", mask_of(image, 2))
    both = [one, other, Difference(one, other)]
    for method in (Gradient(), SmoothGrad(n=2)):
        a, b, difference = maps(run(model, image, both, method))
        np.testing.assert_allclose(difference, a - b, rtol=0, atol=1e-10)
        (alone,) = maps(run(model, image, [one], method))
        np.testing.assert_allclose(alone, a, rtol=0, atol=1e-10)


@settings(max_examples=12)
@given(SHAPES, WINDOWS, SEEDS, st.floats(-1, 1))
def test_completeness_of_polynomials(
    shape: tuple[int, ...], window: WindowSettings, seed: int, baseline: float
) -> None:
    image = image_of(shape, seed)
    weight = np.random.default_rng(seed).normal(size=(3, 2))
    model = describe(Quadratic(weight), n_channels=2, window=window)
    method = IntegratedGradients(n=1, baseline=Constant(baseline))
    result = run(model, image, [ClassTarget("class_1", mask_of(image, 3))], method)
    gap = result.targets[0].gap
    assert gap is not None
    assert abs(gap) < 1e-9


@settings(max_examples=12)
@given(SHAPES, WINDOWS, SEEDS, st.integers(0, 1))
def test_a_channel_that_is_not_used_gets_nothing(
    shape: tuple[int, ...], window: WindowSettings, seed: int, unused: int
) -> None:
    image = image_of(shape, seed)
    net = SmallNet(3, 2, 3, seed=seed % 5)
    with torch.no_grad():
        net.first.weight[:, unused] = 0
    model = describe(net, n_channels=2, window=window)
    target = ClassTarget("class_1", Everywhere(), score="probability")
    for method in (Gradient(), SmoothGrad(n=2), IntegratedGradients(n=2)):
        (found,) = maps(run(model, image, [target], method))
        assert not found[unused].any()
        assert found[1 - unused].any()


@settings(max_examples=12)
@given(SHAPES, WINDOWS, SEEDS)
def test_voxels_that_no_window_of_the_target_reaches_get_nothing(
    shape: tuple[int, ...], window: WindowSettings, seed: int
) -> None:
    image = image_of(shape, seed)
    mask = mask_of(image, seed)
    model = describe(Linear(np.ones((3, 2))), n_channels=2, window=window)
    (found,) = maps(run(model, image, [ClassTarget("class_1", mask)], Gradient()))
    np.testing.assert_allclose(
        found, np.broadcast_to(mask.on(image.grid), found.shape), rtol=0, atol=1e-12
    )


@given(
    st.sampled_from(SCORES), st.sampled_from(["softmax", "sigmoid"]), st.integers(2, 4), SEEDS,
    st.tuples(*[st.integers(0, 3)] * 2), st.tuples(*[st.integers(1, 4)] * 2),
)  # fmt: skip
def test_score_cotangents_on_any_box(
    score: Score, activation: str, n_classes: int, seed: int, start: tuple[int, int],
    size: tuple[int, int],
) -> None:  # fmt: skip
    """The crop is the gradient of the weighted sum, restricted to the box."""
    rng = np.random.default_rng(seed)
    support = Box((1, 2), (5, 6))
    logits = torch.from_numpy(rng.normal(size=(n_classes, *support.shape))).requires_grad_()
    weights = torch.from_numpy(rng.normal(size=support.shape) * (rng.random(support.shape) < 0.5))
    weights[0, 0] = 1.0
    index = int(rng.integers(n_classes))
    total = (weights * score_of(logits, index, score, activation)).sum()  # type: ignore[arg-type]
    (wanted,) = torch.autograd.grad(total, logits)
    cotangent = ScoreCotangent(
        weights, support, index=index, score=score, activation=activation, n_classes=n_classes,  # type: ignore[arg-type]
        logits=None if score == "logit" else logits.detach(),
    )  # fmt: skip
    whole = Box((0, 0), (7, 8))
    padded = torch.zeros(n_classes, *whole.shape, dtype=torch.float64)
    padded[(slice(None), *support.slices)] = wanted
    box = Box(start, (start[0] + size[0], start[1] + size[1]))
    part = (cotangent.channels, *box.slices)
    torch.testing.assert_close(cotangent.crop(box), padded[part])
    if not cotangent.touches(box):
        assert not padded[(slice(None), *box.slices)].any()
    slope = float(wanted.abs().sum() / weights.abs().sum())
    np.testing.assert_allclose(cotangent.slope(), slope, rtol=1e-9)
