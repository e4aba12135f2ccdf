"""What a page says first: rarely anything about a cohort of nothing, never more than was tested."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest
from tests.cohort_tables import cohort_table

from voxplain.records.cohort_table import CohortTable
from voxplain.report.cohort_findings import Standout, standouts
from voxplain.study.anomalies import ALL_TARGETS, score_within
from voxplain.study.cohort_comparison import compare_tables
from voxplain.study.summary import (
    Comparison,
    StudySummary,
    SummarySettings,
    adjusted_comparisons,
    summarise,
)

FEW = SummarySettings(n_boot=20, n_extremes=1)


@pytest.fixture(scope="module")
def summary() -> StudySummary:
    return summarise(cohort_table(30, strange=False, metadata=False, dice=False), FEW)


def of(subject: str, found: list[Standout]) -> list[Standout]:
    return [one for one in found if one.subject == subject]


def cohort(share: NDArray[np.float64]) -> CohortTable:
    n, n_targets, n_regions = share.shape
    index = pd.Index([f"c{i:03}" for i in range(n)], name="case")
    targets = tuple(f"t{i:02}" for i in range(n_targets))
    regions = tuple(f"r{i:02}" for i in range(n_regions))
    cases = pd.DataFrame({"patient": [f"p{i}" for i in range(n)]}, index)
    return CohortTable("m", "g", cases, targets, regions, {"share": share})


def null_shares(seed: int, kind: str, n: int = 60) -> NDArray[np.float64]:
    """Seventeen targets of patients that differ by nothing but chance."""
    rng, size = np.random.default_rng(seed), (n, 17, 18)
    noise = rng.normal(size=size) if kind == "normal" else rng.standard_t(5, size)
    if kind == "shared":  # targets of one patient are alike
        noise += 1.5 * rng.standard_t(5, (n, 1, 18))
    values = np.exp(0.3 * noise + np.linspace(0, 2, 18))
    found: NDArray[np.float64] = values / values.sum(axis=-1, keepdims=True)
    return found


def headline(summary: StudySummary, table: CohortTable) -> str:
    """Outcome about patients, of a page about this table."""
    told = replace(summary, table=table, scores=score_within(table), drivers={})
    return of("patients", standouts([told], []))[0].outcome


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["normal", "heavy", "shared"])
def test_no_patient_stands_out_of_null_cohorts(summary: StudySummary, kind: str) -> None:
    """17 targets of 60 patients: a headline in 5 % of cohorts, up to the interval of that share."""
    n = 100
    seen = [headline(summary, cohort(null_shares(seed, kind))) for seed in range(1000, 1000 + n)]
    n_alarms = seen.count("stands out")
    print(f"{n_alarms} of {n} null cohorts have a headline, {kind}")
    assert binomtest(n_alarms, n).proportion_ci(0.95).low <= 0.05


def test_a_patient_that_is_strange_everywhere_stands_out(summary: StudySummary) -> None:
    share = null_shares(0, "normal")
    assert headline(summary, cohort(share)) == "nothing found"
    share[7, :, 0] += 0.5
    share[7] /= share[7].sum(axis=-1, keepdims=True)
    table = cohort(share)
    told = replace(summary, table=table, scores=score_within(table), drivers={})
    first = of("patients", standouts([told], []))[0]
    assert first.outcome == "stands out"
    assert first.text.startswith("c007 is handled unlike the others")
    scores = told.scores
    whole = scores[(scores["target"] == ALL_TARGETS) & (scores["case"] == "c007")]
    assert whole["q"].iloc[0] <= 0.05


def test_silence_of_a_few_patients_is_not_told_as_no_difference(summary: StudySummary) -> None:
    """Five patients: no p below 2 / 2⁵, so that no single one of 15 differences can be found."""
    a = cohort_table(5, seed=1, strange=False)
    b = cohort_table(5, seed=2, strange=False, shift=0.5)
    few = Comparison(("net", "other"), "gradient", compare_tables(a, b))
    said = of("differences", standouts([summary], [few]))
    assert [one.outcome for one in said] == ["not tested"]
    assert "no single difference can have q ≤ 0.05" in said[0].text
    assert "among 15 tests" in said[0].text
    assert "0.06" in said[0].text


def test_tests_of_other_comparisons_count(summary: StudySummary) -> None:
    """Ten patients can show one of 15 differences, and none of 30."""
    tables = [cohort_table(10, seed=i, strange=False) for i in range(3)]
    pairs = [(tables[0], tables[1]), (tables[1], tables[2])]
    given = [
        Comparison(("net", "other"), "gradient", compare_tables(a, b, seed=i))
        for i, (a, b) in enumerate(pairs)
    ]
    assert (given[0].frame["p_least"] == 2 / 2**10).all()
    alone = of("differences", standouts([summary], given[:1]))[0]
    assert alone.outcome == "nothing found"
    assert "among 15 tests" in alone.text
    both = of("differences", standouts([summary], adjusted_comparisons(given)))
    assert [one.outcome for one in both] == ["not tested", "not tested"]
    assert "among 30 tests" in both[0].text
