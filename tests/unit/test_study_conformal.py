"""p-values by comparison: brute force, exact levels, the tail against its closed form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from voxplain.study.conformal import Reference, p_among


def test_p_is_one_plus_those_above_over_one_more():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 8, 30).astype(float)  # with ties
    reference = Reference(scores, np.arange(30))
    new = np.array([-1.0, 0, 3.5, 7, 9, np.nan])
    expected = [(1 + (scores >= s).sum()) / 31 for s in new[:-1]]
    np.testing.assert_allclose(reference.p(new)[:-1], expected, rtol=1e-14)
    assert np.isnan(reference.p(new)[-1])


@pytest.mark.parametrize("n_patients", [15, 23, 40])
def test_within_is_a_reference_of_all_others(n_patients):
    rng = np.random.default_rng(n_patients)
    patients = np.concatenate([np.arange(n_patients), rng.integers(0, n_patients, 30)])
    scores = np.round(rng.pareto(3, len(patients)), 2)
    p, p_tail = p_among(scores, patients)
    for i, own in enumerate(patients):
        others = patients != own
        reference = Reference(scores[others], patients[others])
        assert p[i] == pytest.approx(reference.p(scores[[i]])[0], rel=1e-12)
        assert p_tail[i] == pytest.approx(reference.p_tail(scores[[i]])[0], rel=1e-12)
    assert (p_tail[p > 0.5] == p[p > 0.5]).all()


def test_a_patient_counts_once_however_many_cases():
    reference = Reference(np.array([1.0, 5, 5, 5, 5]), np.array([0, 1, 1, 1, 1]))
    np.testing.assert_allclose(reference.p(np.array([3.0])), [2 / 3])


def test_tail_is_the_distribution_of_one_more_exponential():
    # 100 scores: 10 above u; log-excess over mean log-excess is F(2, 20)
    scores = 1 + stats.pareto.ppf((np.arange(100) + 0.5) / 100, 2)
    u, top = np.sort(scores)[89], np.sort(scores)[90:]
    mean = np.log(top / u).mean()
    for s in (u * 1.01, u * 3, u * 50):
        expected = 11 / 101 * stats.f.sf(np.log(s / u) / mean, 2, 20)
        found = Reference(scores, np.arange(100)).p_tail(np.array([s]))[0]
        assert found == pytest.approx(expected, rel=1e-10)


def test_no_tail_of_few_patients_or_equal_scores():
    few = Reference(np.arange(1.0, 20), np.arange(19))
    assert few.p_tail(np.array([1e9]))[0] == 1 / 20
    flat = Reference(np.ones(50), np.arange(50))
    assert flat.p_tail(np.array([1e9]))[0] == 1 / 51


@pytest.mark.parametrize(
    ("draw", "is_exact"),
    [
        (lambda rng, n: 1 + rng.pareto(2, n), True),
        (lambda rng, n: rng.chisquare(8, n), False),
        (lambda rng, n: rng.exponential(1, n), False),
    ],
)
def test_level_of_the_tail(draw, is_exact):
    rng = np.random.default_rng(1)
    n, level = 6000, 0.004  # below what 60 patients can show: 1 / 61
    found = [Reference(draw(rng, 60), np.arange(60)).p_tail(draw(rng, 1))[0] for _ in range(n)]
    share, error = np.mean(np.array(found) <= level), np.sqrt(level * (1 - level) / n)
    assert share <= level + 3 * error
    if is_exact:
        assert share >= level - 3 * error
