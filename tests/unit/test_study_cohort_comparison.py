"""Differences of two tables against scipy, by hand and on null cohorts."""

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from voxplain.errors import DataError
from voxplain.records.cohort_table import CohortTable
from voxplain.study import cohort_comparison
from voxplain.study.bootstrap import interval
from voxplain.study.cohort_comparison import COMPARISON, Permutations, compare_tables, limit_p
from voxplain.study.importance import LARGE


def _table(share, patients=None, prefix="c", targets=None, regions=None):
    n, n_targets, n_regions = share.shape
    names = [f"{prefix}{i:04d}" for i in range(n)]
    patients = [f"patient of {name}" for name in names] if patients is None else patients
    return CohortTable(
        "m", "ig", pd.DataFrame({"patient": patients}, pd.Index(names, name="case")),
        tuple(targets or [f"t{i}" for i in range(n_targets)]),
        tuple(regions or [f"r{i}" for i in range(n_regions)]), {"share": share},
    )  # fmt: skip


def _shares(n, n_targets=1, n_regions=3, seed=0, alpha=1.0):
    return np.random.default_rng(seed).dirichlet(
        np.full(n_regions, alpha), (n, n_targets)
    )  # fmt: skip


def _with_images(table, images):
    return replace(table, cases=table.cases.assign(image_sha256=images))


def _mean_gap(x, y, axis=-1):
    return np.abs(x.mean(axis=axis) - y.mean(axis=axis))


def test_paired_p_is_exact_as_scipys_with_few_patients():
    a, b = _shares(9, seed=1), _shares(9, seed=2)
    found = compare_tables(_table(a), _table(b), labels=("old", "new"))
    assert tuple(found.columns) == COMPARISON
    assert (found["design"] == "paired").all()
    assert (found["a"] == "old").all()
    for i, row in found.iterrows():
        x, y = a[:, 0, i], b[:, 0, i]
        test = stats.permutation_test(
            (x, y), _mean_gap, permutation_type="samples",
            alternative="greater", n_resamples=np.inf, vectorized=True,
        )  # fmt: skip
        assert row["p"] == pytest.approx(test.pvalue, abs=1e-12)
        assert row["difference"] == pytest.approx((x - y).mean(), abs=1e-15)
    np.testing.assert_allclose(found["q"], stats.false_discovery_control(found["p"]))


@pytest.mark.parametrize("n_b", [5, 7])
def test_unpaired_p_is_exact_as_scipys_with_few_patients(n_b):
    a, b = _shares(5, seed=1), _shares(n_b, seed=2)
    found = compare_tables(_table(a), _table(b, prefix="d"))
    assert (found["design"] == "unpaired").all()
    for i, row in found.iterrows():
        test = stats.permutation_test(
            (a[:, 0, i], b[:, 0, i]), _mean_gap,
            permutation_type="independent", alternative="greater", n_resamples=np.inf,
            vectorized=True,
        )  # fmt: skip
        assert row["p"] == pytest.approx(test.pvalue, abs=1e-12)


def test_random_permutations_come_close_to_scipys():
    a, b = _shares(30, seed=1), _shares(25, seed=2) * 0.9 + 0.03
    for other in (_table(b, prefix="d"), _table(np.vstack([b, b[:5]]))):
        found = compare_tables(_table(a), other, n_permutations=4000)
        kind = "samples" if found["design"].iloc[0] == "paired" else "independent"
        y = other.values["share"]
        for i, row in found.iterrows():
            test = stats.permutation_test(
                (a[:, 0, i], y[:, 0, i]), _mean_gap,
                permutation_type=kind, alternative="greater", n_resamples=4000, vectorized=True,
                rng=np.random.default_rng(1),
            )  # fmt: skip
            assert row["p"] == pytest.approx(test.pvalue, abs=0.04)


def test_intervals_are_those_of_scipys_draws():
    a, b = _shares(30, seed=1), _shares(22, seed=2)
    row = compare_tables(_table(a), _table(b, prefix="d")).iloc[0]
    drawn = stats.bootstrap(
        (a[:, 0, 0], b[:, 0, 0]), lambda x, y, axis: x.mean(axis) - y.mean(axis),
        n_resamples=20000, method="percentile", vectorized=True, rng=np.random.default_rng(3),
    ).bootstrap_distribution  # fmt: skip
    low, high = interval(drawn, 22, 0.95)
    assert [row["low"], row["high"]] == pytest.approx([low, high], abs=0.08 * (high - low))
    d = a[:22, 0, 0] - b[:, 0, 0]
    row = compare_tables(_table(a[:22]), _table(b)).iloc[0]
    drawn = stats.bootstrap(
        (d,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(3)
    ).bootstrap_distribution
    low, high = interval(drawn, 22, 0.95)
    assert [row["low"], row["high"]] == pytest.approx([low, high], abs=0.08 * (high - low))


@pytest.mark.parametrize("prefix", ["c", "d"])
@pytest.mark.parametrize("n", [4, 40])
def test_equal_tables_differ_in_nothing(prefix, n):
    share = np.tile([1 / 3, 0.1, 0.1 + 0.2], (n, 1, 1))
    found = compare_tables(_table(share), _table(share[::-1] * (1 + 1e-16), prefix=prefix))
    np.testing.assert_allclose(found["difference"], 0, atol=1e-15)
    assert (found["p"] == 1).all()
    assert (found["q"] == 1).all()


def test_cases_of_a_patient_are_moved_together():
    a = np.array([0.1, 0.3, 0.5, 0.7]).reshape(4, 1, 1)
    b = np.array([0.0, 0.2, 0.0, 0.1]).reshape(4, 1, 1)
    patients = ["x", "x", "y", "z"]
    row = compare_tables(_table(a, patients), _table(b, patients)).iloc[0]
    assert (row["n_a"], row["n_b"]) == (3, 3)
    d = np.array([0.1, 0.5, 0.6])
    assert row["difference"] == pytest.approx(d.mean())
    assert row["p"] == 2 / 8
    assert row["note"] == "p cannot be below 0.25 with 3 patients"


def test_absent_classes_are_left_out_on_both_sides_of_a_pair():
    a, b = _shares(12, 2, seed=1), _shares(12, 2, seed=2)
    a[0, 0], b[1, 0], a[:, 1] = np.nan, np.nan, np.nan
    found = compare_tables(_table(a), _table(b))
    first = found[found["target"] == "t0"]
    assert first[["n_a", "n_b"]].eq(10).all(axis=None)
    alone = compare_tables(_table(a[2:, :1]), _table(b[2:, :1]))
    np.testing.assert_array_equal(first["p"], alone["p"])
    other = found[found["target"] == "t1"]
    assert other[["mean_a", "difference", "low", "p", "q"]].isna().all(axis=None)
    assert other["note"].str.contains("no patient of a").all()


def test_regions_and_targets_of_one_table_only_are_told():
    a = _table(_shares(8, seed=1), regions=["x", "y", "z"])
    b = _table(_shares(8, seed=2), regions=["x", "y", "w"], targets=["other"])
    found = compare_tables(a, b, labels=("CT", "MR"))
    assert len(found) == 2 * 4
    assert found["p"].isna().all()
    c = _table(_shares(8, seed=2), regions=["x", "y", "w"], prefix="d")
    found = compare_tables(a, c, labels=("CT", "MR")).set_index("region")
    assert found["p"].notna().tolist() == [True, True, False, False]
    assert found.loc["z", "note"] == "no patient of MR with this target and region"
    assert found.loc["z", "mean_a"] == pytest.approx(a.values["share"][:, 0, 2].mean())


def test_partly_common_cases_are_compared_in_pairs_and_told():
    a, b = _shares(10, seed=1), _shares(14, seed=2)
    found = compare_tables(_table(a), _table(b))
    assert (found["note"] == "on the 10 cases in both (10 and 14)").all()
    whole = compare_tables(_table(a), _table(b[:10]))
    pd.testing.assert_frame_equal(found.drop(columns="note"), whole.drop(columns="note"))


def test_patients_on_both_sides_of_an_unpaired_design_are_refused_without_their_names():
    a, b = _shares(3), _shares(3)
    with pytest.raises(DataError, match="1 patients do") as refused:
        compare_tables(
            _table(a, ["secret", "p1", "p2"]), _table(b, ["q0", "q1", "secret"], prefix="d")
        )
    assert "secret" not in str(refused.value)
    with pytest.raises(DataError, match="different patients"):
        compare_tables(_table(a), _table(b, ["q0", "q1", "q2"]))


def test_two_cohorts_with_the_same_names_of_cases_are_told_by_their_images():
    a, b = _table(_shares(4, seed=1)), _table(_shares(4, seed=2))
    same = compare_tables(_with_images(a, list("wxyz")), _with_images(b, list("wxyz")))
    pd.testing.assert_frame_equal(same, compare_tables(a, b))
    pd.testing.assert_frame_equal(same, compare_tables(_with_images(a, list("wxyz")), b))
    unknown = _with_images(b, ["w", "x", None, "z"])
    pd.testing.assert_frame_equal(same, compare_tables(_with_images(a, list("wxyz")), unknown))
    with pytest.raises(DataError, match=r"2 of 4 cases .* different images, e.g. 'c0001'.*rename"):
        compare_tables(_with_images(a, list("wxyz")), _with_images(b, list("w12z")))


@pytest.mark.parametrize("design", ["paired", "unpaired"])
def test_permutations_are_as_many_as_the_tests_need(design):
    """One test of many must be able to survive the correction: p_least · tests ≤ 0.05."""
    prefix = "c" if design == "paired" else "d"
    a, b = _shares(25, 30, 30, seed=1, alpha=5), _shares(25, 30, 30, seed=2, alpha=5)
    b[:, 3, 4] += 1
    found = compare_tables(_table(a), _table(b, prefix=prefix))
    assert (found["design"] == design).all()
    assert found["p_least"].to_numpy() == pytest.approx(1 / 18_001)
    hit = found[found["q"] <= 0.05]
    assert hit[["target", "region"]].to_numpy().tolist() == [["t3", "r4"]]
    few = compare_tables(_table(a), _table(b, prefix=prefix), n_permutations=10_000)
    assert (few["q"] > 0.05).all()
    more = compare_tables(_table(a[:, :2]), _table(b[:, :2], prefix=prefix), n_comparisons=10)
    assert more["p_least"].to_numpy() == pytest.approx(1 / 12_001)


@pytest.mark.parametrize("n", [15, 101])
def test_more_tests_than_permutations_can_serve(monkeypatch, n):
    """Few patients: all are tried. Many: the normal limit, which is told."""
    monkeypatch.setattr(cohort_comparison, "_MOST", 40_000)
    a, b = _shares(n, 50, 41, seed=1), _shares(n, 50, 41, seed=2)
    found = compare_tables(_table(a), _table(b))
    x = (a - b)[:, 0, 0]
    if n == 15:
        assert found["p_least"].to_numpy() == pytest.approx(2 / 2**15)
        expected = stats.permutation_test(
            (x,), lambda d, axis: np.abs(d.mean(axis=axis)), permutation_type="samples",
            alternative="greater", n_resamples=np.inf, vectorized=True,
        ).pvalue  # fmt: skip
        assert found["p"].iloc[0] == pytest.approx(expected, abs=1e-12)
        return
    assert (found["p_least"] == 0).all()
    assert found["note"].str.startswith("p is a normal limit").all()
    z = abs(x.sum()) / np.sqrt((x**2).sum())
    assert found["p"].iloc[0] == pytest.approx(2 * stats.norm.sf(z), rel=1e-9)


@pytest.mark.parametrize("prefix", ["c", "d"])
def test_permutations_that_are_made_anew_are_those_that_were_kept(monkeypatch, prefix):
    a, b = _shares(30, 3, seed=1), _shares(30, 3, seed=2)
    a[0, 1] = np.nan
    monkeypatch.setattr(cohort_comparison, "_BLOCK", 60_000)
    kept = compare_tables(_table(a), _table(b, prefix=prefix))
    monkeypatch.setattr(cohort_comparison, "_KEPT", 0)
    anew = compare_tables(_table(a), _table(b, prefix=prefix))
    pd.testing.assert_frame_equal(kept, anew, check_exact=True)


@pytest.mark.parametrize("wrong", [{"n_permutations": 0}, {"n_comparisons": 0}, {"level": 0.0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(DataError):
        compare_tables(_table(_shares(3)), _table(_shares(3)), **wrong)


@pytest.mark.parametrize("prefix", ["c", "d"])
def test_order_of_cases_changes_no_bit(prefix):
    a, b = _table(_shares(25, 2, seed=1)), _table(_shares(25, 2, seed=2), prefix=prefix)
    mix = np.random.default_rng(0).permutation(25)
    pd.testing.assert_frame_equal(
        compare_tables(a, b), compare_tables(a.take(mix), b.take(mix[::-1])), check_exact=True
    )


def test_one_patient_has_no_interval():
    found = compare_tables(_table(_shares(1)), _table(_shares(9), prefix="d"))
    assert found[["low", "high"]].isna().all(axis=None)
    assert found["note"].str.startswith("p cannot be below 0.1 with 1 and 9").all()


@pytest.mark.parametrize(("n_a", "n_b"), [(3, 3), (3, 4), (2, 9)])
def test_the_smallest_p_can_be_reached(n_a, n_b):
    a, b = np.zeros((n_a, 1, 1)), np.ones((n_b, 1, 1))
    permutations = Permutations("unpaired", 1000, 0)
    found = compare_tables(_table(a), _table(b, prefix="d"))
    assert found["p"].iloc[0] == pytest.approx(permutations.least(n_a, n_b))


@pytest.mark.parametrize("design", ["paired", "unpaired"])
def test_the_limit_agrees_with_permutations(design):
    rng, n_a = np.random.default_rng(4), 900
    n_b = n_a if design == "paired" else 600
    values = rng.exponential(size=(n_a if design == "paired" else n_a + n_b, 6))
    values -= values.mean(axis=0)
    if design == "paired":
        values += np.linspace(0, 0.08, 6)
    else:
        values[:n_a] += np.linspace(0, 0.2, 6)
        values -= values.mean(axis=0)
    scale = np.abs(values).sum(axis=0)
    found = Permutations(design, 5000, 0).p(values, n_a, n_b, scale)
    limit = limit_p(values, n_a, n_b, scale, design)
    assert limit.min() < 0.05 < limit.max()
    np.testing.assert_allclose(found, limit, atol=0.03)
    still = np.zeros((n_a + n_b, 2))
    assert (limit_p(still, n_a, n_b, np.ones(2), "unpaired") == 1).all()


def test_more_patients_than_are_permuted_and_unequal_sides():
    n = LARGE + 1
    a, b = _shares(n, seed=1), _shares(n, seed=2)
    paired = compare_tables(_table(a), _table(b))
    p = [stats.ttest_rel(a[:, 0, i], b[:, 0, i]).pvalue for i in range(3)]
    np.testing.assert_allclose(paired["p"], p, atol=0.005)
    apart = compare_tables(_table(a), _table(b, prefix="d"))
    p = [stats.ttest_ind(a[:, 0, i], b[:, 0, i]).pvalue for i in range(3)]
    np.testing.assert_allclose(apart["p"], p, atol=0.005)
    ends = [stats.ttest_ind(a[:, 0, i], b[:, 0, i]).confidence_interval() for i in range(3)]
    width = ends[0].high - ends[0].low
    np.testing.assert_allclose(apart["low"], [e.low for e in ends], atol=0.08 * width)
    few = compare_tables(
        _table(np.vstack([a, a[:LARGE]])), _table(b[:30], prefix="d"), n_permutations=2000
    )
    pool = np.vstack([a, a[:LARGE]])[:, 0]
    p = stats.ttest_ind(pool, b[:30, 0]).pvalue
    np.testing.assert_allclose(few["p"], p, atol=0.05)


def test_a_difference_of_few_in_a_large_cohort_is_told_to_be_rough():
    a = np.full((LARGE + 1, 1, 1), 0.5)
    b = a.copy()
    b[:5] = 0.1
    row = compare_tables(_table(a), _table(b)).iloc[0]
    assert row["note"].startswith("about 5 patients carry")


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["c", "d"])
def test_null_cohorts_give_few_findings(prefix):
    n, alarms = 200, 0
    rng = np.random.default_rng(11)
    for i in range(n):
        a, b = rng.dirichlet(np.ones(3), (2, 10, 2))
        found = compare_tables(
            _table(a), _table(b, prefix=prefix), n_permutations=300, seed=i
        )  # fmt: skip
        alarms += (found["q"] <= 0.05).any()
    print(f"{alarms} false alarms on {n} null cohorts")
    assert stats.binomtest(int(alarms), n, 0.05).proportion_ci(0.99).low <= 0.05


def test_planted_difference_is_found():
    a, b = _shares(20, 4, seed=1, alpha=5), _shares(20, 4, seed=2, alpha=5)
    b[:, 2] = b[:, 2] * 0.7 + [0.3, 0, 0]
    found = compare_tables(_table(a), _table(b, prefix="d"))
    hit = found[found["q"] <= 0.05]
    assert set(hit["target"]) == {"t2"}
    assert hit.iloc[0]["difference"] < 0
    assert hit.iloc[0]["high"] < 0


@pytest.mark.slow
@pytest.mark.parametrize(("n", "n_b"), [(100_000, 100_000), (2000, 2000), (100_000, 2000)])
@pytest.mark.parametrize("prefix", ["c", "d"])
def test_large_cohorts_are_quick(n, n_b, prefix):
    rng = np.random.default_rng(0)
    a, b = (rng.random((size, 17, 17), np.float32).astype(float) for size in (n, n_b))
    start = time.perf_counter()
    compare_tables(_table(a), _table(b, prefix=prefix))
    print(f"{n} and {n_b} cases × 17 × 17: {time.perf_counter() - start:.1f} s")
    assert time.perf_counter() - start < 120
