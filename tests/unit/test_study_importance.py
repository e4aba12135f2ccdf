"""Global importance against closed forms and scipy."""

import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from voxplain.errors import DataError, LabelError
from voxplain.records.cohort_table import CohortTable
from voxplain.study.bootstrap import interval
from voxplain.study.importance import (
    CONTEXTUAL,
    CUMULATED,
    IMPORTANCE,
    LARGE,
    MeanDraws,
    contextual,
    cumulated,
    global_importance,
    importance_matrix,
    median_ranks,
)


def _table(share, patients=None, targets=None, regions=None, extra=(), **values):
    n, n_targets, n_regions = share.shape
    patients = [f"p{i:04d}" for i in range(n)] if patients is None else patients
    return CohortTable(
        "m", "smoothgrad",
        pd.DataFrame({"patient": patients}, pd.Index([f"c{i:04d}" for i in range(n)], name="case")),
        tuple(targets or [f"t{i}" for i in range(n_targets)]),
        tuple(regions or [f"r{i}" for i in range(n_regions)]),
        {"share": share, **values}, extra_regions=tuple(extra),
    )  # fmt: skip


def _shares(n, n_targets=2, n_regions=3, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(n_regions), (n, n_targets))


def _row(frame, target, region):
    return frame[(frame["target"] == target) & (frame["region"] == region)].iloc[0]


def test_constant_shares_have_that_mean_and_no_width():
    share = np.tile([0.1, 0.2, 0.7], (8, 2, 1))
    found = global_importance(_table(share))
    assert tuple(found.columns) == IMPORTANCE
    for column in ("mean", "low", "high", "q25", "median", "median_low", "median_high", "q75"):
        np.testing.assert_allclose(found[column], [0.1, 0.2, 0.7] * 2, atol=1e-15)
    np.testing.assert_allclose(found["sd"], 0, atol=1e-15)
    assert (found["n_cases"] == 8).all()
    assert (found["note"] == "").all()


def test_one_case_a_patient_gives_numpys_and_scipys_numbers():
    share = _shares(31)
    found = global_importance(_table(share), seed=3)
    x = share[:, 1, 2]
    row = _row(found, "t1", "r2")
    q25, median, q75 = np.quantile(x, [0.25, 0.5, 0.75])
    expected = [x.mean(), x.std(ddof=1), q25, median, q75]
    assert row[["mean", "sd", "q25", "median", "q75"]].tolist() == pytest.approx(
        expected, abs=1e-14
    )
    resampled = stats.bootstrap(
        (x,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
    )
    low, high = interval(resampled.bootstrap_distribution, 31, 0.95)
    assert [row["low"], row["high"]] == pytest.approx([low, high], abs=0.08 * (high - low))
    order = stats.quantile_test(x, q=0, p=0.5).confidence_interval(confidence_level=0.95)
    assert (row["median_low"], row["median_high"]) == (order.low, order.high)


@pytest.mark.parametrize("n", [1, 5, 6, 7, 20, 41, 500])
def test_order_statistics_are_the_narrowest_that_keep_the_level(n):
    k = median_ranks(n, 0.95)
    if k:
        assert 1 - 2 * stats.binom.cdf(k - 1, n, 0.5) >= 0.95
    assert 1 - 2 * stats.binom.cdf(k, n, 0.5) < 0.95
    assert (k > 0) == (n >= 6)


def test_cases_of_a_patient_count_as_one():
    share = np.array([[[0.0, 1.0]], [[0.2, 0.8]], [[0.8, 0.2]], [[np.nan] * 2]])
    found = global_importance(_table(share, ["b", "a", "b", "a"]))
    row = _row(found, "t0", "r0")
    assert row["mean"] == pytest.approx((0.4 + 0.2) / 2)
    assert (row["n_cases"], row["n_patients"]) == (3, 2)
    assert row["median"] == pytest.approx(0.3)


def test_order_of_cases_and_other_targets_change_no_bit():
    share = _shares(40)
    share[3:9, 0] = np.nan
    patients = [f"p{i % 17}" for i in range(40)]
    table = _table(share, patients)
    found = global_importance(table)
    mixed = global_importance(table.take(np.random.default_rng(5).permutation(40)))
    pd.testing.assert_frame_equal(found, mixed, check_exact=True)
    alone = global_importance(_table(share[:, 1:], patients, targets=["t1"]))
    own = found[found["target"] == "t1"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, alone, check_exact=True)


def test_absent_classes_and_regions_known_in_some_cases():
    share = _shares(12)
    share[:, 0] = np.nan
    share[4:, 1, 2] = np.nan
    share[1:, 1, 0] = np.nan
    found = global_importance(_table(share))
    nobody = found[found["target"] == "t0"]
    assert nobody[["mean", "low", "median", "median_low", "sd", "q25"]].isna().all(axis=None)
    assert nobody["note"].str.startswith("no case").all()
    assert (nobody["n_cases"] == 0).all()
    part = _row(found, "t1", "r2")
    assert part["mean"] == pytest.approx(share[:4, 1, 2].mean())
    assert part["median"] == pytest.approx(np.median(share[:4, 1, 2]))
    assert np.isfinite([part["low"], part["high"]]).all()
    assert np.isnan(part["median_low"])
    assert "4 patients" in part["note"]
    one = _row(found, "t1", "r0")
    assert one["mean"] == share[0, 1, 0]
    assert np.isnan(one["low"])
    assert np.isnan(one["sd"])
    assert one["note"].startswith("one patient")


def test_extra_regions_and_other_values():
    share = _shares(9, 1, 3)
    extra = np.full((9, 1, 1), np.nan)
    extra[:2] = 0.5
    positive = np.concatenate([share * 3, extra], axis=2)
    table = _table(
        np.concatenate([share, extra], axis=2), extra=["r3"], positive=positive
    )  # fmt: skip
    found = global_importance(table)
    assert _row(found, "t0", "r3")["mean"] == 0.5
    assert found.loc[found["region"] != "r3", "mean"].sum() == pytest.approx(1)
    other = global_importance(table, "positive")
    assert (other["value"] == "positive").all()
    assert _row(other, "t0", "r1")["mean"] == pytest.approx(3 * share[:, 0, 1].mean())
    with pytest.raises(LabelError, match="negative"):
        global_importance(table, "negative")


@pytest.mark.parametrize("wrong", [{"level": 1.0}, {"n_boot": 0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(DataError):
        global_importance(_table(_shares(3)), **wrong)


def test_no_targets_and_no_cases():
    assert tuple(global_importance(_table(np.zeros((3, 0, 2)))).columns) == IMPORTANCE
    found = global_importance(_table(np.zeros((0, 1, 2))))
    assert found["mean"].isna().all()


def test_students_interval_agrees_with_draws_where_patients_are_many():
    x = np.random.default_rng(2).dirichlet(np.ones(4), LARGE)
    draws = MeanDraws(4000, 0.95, 0)
    low, high = draws.intervals(x)
    more = np.vstack([x, x.mean(axis=0)])  # one patient above the limit
    t_low, t_high = draws.intervals(more)
    width = t_high - t_low
    np.testing.assert_allclose(low, t_low, atol=0.06 * width.max())
    np.testing.assert_allclose(high, t_high, atol=0.06 * width.max())
    ends = stats.t.interval(0.95, LARGE, more.mean(axis=0), stats.sem(more))
    np.testing.assert_allclose([t_low, t_high], ends, rtol=1e-12)
    np.testing.assert_allclose(draws.means(more).std(axis=0), stats.sem(more), rtol=0.05)


def test_students_interval_that_leaves_its_range_is_told():
    share = np.zeros((LARGE + 1, 1, 2))
    share[:, 0, 1] = 1
    share[0, 0] = [1, 0]
    found = global_importance(_table(share))
    assert found["low"].min() < 0
    assert found["note"].str.startswith("few patients").all()


def test_interval_of_the_mean_holds_it_about_as_often_as_promised():
    rng, truth, hits, n = np.random.default_rng(7), 1 / 3, 0, 200
    for i in range(n):
        table = _table(rng.dirichlet([2, 2, 2], (20, 1)), None)
        row = global_importance(table, n_boot=400, seed=i).iloc[0]
        hits += row["low"] <= truth <= row["high"]
    assert stats.binomtest(hits, n, 0.95).proportion_ci(0.99).high >= 0.95
    assert hits / n > 0.9


def test_interval_of_the_median_holds_it_at_least_as_often_as_promised():
    rng, n = np.random.default_rng(8), 400
    k = median_ranks(15, 0.95)
    x = np.sort(rng.exponential(size=(n, 15)), axis=1)
    hits = ((x[:, k - 1] <= np.log(2)) & (np.log(2) <= x[:, 15 - k])).sum()
    assert stats.binomtest(int(hits), n, 0.95).proportion_ci(0.99).high >= 0.95


def test_matrix_keeps_order_and_refuses_mixtures():
    table = _table(_shares(7), targets=["z", "a"], regions=["q", "b", "m"])
    found = global_importance(table)
    wide = importance_matrix(found, "median")
    assert wide.index.tolist() == ["z", "a"]
    assert wide.columns.tolist() == ["q", "b", "m"]
    assert wide.loc["a", "b"] == _row(found, "a", "b")["median"]
    with pytest.raises(DataError, match="model"):
        importance_matrix(pd.concat([found, found.assign(model="other")]))
    with pytest.raises(DataError, match="no column"):
        importance_matrix(found, "medium")
    with pytest.raises(DataError, match="missing columns"):
        importance_matrix(found.drop(columns="region"))


def test_contextual_sorts_own_shares_and_leaves_out_targets_without_a_region():
    share = np.tile(
        [[0.7, 0.2, 0.1], [0.3, 0.5, 0.2], [np.nan] * 3, [0.2, 0.2, 0.6]], (6, 1, 1)
    )  # fmt: skip
    table = _table(
        share, targets=["lung", "heart", "aorta", "mean"], regions=["lung", "heart", "aorta"]
    )
    found = contextual(table)
    assert tuple(found.columns) == CONTEXTUAL
    assert found["target"].tolist() == ["heart", "lung", "aorta"]
    np.testing.assert_allclose(found["mean"], [0.5, 0.7, np.nan])
    assert found["n_patients"].tolist() == [6, 6, 0]
    assert contextual(_table(share)).empty


def test_contextual_tells_what_global_importance_tells():
    table = _table(_shares(25), targets=["r1", "x"])
    found, all_of = contextual(table, seed=4).iloc[0], global_importance(table, seed=4)
    row = _row(all_of, "r1", "r1")
    columns = ["mean", "low", "high"]
    assert found[columns].tolist() == pytest.approx(row[columns].tolist(), abs=1e-14)


def test_cumulated_shares_rise_to_one_without_the_extra_regions():
    share = np.tile([[0.2, 0.5, 0.3, 0.9], [np.nan] * 4], (3, 1, 1))
    found = global_importance(_table(share, extra=["r3"]))
    added = cumulated(found, ["r3"])
    assert tuple(added.columns) == CUMULATED
    assert added["region"].tolist() == ["r1", "r2", "r0"]
    assert added["rank"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(added["cumulated"], [0.5, 0.8, 1])
    with pytest.raises(DataError, match="extra_regions"):
        cumulated(found)
    with pytest.raises(DataError, match="only shares"):
        cumulated(found.assign(value="positive"))


@pytest.mark.slow
def test_a_hundred_thousand_cases_are_quick():
    share = np.random.default_rng(0).random((100_000, 17, 17))
    share /= share.sum(axis=2, keepdims=True)
    table = _table(share)
    start = time.perf_counter()
    found = global_importance(table)
    print(f"100,000 cases × 17 × 17: {time.perf_counter() - start:.1f} s")
    assert len(found) == 289
    assert time.perf_counter() - start < 60
