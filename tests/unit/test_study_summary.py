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
from voxplain.study.false_discovery import adjusted
from voxplain.study.importance import global_importance
from voxplain.study.summary import StudySummary, SummarySettings, summarise

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
    forest = SummarySettings(
        n_boot=50, anomalies=AnomalySettings(detector="isolation_forest", n_trees=10)
    )
    assert (summarise(cohort_table(25), forest).scores["detector"] == "isolation_forest").all()
