"""Draws of whole patients: every statistic equals that of the rows written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score

from voxplain.errors import DataError
from voxplain.study.bootstrap import PatientDraws, interval
from voxplain.study.lesion_tests import cliffs_delta


@pytest.fixture(params=range(4))
def rows(request):
    """Values with ties, a class, and patients of unequal size, the last with one class only."""
    rng = np.random.default_rng(request.param)
    patient = np.sort(rng.choice(list("badce"), 31))
    values = rng.integers(0, 9, 31) / 2
    chosen = rng.random(31) < 0.4
    chosen[patient == "e"] = False
    chosen[0] = True
    return PatientDraws(patient.tolist(), 60, seed=request.param), values, chosen


def written_out(draws, i):
    """Rows of draw i, each as often as its patient was drawn."""
    return np.repeat(np.arange(len(draws.owner)), draws.counts[i][draws.owner])


def test_patients_are_drawn_with_replacement(rows):
    draws, *_ = rows
    assert draws.counts.shape == (60, 5)
    assert (draws.counts.sum(axis=1) == 5).all()
    assert (draws.counts > 1).any()
    assert list(draws.names) == list("abcde")
    again = PatientDraws(draws.names[draws.owner].tolist(), 60, seed=99)
    assert not np.array_equal(again.counts, draws.counts)


def test_medians_of_the_rows_written_out(rows):
    draws, values, chosen = rows
    found = draws.medians(values[chosen], draws.owner[chosen])
    for i in range(60):
        drawn = written_out(draws, i)
        drawn = drawn[chosen[drawn]]
        expected = np.median(values[drawn]) if len(drawn) else np.nan
        assert found[i] == pytest.approx(expected, nan_ok=True)


def test_deltas_of_the_rows_written_out(rows):
    draws, values, chosen = rows
    owner = draws.owner
    found = draws.deltas(values[chosen], owner[chosen], values[~chosen], owner[~chosen])
    for i in range(60):
        drawn = written_out(draws, i)
        expected = cliffs_delta(values[drawn][chosen[drawn]], values[drawn][~chosen[drawn]])
        assert found[i] == pytest.approx(expected, nan_ok=True, abs=1e-12)


def test_average_precisions_of_the_rows_written_out(rows):
    draws, values, chosen = rows
    found = draws.average_precisions(values, chosen, draws.owner)
    for i in range(60):
        drawn = written_out(draws, i)
        if chosen[drawn].any():
            expected = average_precision_score(chosen[drawn], values[drawn])
            assert found[i] == pytest.approx(expected)
        else:
            assert np.isnan(found[i])


def test_many_rows_in_blocks_are_drawn_as_in_one(rows, monkeypatch):
    draws, values, chosen = rows
    one = draws.medians(values, draws.owner)
    precision = draws.average_precisions(values, chosen, draws.owner)
    monkeypatch.setattr("voxplain.study.bootstrap._BLOCK", 100)
    np.testing.assert_array_equal(draws.medians(values, draws.owner), one)
    np.testing.assert_array_equal(draws.average_precisions(values, chosen, draws.owner), precision)


@pytest.mark.parametrize(("n", "level", "spread"), [(4, 0.8, 1.0), (30, 0.9, 1.0), (30, 0.8, 1.5)])
def test_interval_of_normal_draws_is_students(n, level, spread):
    rng = np.random.default_rng(n)
    centre, sd = rng.normal(), rng.uniform(0.5, 2)
    even = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)  # draws without chance
    half = spread * stats.t.ppf((1 + level) / 2, n - 1) * np.sqrt(n / (n - 1)) * sd
    low, high = interval(np.append(centre + sd * even, np.nan), n, level, spread)
    assert low == pytest.approx(centre - half, abs=0.01)
    assert high == pytest.approx(centre + half, abs=0.01)


def test_a_mean_of_eight_patients_is_covered():
    rng = np.random.default_rng(3)
    n_studies, n_patients, n_hit = 300, 8, 0
    for seed in range(n_studies):
        values = rng.normal(size=n_patients)
        draws = PatientDraws([str(i) for i in range(n_patients)], 400, seed)
        low, high = interval(draws.counts @ values / n_patients, n_patients, 0.9)
        n_hit += low <= 0 <= high
    # three standard errors of a share of 0.9
    assert abs(n_hit / n_studies - 0.9) < 3 * np.sqrt(0.9 * 0.1 / n_studies)


def test_nothing_to_draw_is_no_interval():
    assert np.isnan(interval(np.arange(9.0), 1, 0.9)).all()
    assert np.isnan(interval(np.full(5, np.nan), 5, 0.9)).all()


def test_bad_settings_are_refused():
    with pytest.raises(DataError, match="n_boot, the draws of the bootstrap, is at least 1, got 0"):
        PatientDraws(["a"], 0, 0)
    with pytest.raises(DataError, match=r"between 0 and 1, e\.g\. 0\.95; got 95"):
        interval(np.arange(9.0), 3, 95)
