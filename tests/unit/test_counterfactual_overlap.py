"""Overlap: against scikit-learn, by brute force, and in closed form."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score

from voxplain.counterfactual.overlap import (
    THRESHOLDS,
    OverlapDraws,
    mask_counts,
    overlap,
    overlap_row,
    scaled,
    threshold_counts,
    tuned,
)
from voxplain.errors import DataError


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.random((5, 7, 11)) < 0.2
    scores = np.clip(rng.normal(0.3, 0.2, truth.shape) + 0.3 * truth, 0, 1).astype(np.float32)
    scores[0, 0, :3] = THRESHOLDS[[0, 26, 100]]  # on a threshold: not above it
    return scores, truth


def test_counts_by_brute_force(scored):
    scores, truth = scored
    found = threshold_counts(scores, truth)
    assert found.shape == (5, 101, 3)
    for k, t in enumerate(THRESHOLDS):
        assert np.array_equal(found[:, k], mask_counts(scores > float(t), truth))
        for n in range(5):
            mask = scores[n] > float(t)
            assert found[n, k].tolist() == [
                (mask & truth[n]).sum(), (mask & ~truth[n]).sum(), (~mask & truth[n]).sum()
            ]  # fmt: skip


def test_iou_and_dice_as_scikit_learn(scored):
    scores, truth = scored
    counts = threshold_counts(scores, truth, [0.5])[:, 0]
    mask = scores > 0.5
    pooled = counts.sum(0)
    assert overlap(pooled, "iou") == pytest.approx(jaccard_score(truth.ravel(), mask.ravel()))
    assert overlap(pooled, "dice") == pytest.approx(f1_score(truth.ravel(), mask.ravel()))
    each = [jaccard_score(t.ravel(), m.ravel()) for t, m in zip(truth, mask, strict=True)]
    assert overlap(counts, "iou") == pytest.approx(each)
    draws = OverlapDraws(range(5), 10, 0)
    assert draws.values(counts, "iou", per_slice=True)[0] == pytest.approx(np.mean(each))


def test_nothing_found_is_zero_and_nothing_to_find_is_not_defined():
    assert overlap(np.array([0, 0, 9]), "iou") == 0
    assert np.isnan(overlap(np.array([0, 0, 0]), "dice"))


def test_tuned_threshold_is_that_of_the_best_pooled_iou():
    truth = np.zeros((2, 4, 4), bool)
    truth[:, 1:3, 1:3] = True
    scores = np.where(truth, 0.6, 0.305).astype(np.float32)
    best = tuned(threshold_counts(scores, truth))
    assert THRESHOLDS[best] == np.float32(0.31)  # the lowest above the background
    with pytest.raises(DataError, match="tuned on slices with a lesion"):
        tuned(threshold_counts(scores, np.zeros_like(truth)))
    with pytest.raises(DataError, match="tuned on slices with a lesion"):
        tuned(threshold_counts(scores[:0], truth[:0]))


def test_scaled_maps_span_zero_to_one_each():
    maps = np.array([[[1.0, 3.0], [2.0, 5.0]], [[7.0, 7.0], [7.0, 7.0]]], np.float32)
    expected = [[[0, 0.5], [0.25, 1]], [[0, 0], [0, 0]]]
    assert scaled(maps) == pytest.approx(np.array(expected))
    assert scaled(maps[:0]).shape == (0, 2, 2)


def test_draws_of_patients_by_brute_force(scored):
    scores, truth = scored
    counts = threshold_counts(scores, truth, [0.5])[:, 0]
    patients = np.array([3, 3, 1, 2, 1])
    draws = OverlapDraws(patients, 20, 4)
    assert draws.n_patients == 3
    for per_slice in (False, True):
        _, found = draws.values(counts, "dice", per_slice=per_slice)
        for drawn, value in zip(draws.draws.counts, found, strict=True):
            rows = np.concatenate([
                np.repeat(np.flatnonzero(patients == p), n)
                for p, n in zip([1, 2, 3], drawn, strict=True)
            ])  # fmt: skip
            chosen = counts[rows]
            expected = (
                overlap(chosen, "dice").mean() if per_slice else overlap(chosen.sum(0), "dice")
            )
            assert value == pytest.approx(expected)


def test_difference_is_paired(scored):
    scores, truth = scored
    a = threshold_counts(scores, truth, [0.5])[:, 0]
    draws = OverlapDraws(range(5), 50, 0)
    assert draws.difference(a, a, "iou", per_slice=False) == (0, 0, 0)
    b = threshold_counts(scores, truth, [0.8])[:, 0]
    value, low, high = draws.difference(a, b, "iou", per_slice=False)
    assert value == pytest.approx(float(overlap(a.sum(0), "iou") - overlap(b.sum(0), "iou")))
    assert low <= value <= high


def test_one_patient_has_no_interval(scored):
    counts = threshold_counts(*scored, [0.5])[:, 0]
    row = overlap_row(counts, OverlapDraws([8] * 5, 10, 0), "tuned")
    assert np.isfinite(row["iou_tuned"])
    assert np.isnan(row["iou_tuned_low"])
    assert len(row) == 12


def test_faults_are_named(scored):
    scores, truth = scored
    with pytest.raises(DataError, match=r"\(slices, rows, columns\)"):
        threshold_counts(scores, truth[0])
    with pytest.raises(DataError, match="1 scores are NaN"):
        threshold_counts(
            np.where(np.arange(scores.size).reshape(scores.shape) == 5, np.nan, scores), truth
        )
    with pytest.raises(DataError, match="thresholds rise"):
        threshold_counts(scores, truth, [0.5, 0.5])


def test_blocks_count_as_the_whole(scored, monkeypatch):
    scores, truth = scored
    whole, maps = threshold_counts(scores, truth), scaled(scores)
    for pixels in (1, 2 * 7 * 11, 3 * 7 * 11):
        monkeypatch.setattr("voxplain.counterfactual.overlap._PIXELS", pixels)
        assert np.array_equal(threshold_counts(scores, truth), whole)
        assert np.array_equal(scaled(scores), maps)
    scores[4, 0, 0] = scores[0, 0, 0] = np.nan
    with pytest.raises(DataError, match="2 scores are NaN"):
        threshold_counts(scores, truth)


def test_memory_of_counts_does_not_grow_with_slices(monkeypatch):
    monkeypatch.setattr("voxplain.counterfactual.overlap._PIXELS", 2**14)
    peaks = []
    for n in (100, 800):
        scores = np.random.default_rng(0).random((n, 64, 64), np.float32)
        truth = scores > 0.9
        tracemalloc.start()
        threshold_counts(scores, truth, [0.5])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 0.05 * scores.nbytes
