"""A cohort in one summary: what it takes from where, what is left out and why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tests.cohort_tables import EXTRA, STRANGE, TARGETS, cohort_table

from voxplain.errors import DataError, MethodError
from voxplain.study.anomalies import ALL_TARGETS, fit_anomalies
from voxplain.study.anomaly_settings import AnomalySettings
from voxplain.study.cohort_comparison import compare_tables
from voxplain.study.false_discovery import adjusted
from voxplain.study.importance import global_importance
from voxplain.study.summary import (
    Comparison,
    StudySummary,
    SummarySettings,
    adjusted_comparisons,
    adjusted_summaries,
    summarise,
)

FEW = SummarySettings(n_boot=100)


@pytest.fixture(scope="module")
def summary() -> StudySummary:
    return summarise(cohort_table(), FEW)


def test_it_holds_what_each_statistic_says(summary: StudySummary) -> None:
    table = summary.table
    pd.testing.assert_frame_equal(summary.importance, global_importance(table, n_boot=100))
    assert set(summary.contextual["target"]) == set(TARGETS)
    assert summary.title == "net · gradient"
    assert summary.notes == {}


def test_strange_case_comes_first_and_is_explained(summary: StudySummary) -> None:
    top, bottom = summary.extremes
    assert (top[0], len(top), len(bottom)) == (STRANGE, 3, 3)
    scores = summary.scores[summary.scores["target"] == ALL_TARGETS].set_index("case")["score"]
    assert scores[list(top)].min() >= scores.drop(list(top)).max()
    assert scores[list(bottom)].max() <= scores.drop(list(bottom)).min()
    target = summary.driver_targets[STRANGE]
    scores = summary.scores.set_index(["case", "target"])["score"]
    # the split of a Mahalanobis score is exact
    assert summary.drivers[STRANGE]["contribution"].sum() == pytest.approx(
        scores[STRANGE, target], rel=1e-9
    )
    assert set(summary.drivers) == set(summary.local) == set(top)


def test_signed_parts_are_shares_of_all_that_is_attributed(summary: StudySummary) -> None:
    table = summary.table
    for name, part in (("positive", 0.7), ("negative", 0.3)):
        # every case has 0.7 of each share above zero, 0.3 below
        wanted = part * np.nanmean(table.values["share"], axis=0)
        assert summary.signed[name].to_numpy() == pytest.approx(wanted, rel=1e-12)
    parts = sum(summary.signed.values())[list(table.parts)]
    assert parts.sum(axis=1).to_numpy() == pytest.approx(np.ones(3))
    assert EXTRA in summary.signed["positive"].columns


def test_q_is_over_tests_of_importance_and_of_outliers_together(summary: StudySummary) -> None:
    rows = pd.concat([summary.bias, summary.outlier_bias])
    assert rows["q"].to_numpy() == pytest.approx(adjusted(rows["p"].to_numpy()), nan_ok=True)
    clear = summary.bias[summary.bias["q"] <= 0.05]
    assert set(clear["column"]) == {"sex"}
    assert "liver · background" in set(clear["feature"])


def test_q_is_over_the_tests_of_all_models(summary: StudySummary) -> None:
    other = summarise(cohort_table(30, model="other", seed=4), FEW)
    blank = summarise(cohort_table(12, model="blank", metadata=False), FEW)
    found = adjusted_summaries([summary, blank, other])
    given = [frame for one in (summary, blank, other) for frame in (one.bias, one.outlier_bias)]
    frames = [frame for one in found for frame in (one.bias, one.outlier_bias)]
    expected = adjusted(pd.concat(given)["p"].to_numpy(float))
    assert pd.concat(frames)["q"].to_numpy(float) == pytest.approx(expected, nan_ok=True)
    for old, new in zip(given, frames, strict=True):
        pd.testing.assert_frame_equal(old.drop(columns="q"), new.drop(columns="q"))
    assert found[1].bias.empty
    assert found[0].table is summary.table
    assert adjusted_summaries([]) == []


def test_q_is_over_all_comparisons() -> None:
    tables = [cohort_table(8, model=name, seed=i, shift=i / 2) for i, name in enumerate("abc")]
    pairs = [("a", tables[0], tables[1]), ("b", tables[1], tables[2])]
    given = [Comparison((n, "z"), "gradient", compare_tables(x, y)) for n, x, y in pairs]
    found = adjusted_comparisons(given)
    p = pd.concat([one.frame for one in given])["p"].to_numpy(float)
    q = pd.concat([one.frame for one in found])["q"].to_numpy(float)
    assert q == pytest.approx(adjusted(p), nan_ok=True)
    n_tests = int(np.isfinite(p).sum())
    assert [one.n_tests for one in found] == [n_tests, n_tests]
    # eight patients: one difference alone has p of 2 / 2^8 at least
    assert given[0].least_q == pytest.approx(2 / 2**8 * (n_tests / 2))
    assert found[0].least_q == pytest.approx(min(1, 2 / 2**8 * n_tests))
    assert adjusted_comparisons([]) == []


def test_signed_parts_count_each_patient_once() -> None:
    """A patient of nine cases weighs as much as one of a single case."""
    table = cohort_table(10, extra=False, metadata=False)
    cases = table.cases.assign(patient=["often"] * 9 + ["once"])
    found = summarise(replace(table, cases=cases), FEW).signed["positive"]
    share = 0.7 * table.values["share"]
    expected = (share[:9].mean(axis=0) + share[9]) / 2
    assert found.to_numpy() == pytest.approx(expected, rel=1e-12)


def test_cases_without_a_score_are_no_group_of_ordinary_ones() -> None:
    table = cohort_table(60)
    share = table.values["share"].copy()
    share[40:] = np.nan
    found = summarise(replace(table, values={"share": share}), FEW).outlier_bias
    assert (found["n_missing"] == 20).all()
    assert (found["n_patients"] == 40).all()


def test_tests_of_the_paper_are_asked_for(summary: StudySummary) -> None:
    forest = AnomalySettings("isolation_forest", "share", rule="predict", n_trees=30)
    settings = replace(FEW, bias_preset="agg2exp", min_group=2, anomalies=forest)
    found = summarise(cohort_table(80, seed=2), settings)
    assert {"t-test (Welch)", "two proportions"} <= set(found.outlier_bias["test"])
    rows = pd.concat([found.bias, found.outlier_bias])
    assert rows["q"].to_numpy() == pytest.approx(adjusted(rows["p"].to_numpy()), nan_ok=True)
    assert "t-test (Welch)" not in set(summary.outlier_bias["test"])


def test_order_of_cases_changes_nothing(summary: StudySummary) -> None:
    order = np.random.default_rng(5).permutation(len(summary.table))
    other = summarise(summary.table.take(order), FEW)
    assert other.extremes == summary.extremes
    keys = ["case", "target"]
    pd.testing.assert_frame_equal(
        other.scores.astype({"target": str}).sort_values(keys, ignore_index=True),
        summary.scores.astype({"target": str}).sort_values(keys, ignore_index=True),
    )
    pd.testing.assert_frame_equal(other.importance, summary.importance)
    pd.testing.assert_frame_equal(other.bias, summary.bias)


def test_anomalies_are_fitted_on_a_reference() -> None:
    reference = cohort_table(60, seed=9, strange=False)
    cases = reference.cases.rename(index=lambda name: f"ref {name}")
    cases["patient"] = [f"other-{i}" for i in range(len(cases))]
    reference = replace(reference, cases=cases, dice=reference.dice.set_axis(cases.index))
    table = cohort_table(20)
    found = summarise(table, FEW, reference=reference)
    fitted = fit_anomalies(reference, FEW.anomalies)
    pd.testing.assert_frame_equal(found.scores, fitted.score(table))
    assert found.has_reference
    assert found.extremes[0][0] == STRANGE


def test_what_is_missing_is_told() -> None:
    table = cohort_table(12, metadata=False, dice=False, extra=False)
    values = {"share": table.values["share"]}
    found = summarise(replace(table, values=values), FEW)
    assert found.signed == {}
    assert found.extremes == ((), ())
    assert len(found.scores) == 0
    assert "20" in found.notes["anomalies"]  # cases that are needed
    assert found.notes["dice"].startswith("No Dice is known")
    assert "no metadata" in found.notes["bias"]
    for frame in (found.bias, found.outlier_bias, found.against_dice, found.detection):
        assert frame.empty


def test_absent_class_and_a_few_cases() -> None:
    table = cohort_table(25)
    share = table.values["share"].copy()
    share[:, 1] = np.nan
    share[:10, 0] = np.nan
    found = summarise(replace(table, values={"share": share}), FEW)
    rows = found.importance.set_index(["target", "region"])
    assert rows.loc["aorta", "mean"].isna().all()
    assert (rows.loc["heart", "n_cases"] == 15).all()
    assert len(found.extremes[0]) == 3


def test_settings_are_checked() -> None:
    with pytest.raises(MethodError, match="alpha is between 0 and 1"):
        SummarySettings(alpha=0)
    with pytest.raises(MethodError, match="n_boot is at least 1"):
        SummarySettings(n_boot=0)
    with pytest.raises(DataError, match="between 0 and 1"):
        SummarySettings(level=1.0)
    with pytest.raises(MethodError, match="voxplain, agg2exp, got 'agg'"):
        SummarySettings(bias_preset="agg")
    forest = SummarySettings(
        n_boot=50, anomalies=AnomalySettings(detector="isolation_forest", n_trees=10)
    )
    assert (summarise(cohort_table(25), forest).scores["detector"] == "isolation_forest").all()
