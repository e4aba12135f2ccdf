"""Deletion, insertion, leakage: closed forms, brute force over orders and windows, Quantus."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from voxplain.assess.curves import DELETION_AREA, Curves, deletion_area, insertion_area
from voxplain.assess.leakage import LEAKAGE, leakage
from voxplain.assess.ranking import rank_voxels, relevance
from voxplain.assess.removal_curves import Curver, curve_passes, removal_curves
from voxplain.attribution import Gradient, InputXGradient
from voxplain.attribution.ask import ask
from voxplain.attribution.baselines import Blurred, MeanImage
from voxplain.attribution.maps import Maps, compute_maps
from voxplain.attribution.method import Outcome
from voxplain.attribution.question import Question
from voxplain.attribution.targets import ClassTarget, Target
from voxplain.attribution.where import Everywhere, Mask, Predicted
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.inference.noise import NoiseField
from voxplain.inference.pipeline import Passes, open_pipeline
from voxplain.models import wrap
from voxplain.models.model import Model
from voxplain.records.attribution import Kind
from voxplain.records.metric import CONSTANT_MAP, EMPTY_MAP, NO_CHANGE
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import (
    Constant,
    Linear,
    Mirrored,
    Pooled,
    Product,
    Recorder,
    SmallNet,
    Step,
    describe,
)
from voxplain.testing.phantoms import labels, oblique_grid, volume

DOUBLE = Compute("cpu", "float64")
GRID = oblique_grid((5, 9, 13))
WINDOW = WindowSettings((4, 5, 6), overlap=0.25, blend="gaussian")
ALL = ClassTarget("class_1", Everywhere())
OTHER = ClassTarget("class_2", Everywhere())


@contextmanager
def asked(
    model: Model, image: Volume, targets: Sequence[Target], compute: Compute = DOUBLE
) -> Iterator[Question]:
    with open_pipeline(model, image, compute) as pipeline:
        yield ask(pipeline, image, list(targets), None, seed=0)


def given(values: NDArray[np.floating], kind: Kind = "sensitivity") -> Maps:
    """Maps (n_targets, *shape) of one channel."""
    return Maps(np.asarray(values)[:, None], kind, Outcome(), Passes(), 0.0)


# -- order ------------------------------------------------------------------------------
def test_ties_are_drawn_once_and_alike_in_both_directions() -> None:
    scores = np.array([[3.0, 1.0, 1.0], [1.0, 5.0, 1.0]])
    most = rank_voxels(scores, np.random.default_rng(4))
    least = rank_voxels(scores, np.random.default_rng(4), order="least")
    assert most.place[1, 1] == 0
    assert most.place[0, 0] == 1
    assert least.place[1, 1] == 5
    tied = scores == 1.0
    np.testing.assert_array_equal(np.argsort(most.place[tied]), np.argsort(least.place[tied]))
    places = {tuple(rank_voxels(scores, np.random.default_rng(s)).place[tied]) for s in range(20)}
    assert len(places) > 5


def test_cubes_go_as_a_whole_by_their_mean() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(5, 7, 4))
    ranking = rank_voxels(scores, rng, block=3)
    means = {}
    for i in range(0, 5, 3):
        for j in range(0, 7, 3):
            for k in range(0, 4, 3):
                cube = (slice(i, i + 3), slice(j, j + 3), slice(k, k + 3))
                assert len(np.unique(ranking.place[cube])) == 1
                means[int(ranking.place[cube].flat[0])] = scores[cube].mean()
    ordered = [means[place] for place in range(len(means))]
    assert ordered == sorted(ordered, reverse=True)
    for fraction in (0.0, 0.01, 0.3, 0.77, 1.0):
        n = ranking.count(fraction)
        assert ranking.share(n) == pytest.approx((ranking.place < n).mean())
        assert ranking.share(n) >= fraction
        assert n == 0 or ranking.share(n - 1) < fraction
    assert rank_voxels(np.zeros(30), rng).count(0.1) == 3


def test_a_map_is_ranked_by_what_it_means() -> None:
    values = np.array([[[1.0, -3.0, 0.5]], [[1.0, 1.0, -2.5]]])[None]  # (1, 2, 1, 3)
    contribution = Maps(values, "contribution", Outcome(), Passes(), 0.0)
    slope = Maps(values, "sensitivity", Outcome(), Passes(), 0.0)
    np.testing.assert_allclose(relevance(contribution, 0, 2.0), [[2.0, -2.0, -2.0]])
    np.testing.assert_allclose(relevance(contribution, 0, -2.0), [[-2.0, 2.0, 2.0]])
    np.testing.assert_allclose(relevance(slope, 0, -2.0), [[2.0, 4.0, 3.0]])
    np.testing.assert_allclose(relevance(slope, 0, 2.0, by="signed"), [[2.0, -2.0, -2.0]])


# -- closed forms -----------------------------------------------------------------------
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_exact_contributions_are_the_best_of_all_orders(sign: float) -> None:
    """Six voxels of a linear model: 720 orders, contributions of both signs."""
    grid = oblique_grid((2, 3), (0.7, 1.1))
    image = Volume(np.array([[[3.0, -1.0, 0.5], [2.0, 0.25, -0.75]]], np.float32), grid)
    model = describe(Linear([[0.0], [sign]]), rank=2, n_classes=2, window=(2, 3))
    with asked(model, image, [ALL]) as question:
        curver = Curver(question)
        every = [
            deletion_area(curver.curves(given(np.reshape(order, (1, 2, 3))), fractions=6), 0).value
            for order in list(permutations(range(6)))[:: 1 if sign > 0 else 7]
        ]
        maps = compute_maps(question, InputXGradient())
        curves = curver.curves(maps, fractions=6)
        np.testing.assert_allclose(curves.clean, sign * 4.0)
        left = sign * (4.0 - np.cumsum([0.0, 3.0, 2.0, 0.5, 0.25, -0.75, -1.0]))
        np.testing.assert_allclose(curves.values[0, :, 0], left, atol=1e-12)
        best = deletion_area(curves, 0).value
        assert best <= min(every) + 1e-12
        least = curver.curves(maps, fractions=6, order="least").area(0).value
        assert least >= max(every) - 1e-12
        if sign > 0:  # all orders
            assert (best, least) == pytest.approx((min(every), max(every)), abs=1e-12)
        inserted = insertion_area(curver.curves(maps, fractions=6, mode="insertion"), 0)
        assert inserted.value == pytest.approx(1 - best, abs=1e-12)  # of a linear model


def test_perfect_random_constant_and_inverted_maps_in_their_order() -> None:
    image = volume(GRID, 1, seed=3)
    model = describe(Step([0.0, 2.0, 1.0], threshold=1.5), window=WINDOW)
    truth = (image.data[0] > 1.5).astype(float)
    share = truth.mean()
    with asked(model, image, [ALL]) as question:
        curver = Curver(question)

        def area(values: NDArray[np.floating], n: int = 50) -> float:
            return deletion_area(curver.curves(given(values[None]), fractions=n), 0).value

        perfect, inverted = area(truth), area(1 - truth)
        random = area(np.random.default_rng(0).random(GRID.shape))
        constant = deletion_area(curver.curves(given(np.full((1, *GRID.shape), 0.3))), 0)
        empty = deletion_area(curver.curves(given(np.zeros((1, *GRID.shape)))), 0)
        assert perfect == pytest.approx(share / 2, abs=0.01)
        assert inverted == pytest.approx(1 - share / 2, abs=0.01)
        assert random == pytest.approx(0.5, abs=0.04)
        assert constant.value == pytest.approx(0.5, abs=0.04)
        assert constant.flags == (CONSTANT_MAP,)
        assert empty == (constant.value, (EMPTY_MAP,))
        assert perfect < random < inverted


def test_a_product_falls_with_the_first_voxel_of_each_pair() -> None:
    """logit = w·x_0·x_1: the fill in any voxel removes its whole share."""
    image = volume(GRID, 2, seed=3)
    model = describe(Product([0.0, 1.5, 1.0]), n_channels=2, window=WINDOW)
    with asked(model, image, [ALL]) as question:
        maps = compute_maps(question, InputXGradient())
        curves = removal_curves(question, maps, fractions=7)
        each = np.sort(1.5 * image.data.astype(float).prod(axis=0).ravel())[::-1]
        n = np.ceil(np.linspace(0, 1, 8) * each.size - 1e-6).astype(int)
        left = each.sum() - np.concatenate([[0.0], np.cumsum(each)])[n]
        np.testing.assert_allclose(curves.values[0, :, 0], left, rtol=1e-9, atol=1e-8)
        np.testing.assert_allclose(curves.shares[0], n / each.size)


def test_a_model_that_does_not_look_and_a_class_that_is_not_there() -> None:
    image = volume(GRID, 1, seed=3)
    absent = ClassTarget("class_2", Predicted())
    with asked(describe(Constant([0.0, 1.0, 0.5]), window=WINDOW), image, [ALL, absent]) as q:
        curves = removal_curves(q, given(np.random.default_rng(0).random((2, *GRID.shape))))
        for target in (0, 1):
            for measured in (deletion_area(curves, target), leakage(curves, target)):
                assert np.isnan(measured.value)
                assert measured.flags == (NO_CHANGE,)
        assert np.isnan(curves.values[1]).all()
        assert not np.isnan(curves.values[0]).any()


# -- the same values as brute force ------------------------------------------------------
@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize("mode", ["deletion", "insertion"])
@pytest.mark.parametrize("block", [1, 3])
def test_values_are_those_of_whole_changed_images(score: str, mode: str, block: int) -> None:
    net = Recorder(SmallNet(3, n_channels=2, seed=2))
    model = Mirrored([net], axes=(1,), n_channels=2, window=WINDOW)
    image, regions = volume(GRID, 2, seed=3), labels(GRID, 2, seed=4)
    targets = [
        ClassTarget("class_1", Everywhere(), score=score),  # type: ignore[arg-type]
        ClassTarget("class_2", Mask(regions, "organ_2"), score=score),  # type: ignore[arg-type]
    ]
    rng = np.random.default_rng(0)
    fractions = (0.0, 0.004, 0.3, 0.8, 1.0)
    with asked(model, image, targets, Compute("cpu", "float64", 3)) as question:
        maps = given(rng.random((2, *GRID.shape)))
        most = curve_passes(question, n_curves=1, fractions=fractions)
        _ = question.linear, question.support_logits
        net.clear()
        curver = Curver(question, MeanImage())
        found = curver.curves(maps, fractions=fractions, mode=mode, block=block)  # type: ignore[arg-type]
        assert net.n_windows <= most.n_forward
        mean = image.data.reshape(2, -1).mean(1, dtype=np.float64).reshape(2, 1, 1, 1)
        for a in range(2):
            generator = question.noise.generator(0xDE1E7E)
            ranking = rank_voxels(maps.magnitude()[a], generator, block=block)
            for step, fraction in enumerate(fractions):
                gone = ranking.place < ranking.count(fraction)
                gone = gone if mode == "deletion" else ~gone
                other = question.pipeline.changed(np.where(gone, mean, image.data))
                wanted = question.values(other.clean)
                np.testing.assert_allclose(found.values[a, step], wanted, rtol=1e-9, atol=1e-9)
        net.clear()
        again = curver.curves(maps, fractions=fractions, mode=mode, block=block)  # type: ignore[arg-type]
        np.testing.assert_allclose(again.values, found.values, rtol=1e-9, atol=1e-9)
        assert net.n_windows == 0 or score != "logit"


def test_only_windows_of_a_target_that_change_are_run() -> None:
    """One relevant voxel, covered by the windows around it, for a target in one corner."""
    grid = oblique_grid((4, 5, 36))
    image = volume(grid, 1, seed=1)
    mask = np.zeros(grid.shape, bool)
    mask[1, 1, 1] = True
    target = ClassTarget("class_1", Mask(LabelMap.of(mask, grid)))
    net = Recorder(SmallNet(3, seed=2))
    with asked(describe(net, window=(4, 5, 6)), image, [target]) as question:
        one = np.zeros((1, *grid.shape))
        one[0, 2, 2, 30] = 1.0
        _ = question.linear
        net.clear()
        curver = Curver(question)
        n_voxels = grid.n_voxels
        curves = curver.curves(given(one), fractions=(0.0, 1 / n_voxels, 1.0))
        assert net.n_windows == 2 * len(curver._changed.windows)  # clean and filled
        assert curves.values[0, 1, 0] == curves.clean[0]
        assert net.n_windows == curve_passes(question, fractions=(0.0, 1.0)).n_forward
    dark = Volume(np.where(np.arange(36) < 18, image.data, 0).astype(np.float32), grid)
    with asked(describe(net, window=(4, 5, 6)), dark, [ALL]) as question:
        air = np.zeros((1, *grid.shape))
        air[..., 24:] = 1.0
        net.clear()
        _ = Curver(question).curves(given(air), fractions=(0.0, 0.2, 0.3))
        assert net.n_windows < 3 * len(question.pipeline.plan)  # the fill is there already
    margin = ClassTarget("class_1", Everywhere(), score="margin")
    with asked(describe(net, window=(4, 5, 6)), image, [margin]) as question:
        _ = question.support_logits
        net.clear()
        _ = Curver(question).curves(given(one), fractions=(0.0, 1 / n_voxels, 1.0))
        n_all, n_touched = len(question.pipeline.plan), 2
        assert net.n_windows == n_all + 2 * n_touched  # filled; changed and clean


def test_batch_size_and_seed() -> None:
    image = volume(GRID, 1, seed=3)
    model = describe(SmallNet(3, seed=2), window=WINDOW)
    found = []
    for batch in (1, 5):
        with asked(model, image, [ALL, OTHER], Compute("cpu", "float64", batch)) as question:
            maps = compute_maps(question, Gradient())
            found.append(removal_curves(question, maps, fractions=4, fill=Blurred(2.0)).values)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-10)


def test_a_plane_is_a_volume_of_one_slice() -> None:
    rng = np.random.default_rng(3)
    scores = np.round(rng.random((2, 6, 9)), 1)  # with ties
    found = []
    for shape in ((6, 9), (6, 9, 1)):
        grid = oblique_grid(shape, (0.7, 1.1, 2.3)[: len(shape)])
        image = Volume(np.arange(54, dtype=np.float32).reshape(1, *shape) % 7, grid)
        net = Linear([[0.0], [1.0], [-0.5]])
        model = describe(net, rank=len(shape), window=(4, 5, 1)[: len(shape)])
        with asked(model, image, [ALL, OTHER]) as question:
            question.noise = NoiseField(0)  # not the image's, whose hash has its shape
            maps = given(scores.reshape(2, *shape))
            curves = removal_curves(question, maps, block=2)
            found.append([deletion_area(curves, 0).value, leakage(curves, 1).value])
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_pixel_flipping_of_quantus() -> None:
    """The same order, fill and steps on a classifier give Quantus' predictions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import quantus
    grid = oblique_grid((8, 8), (0.7, 1.1))
    image = volume(grid, 1, seed=4)
    net = Pooled(SmallNet(2, seed=4)).double()
    classifier = wrap(
        net, kind="classification", classes=("a", "b", "c"), channels=("x",), rank=2, check=False
    )
    scores = np.random.default_rng(1).random(grid.shape)
    with asked(classifier, image, [ClassTarget("b")]) as question:
        curves = removal_curves(question, given(scores[None]), fractions=16)
    x = image.data[None].astype(np.float64)

    class Double(nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(net(batch.double()))

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        wanted = quantus.PixelFlipping(  # type: ignore[attr-defined]
            features_in_step=4, perturb_baseline=0.0, normalise=False, disable_warnings=True
        )(
            model=Double().eval(), x_batch=x, y_batch=np.array([1]), a_batch=scores[None, None],
            softmax=False, channel_first=True, device="cpu",
        )  # fmt: skip
    np.testing.assert_allclose(curves.values[0, 1:, 0], wanted[0], rtol=1e-5, atol=1e-6)


# -- leakage ----------------------------------------------------------------------------
def test_leakage_of_separate_and_of_shared_evidence() -> None:
    """Class 1 looks at channel 0, class 2 at channel 1; each bright in its own half."""
    image = Volume(np.ones((2, *GRID.shape), np.float32), GRID)
    image.data[0, ..., 6:] = 0
    image.data[1, ..., :6] = 0
    model = describe(Linear([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]]), n_channels=2, window=WINDOW)
    left = np.broadcast_to(np.arange(13) < 6, GRID.shape).astype(float)
    with asked(model, image, [ALL, OTHER]) as question:
        right = removal_curves(question, given(np.stack([left, 1 - left])))
        wrong = removal_curves(question, given(np.stack([1 - left, left])))
        both = removal_curves(question, given(np.ones((2, *GRID.shape))))
        for target in (0, 1):
            assert leakage(right, target).value == pytest.approx(0.0, abs=1e-12)
            assert leakage(wrong, target).value == pytest.approx(1.0, abs=1e-12)
            assert leakage(right, target).flags == ()
            assert leakage(both, target).value == pytest.approx(0.5, abs=0.1)
            assert leakage(both, target).flags == (CONSTANT_MAP,)
    with asked(model, image, [ALL]) as question:
        alone = leakage(removal_curves(question, given(left[None])), 0)
        assert np.isnan(alone.value)
        assert "single target" in LEAKAGE.policy


def test_leakage_is_its_formula() -> None:
    values = np.zeros((3, 3, 3))
    values[0, 1] = (6.0, 7.5, 20.0)
    values[1, 1] = (10.0, 8.0, 20.0)  # nothing changes
    curves = Curves(
        values, np.tile([0.0, 0.1, 1.0], (3, 1)), np.array([0.0, 0.1, 1.0]),
        clean=np.array([10.0, 8.0, 20.0]), empty=np.array([0.0, -2.0, 20.0]),
        mode="deletion", order="most", flags=((), (), ()),
    )  # fmt: skip
    # d = 0.4; others 0.05, and one that the filled image does not change
    assert leakage(curves, 0).value == pytest.approx(0.05 / 0.45)
    for target in (1, 2):
        assert np.isnan(leakage(curves, target).value)
        assert leakage(curves, target).flags == (NO_CHANGE,)


# -- errors -----------------------------------------------------------------------------
def test_settings_are_checked() -> None:
    image = volume(GRID, 1, seed=3)
    flat = given(np.ones((1, *GRID.shape)))
    with asked(describe(SmallNet(3, seed=2), window=WINDOW), image, [ALL]) as question:
        for wrong, words in (
            ({"fractions": 0}, "at least 1 step"),
            ({"fractions": (0.5, 0.2)}, "ascending numbers"),
            ({"fractions": (0.5, 1.2)}, "ascending numbers"),
            ({"mode": "burn"}, "mode is deletion or insertion"),
            ({"order": "worst"}, "order is most or least"),
            ({"block": 0}, "block is at least 1"),
            ({"by": "name"}, "ranked by kind, signed, magnitude"),
        ):
            with pytest.raises(MethodError, match=words):
                removal_curves(question, flat, **wrong)  # type: ignore[arg-type]
        with pytest.raises(MethodError, match="maps of 1 targets"):
            removal_curves(question, given(np.ones((1, 5, 9, 12))))
        with pytest.raises(MethodError, match="values of a map are finite, got nan"):
            removal_curves(question, given(np.full((1, *GRID.shape), np.nan)))
        part = removal_curves(question, flat, fractions=(0.0, 0.5))
        for call, words in (
            (deletion_area, "area needs fractions from 0 to 1"),
            (insertion_area, "insertion of the most relevant voxels was expected"),
            (leakage, "leakage at fraction 0.1 needs that step"),
        ):
            with pytest.raises(MethodError, match=words):
                call(part, 0)
        backwards = removal_curves(question, flat, fractions=(0.0, 1.0), order="least")
        with pytest.raises(MethodError, match="leakage needs the deletion"):
            leakage(backwards, 0)
    assert DELETION_AREA.direction == "lower"
