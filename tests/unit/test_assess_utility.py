"""Utility metrics: closed forms, the numbers of Arun et al.'s table, sklearn and Quantus."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sk

from voxplain.assess.auroc import auroc
from voxplain.assess.average_precision import (
    Counts,
    average_precision,
    normalised_average_precision,
    prevalence_of,
)
from voxplain.assess.energy_in_mask import energy_in_mask
from voxplain.assess.legacy_auprc import legacy_auprc
from voxplain.assess.pointing_game import pointing_game
from voxplain.assess.top_iou import top_iou
from voxplain.assess.utility import IN_PREDICTION, METRICS, OUTSIDE, WHOLE, utility_rows
from voxplain.errors import GridError, LabelError, MethodError
from voxplain.records.metric import CONSTANT_MAP, EMPTY_MAP, EMPTY_MASK, FULL_MASK, Measured

SHAPES = [(7, 11), (5, 7, 11)]
BY_RANK = (
    average_precision, normalised_average_precision, auroc, top_iou, legacy_auprc, energy_in_mask,
    pointing_game,
)  # fmt: skip


def case(
    shape: tuple[int, ...], levels: int | None, share: float = 0.2, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Map that helps a little, with ties where `levels` says how many values it has."""
    rng = np.random.default_rng([seed, len(shape)])
    mask = rng.random(shape) < share
    mask.flat[[5, 6]] = True, False
    scores = rng.normal(size=shape) + mask
    return scores if levels is None else np.round(scores * levels / 4), mask


def trapezoid(mask: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    precision, recall, _ = sk.precision_recall_curve(mask.ravel(), scores.ravel())
    return float(sk.auc(recall, precision))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("levels", [None, 2, 12])
@pytest.mark.parametrize("share", [0.03, 0.3, 0.9])
def test_ranks_are_those_of_sklearn(
    shape: tuple[int, ...], levels: int | None, share: float
) -> None:
    for seed in range(5):
        scores, mask = case(shape, levels, share, seed)
        flat = mask.ravel(), scores.ravel()
        expected = sk.average_precision_score(*flat)
        found = average_precision(scores, mask)
        assert found == Measured(pytest.approx(expected, abs=1e-12))
        assert auroc(scores, mask).value == pytest.approx(sk.roc_auc_score(*flat), abs=1e-12)
        assert legacy_auprc(scores, mask).value == pytest.approx(trapezoid(mask, scores), abs=1e-12)
        chance = mask.mean()
        assert normalised_average_precision(scores, mask).value == pytest.approx(
            (expected - chance) / (1 - chance), abs=1e-12
        )


@pytest.mark.parametrize("metric", BY_RANK)
def test_voxels_that_do_not_count_are_as_if_cut_off(metric) -> None:  # type: ignore[no-untyped-def]
    scores, mask = case((5, 7, 11), 12)
    valid = np.zeros(mask.shape, bool)
    valid[1:4, 2:, :8] = True
    scores[~valid] = np.nan
    part = metric(scores[1:4, 2:, :8], mask[1:4, 2:, :8])
    assert metric(scores, mask, valid) == part
    flat = scores[1:4, 2:, :8][:, None], mask[1:4, 2:, :8][:, None]
    assert metric(*flat) == part


@pytest.mark.parametrize("metric", BY_RANK)
def test_2d_is_3d_of_depth_1_and_order_and_scale_do_not_matter(metric) -> None:  # type: ignore[no-untyped-def]
    scores, mask = case((7, 11), 2)
    value = metric(scores, mask)
    assert metric(scores[None], mask[None]) == value
    turned = metric(scores[::-1, ::-1].T, mask[::-1, ::-1].T)
    assert turned.value == pytest.approx(value.value, abs=1e-12)
    assert metric(scores * 4, mask).value == pytest.approx(value.value, abs=1e-12)
    assert metric(scores.astype(np.float32), mask).value == pytest.approx(value.value, abs=1e-6)


@pytest.mark.parametrize("share", [0.005, 0.013, 0.05, 0.15])
def test_constant_map_is_chance_and_half_more_in_the_legacy(share: float) -> None:
    mask = np.zeros((20, 200), bool)
    mask.flat[: round(share * mask.size)] = True
    for scores, flag in (
        (np.full(mask.shape, 3.0), CONSTANT_MAP),
        (np.zeros(mask.shape), EMPTY_MAP),
    ):
        assert average_precision(scores, mask) == Measured(pytest.approx(share), (flag,))
        assert normalised_average_precision(scores, mask) == Measured(pytest.approx(0.0), (flag,))
        assert auroc(scores, mask) == Measured(0.5, (flag,))
        assert legacy_auprc(scores, mask) == Measured(pytest.approx((1 + share) / 2), (flag,))
        assert pointing_game(scores, mask) == Measured(pytest.approx(share), (flag,))
        assert top_iou(scores, mask) == Measured(pytest.approx(share / (2 - share)), (flag,))
    assert energy_in_mask(np.ones(mask.shape), mask) == Measured(
        pytest.approx(share), (CONSTANT_MAP,)
    )
    assert energy_in_mask(-np.ones(mask.shape), mask).flags == (EMPTY_MAP, CONSTANT_MAP)
    empty = energy_in_mask(np.zeros(mask.shape), mask)
    assert math.isnan(empty.value)
    assert empty.flags == (EMPTY_MAP,)


@pytest.mark.parametrize("share", [0.013, 0.15])
def test_noise_is_chance(share: float) -> None:
    rng = np.random.default_rng(1)
    mask = np.zeros((320, 320), bool)
    mask.flat[: round(share * mask.size)] = True
    noise = rng.random(mask.shape)
    assert average_precision(noise, mask).value == pytest.approx(share, rel=0.1)
    assert legacy_auprc(noise, mask).value == pytest.approx(share, rel=0.1)
    assert auroc(noise, mask).value == pytest.approx(0.5, abs=0.03)


def test_a_few_voxels_and_the_clip_inflate_the_legacy() -> None:
    mask = np.zeros((320, 320), bool)
    mask.flat[: round(0.013 * mask.size)] = True
    scores = np.zeros(mask.shape)
    scores.flat[:20] = 1.0
    assert legacy_auprc(scores, mask).value == pytest.approx(0.514, abs=5e-4)
    assert average_precision(scores, mask).value == pytest.approx(0.028, abs=5e-4)
    mask = np.zeros((320, 320), bool)
    mask.flat[: mask.size // 200] = True
    perfect = np.arange(mask.size, 0.0, -1).reshape(mask.shape)
    assert average_precision(perfect, mask) == Measured(1.0)
    assert legacy_auprc(perfect, mask) == Measured(1.0)
    tied = np.minimum(perfect, np.percentile(perfect, 99))
    assert (tied == tied.max()).mean() == pytest.approx(0.01, rel=1e-3)
    assert average_precision(tied, mask).value == pytest.approx(0.5, abs=1e-3)
    assert legacy_auprc(tied, mask).value == pytest.approx(0.75, abs=1e-3)


@pytest.mark.parametrize("metric", BY_RANK)
def test_empty_and_full_masks(metric) -> None:  # type: ignore[no-untyped-def]
    scores = np.arange(1.0, 78).reshape(7, 11)
    empty = metric(scores, np.zeros((7, 11), bool))
    assert math.isnan(empty.value)
    assert empty.flags == (EMPTY_MASK,)
    full = metric(scores, np.ones((7, 11), bool))
    assert full.flags == (FULL_MASK,)
    if metric in (auroc, normalised_average_precision):
        assert math.isnan(full.value)
    else:
        assert full.value == pytest.approx(1.0)
    assert prevalence_of(Counts.of(scores, np.zeros((7, 11), bool))) == Measured(0.0, (EMPTY_MASK,))


def test_top_voxels_by_hand() -> None:
    mask = np.array([[1, 1, 1, 0, 0, 0, 0]], bool)
    assert top_iou(np.array([[9.0, 8, 1, 7, 0, 0, 0]]), mask).value == pytest.approx(2 / 4)
    # one place left for two tied voxels, one of them in the mask: 1 ½ of 3 in common
    assert top_iou(np.array([[9.0, 5, 0, 8, 5, 0, 0]]), mask).value == pytest.approx(1.5 / 4.5)
    assert top_iou(-np.array([[9.0, 8, 7, 0, 0, 0, 0]]), mask) == Measured(0.0)


def test_tolerance_is_in_mm() -> None:
    mask = np.zeros((5, 7, 11), bool)
    mask[2, 3, 4] = True
    scores = np.zeros(mask.shape)
    scores[2, 3, 7] = 1.0
    spacing = (2.3, 1.1, 0.7)
    assert pointing_game(scores, mask) == Measured(0.0)
    for tolerance, hit in ((2.0, 0.0), (2.1, 1.0)):
        assert pointing_game(scores, mask, spacing=spacing, tolerance_mm=tolerance) == (hit, ())
    scores[3, 3, 4] = 1.0  # tied, 2.3 mm away
    assert pointing_game(scores, mask, spacing=spacing, tolerance_mm=2.1) == Measured(0.5)
    with pytest.raises(MethodError, match="at least 0, got -1"):
        pointing_game(scores, mask, spacing=spacing, tolerance_mm=-1)
    with pytest.raises(MethodError, match="pass spacing"):
        pointing_game(scores, mask, tolerance_mm=1)


def test_energy_of_signed_maps_is_of_positive_values() -> None:
    mask = np.array([[True, True, False, False]])
    assert energy_in_mask(np.array([[3.0, -5, 1, -2]]), mask) == Measured(0.75)


def test_quantus() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import quantus

        maps = [case((8, 8), None, seed=seed) for seed in range(4)]
        s = np.stack([np.abs(scores) for scores, _ in maps])[:, None]
        m = np.stack([mask for _, mask in maps])[:, None]

        def golden(metric: str) -> list[float]:
            measure = getattr(quantus, metric)(
                abs=False, normalise=False, disable_warnings=True, display_progressbar=False
            )
            found = measure(
                model=None, x_batch=np.zeros(s.shape), y_batch=np.zeros(len(s), int), a_batch=s,
                s_batch=m, channel_first=True,
            )  # fmt: skip
            return [float(np.ravel(value)[0]) for value in found]

        rank, mass, hits = map(
            golden, ("RelevanceRankAccuracy", "RelevanceMassAccuracy", "PointingGame")
        )
    pairs = [(one[0], truth[0]) for one, truth in zip(s, m, strict=True)]
    assert [top_iou(*pair).value for pair in pairs] == pytest.approx([a / (2 - a) for a in rank])
    assert [energy_in_mask(*pair).value for pair in pairs] == pytest.approx(mass)
    assert [pointing_game(*pair).value for pair in pairs] == hits
    assert len(set(hits)) == 2


def test_rows_with_and_without_a_prediction() -> None:
    scores, mask = case((5, 7, 11), None)
    scores = np.abs(scores)
    predicted = np.zeros(mask.shape, bool)
    predicted[1:4, 2:5, 3:9] = True
    rows = utility_rows(scores, mask)
    assert [name for name, _ in rows] == [metric.name for metric in WHOLE]
    named = dict(utility_rows(scores, mask, predicted, (0.7, 1.1, 2.3)))
    assert [*named, "legacy_auprc"] == [metric.name for metric in METRICS]
    assert dict(rows).items() <= named.items()
    assert named["energy_in_prediction"].value == pytest.approx(
        scores[predicted].sum() / scores.sum()
    )
    left = mask[~predicted], scores[~predicted]
    assert named["average_precision_outside"].value == pytest.approx(
        sk.average_precision_score(*left), abs=1e-12
    )
    assert named["auroc_outside"].value == pytest.approx(sk.roc_auc_score(*left), abs=1e-12)
    assert named["prevalence_outside"].value == pytest.approx(left[0].mean())
    assert named["energy_in_mask_outside"].value == pytest.approx(
        left[1][left[0]].sum() / left[1].sum()
    )
    for name, measured in named.items():
        metric = next(metric for metric in METRICS if metric.name == name)
        assert metric.low <= measured.value <= metric.high


def test_nothing_of_the_truth_left_outside_the_prediction() -> None:
    scores, mask = case((7, 11), None)
    for predicted in (mask, np.ones(mask.shape, bool)):
        named = dict(utility_rows(np.abs(scores), mask, predicted))
        for metric in OUTSIDE:
            assert EMPTY_MASK in named[metric.name].flags
            if metric.name != "prevalence_outside" or predicted.all():
                assert math.isnan(named[metric.name].value)
    nothing = dict(utility_rows(np.abs(scores), mask, np.zeros(mask.shape, bool)))
    assert nothing[IN_PREDICTION.name].flags == (EMPTY_MASK,)
    assert nothing["auroc_outside"] == nothing["auroc"]


def test_what_cannot_be_measured_is_refused() -> None:
    scores, mask = case((7, 11), None)
    with pytest.raises(GridError, match=r"\(7, 11\) and \(11, 7\)"):
        average_precision(scores, mask.T)
    with pytest.raises(LabelError, match="got uint8"):
        average_precision(scores, (mask * 255).astype(np.uint8))  # type: ignore[arg-type]
    scores[0, :2] = np.nan, np.inf
    for metric in BY_RANK:
        with pytest.raises(MethodError, match="got 2 NaN or infinite"):
            metric(scores, mask)
