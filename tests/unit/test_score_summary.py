"""Summary and comparisons of scores: written out by hand, and against SciPy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from voxplain.errors import DataError, LabelError
from voxplain.records.assessment import ALL_TARGETS, COMPARISONS, SCORES, SUMMARY
from voxplain.records.metric import Direction, Family, Metric
from voxplain.study.bootstrap import PatientDraws, interval
from voxplain.study.lesion_tests import holm
from voxplain.study.score_comparison import comparisons_of, rank_biserial
from voxplain.study.score_summary import Draws, case_values, summary_of


def metric(name: str, family: Family = "utility", direction: Direction = "higher") -> Metric:
    return Metric(name, family, direction, "1", 0, 1, "", "", "")


METRICS = (
    metric("ap"), metric("area", "faithfulness", "lower"), metric("size", "complexity"),
    metric("prevalence", direction="none"),
)  # fmt: skip


def row(case, value, **other):
    return {
        "case": case, "patient": f"of {case}", "model": "m", "seed": 0, "stage": "original",
        "method": "ig", "target": "a", "metric": "ap", "value": value, "flags": "", "against": "",
        **other,
    }  # fmt: skip


def table(*rows):
    return pd.DataFrame(list(rows), columns=list(SCORES))


def test_means_of_the_rows_written_out():
    rng = np.random.default_rng(0)
    patients = np.array(["b", "a", "b", "c", "c", "c", "d"])
    values = rng.normal(size=7)
    draws = PatientDraws(patients.tolist(), 50, seed=1)
    chosen = patients != "d"
    found = draws.means(values[chosen], draws.owner[chosen])
    for i in range(50):
        drawn = np.repeat(np.arange(7), draws.counts[i][draws.owner])
        drawn = drawn[chosen[drawn]]
        expected = values[drawn].mean() if len(drawn) else np.nan
        assert found[i] == pytest.approx(expected, nan_ok=True, abs=1e-12)
    assert np.isnan(draws.means(np.zeros(0), np.zeros(0, np.intp))).all()


def test_summary_by_hand():
    """Two targets; three seeds of one case; a value that is not defined."""
    scores = table(
        row("x", 0.1), row("x", 0.2, seed=1), row("x", 0.6, seed=2), row("x", 0.9, target="b"),
        row("y", 0.5), row("y", np.nan, target="b", flags="empty map"),
        row("z", np.nan, patient="of y"), row("z", 0.4, target="b", patient="of y"),
    )  # fmt: skip
    found = summary_of(scores, n_boot=200).set_index("target")
    assert list(summary_of(scores, n_boot=20).columns) == list(SUMMARY)
    a, b, both = found.loc["a"], found.loc["b"], found.loc[ALL_TARGETS]
    assert (a["n"], a["n_patients"], a["n_undefined"]) == (2, 2, 1)
    assert a["mean"] == pytest.approx(0.4)  # of 0.3 and 0.5
    assert a["sd"] == pytest.approx(np.std([0.3, 0.5], ddof=1))
    assert (b["n"], b["n_patients"], b["n_undefined"]) == (2, 2, 1)
    assert b["median"] == pytest.approx(0.65)
    # x: mean of 0.3 and 0.9; y: 0.5; z: 0.4
    assert (both["n"], both["n_patients"], both["n_undefined"]) == (3, 2, 2)
    assert both["mean"] == pytest.approx(np.mean([0.6, 0.5, 0.4]))


def test_intervals_draw_patients_and_hold_what_is_constant():
    rng = np.random.default_rng(3)
    patients = [f"p{i // 3}" for i in range(30)]
    level = np.repeat(rng.normal(size=10), 3)
    scores = table(
        *(row(f"c{i}", level[i] + 1e-3 * rng.normal(), patient=patients[i]) for i in range(30)),
        *(row(f"c{i}", 0.25, patient=patients[i], metric="area") for i in range(30)),
    )
    found = summary_of(scores, seed=5).set_index(["metric", "target"])
    ap, area = found.loc[("ap", "a")], found.loc[("area", "a")]
    assert ap["low"] < ap["mean"] < ap["high"]
    # the width is that of ten patients, not of thirty cases
    width = ap["high"] - ap["low"]
    t = 2 * stats.t.ppf(0.975, 9) * level[::3].std(ddof=1) / np.sqrt(10)
    assert 0.8 * t < width < 1.25 * t
    assert area["low"] == area["high"] == area["mean"] == 0.25
    draws = PatientDraws(patients, 2000, seed=5)
    values = scores[scores["metric"] == "ap"]["value"].to_numpy()
    assert (ap["low"], ap["high"]) == pytest.approx(
        interval(draws.means(values, draws.owner), 10, 0.95), abs=1e-12
    )


def test_the_order_of_rows_does_not_matter():
    rng = np.random.default_rng(3)
    scores = table(
        *(
            row(f"c{i}", rng.random(), target=t, method=m)
            for i in range(8) for t in "ab" for m in ("ig", "gradient", "baseline:random")
        )
    )  # fmt: skip
    other = scores.sample(frac=1, random_state=4)
    for function in (summary_of, lambda s: comparisons_of(s, METRICS)):
        pd.testing.assert_frame_equal(function(scores), function(other), rtol=1e-12)


def test_one_patient_has_no_interval_and_nothing_has_no_mean():
    found = summary_of(table(row("x", 0.1), row("y", np.nan, metric="area")), n_boot=20)
    one = found[found["metric"] == "ap"].iloc[0]
    none = found[found["metric"] == "area"].iloc[0]
    assert (one["n"], one["mean"]) == (1, 0.1)
    assert np.isnan([one["sd"], one["low"], one["high"]]).all()
    assert (none["n"], none["n_undefined"]) == (0, 1)
    assert np.isnan([none["mean"], none["median"], none["low"]]).all()
    assert list(summary_of(table(), n_boot=20).columns) == list(SUMMARY)


def test_cases_without_a_patient_are_patients_of_their_own():
    scores = table(row("x", 0.1, patient=None), row("y", 0.2, patient=""), row("z", None))
    assert case_values(scores)["patient"].tolist() == ["case x", "case y", "of z"]


def test_settings_and_tables_that_are_refused():
    with pytest.raises(DataError, match="level of an interval is between 0 and 1"):
        summary_of(table(), level=95)
    with pytest.raises(DataError, match="n_boot"):
        Draws(0, 0, 0.95)
    with pytest.raises(LabelError, match="missing: against"):
        comparisons_of(table().drop(columns="against"), METRICS)


@pytest.fixture
def compared():
    """Ten patients, two cases each for the first two; ig is better, gradient is noise."""
    rng = np.random.default_rng(7)
    rows = []
    for i in range(12):
        patient = f"p{i % 10}"
        for target in "ab":
            base = rng.random()
            gain = 0.2 + 0.1 * rng.random()
            for name, value in (
                ("ig", base + gain), ("gradient", rng.random()), ("baseline:edges", base),
                ("baseline:random", base - 0.1 * rng.random()),
            ):  # fmt: skip
                rows.append(row(f"c{i}", value, patient=patient, target=target, method=name))
                rows.append({**rows[-1], "metric": "area", "value": 1 - value})
                rows.append({**rows[-1], "metric": "size"})
                rows.append({**rows[-1], "metric": "prevalence"})
                rows.append({**rows[-1], "metric": "ap", "stage": "top_down:1"})
    return table(*rows)


def test_comparisons_against_scipy(compared):
    found = comparisons_of(compared, METRICS)
    assert list(found.columns) == [*COMPARISONS]
    assert set(found["metric"]) == {"ap", "area"}
    assert len(found) == 2 * 2 * 2
    frame = compared[(compared["metric"] == "ap") & (compared["stage"] == "original")]
    by_case = frame.groupby(["patient", "case", "method"])["value"].mean().unstack()
    for _, one in found[found["metric"] == "ap"].iterrows():
        difference = by_case[one["method"]] - by_case[one["rival"]]
        assert (one["n"], one["n_patients"]) == (12, 10)
        assert one["difference"] == pytest.approx(difference.mean(), abs=1e-12)
        patients = difference.groupby("patient").mean()
        assert one["p"] == pytest.approx(stats.wilcoxon(patients).pvalue, rel=1e-9)
        above = stats.wilcoxon(patients, alternative="greater").statistic  # sum of ranks above 0
        assert one["effect"] == pytest.approx(2 * above / 55 - 1, abs=1e-12)
        assert one["low"] <= one["difference"] <= one["high"]
    for _, family in found.groupby(["model", "metric"]):
        assert family["p_holm"].to_numpy() == pytest.approx(holm(family["p"].to_numpy()))
    better = found[(found["method"] == "ig") & (found["metric"] == "ap")]
    assert (better["low"] > 0.15).all()
    assert (better["p"] == 2 / 2**10).all()  # every patient, both signs
    assert (better["effect"] == 1).all()


def test_a_metric_turned_round_turns_the_comparison(compared):
    found = comparisons_of(compared, METRICS).set_index(["metric", "method", "rival"])
    up, down = found.loc["ap"], found.loc["area"]
    assert down["difference"].to_numpy() == pytest.approx(-up["difference"].to_numpy())
    assert down["effect"].to_numpy() == pytest.approx(-up["effect"].to_numpy())
    assert down["p"].to_numpy() == pytest.approx(up["p"].to_numpy())


def test_few_equal_and_missing_pairs():
    def scores(n, gain, **other):
        return [
            row(f"c{i}", 0.5 + (gain if m == "ig" else 0), method=m, **other)
            for i in range(n) for m in ("ig", "baseline:edges")
        ]  # fmt: skip

    few = comparisons_of(table(*scores(5, 0.1)), METRICS).iloc[0]
    assert np.isnan(few["p"])
    assert np.isnan(few["p_holm"])
    assert few["note"] == "no test: fewer than 6 patients"
    assert few["difference"] == pytest.approx(0.1)
    equal = comparisons_of(table(*scores(7, 0.0)), METRICS).iloc[0]
    assert (equal["p"], equal["effect"], equal["note"]) == (1.0, 0.0, "all values are equal")
    half = [r for r in scores(7, 0.1) if r["case"] != "c3" or r["method"] == "ig"]
    half[0]["value"] = np.nan
    assert comparisons_of(table(*half), METRICS).iloc[0]["n"] == 5
    apart = table(row("x", 0.1), row("y", 0.1, method="baseline:edges"))
    none = comparisons_of(apart, METRICS).iloc[0]
    assert none["n"] == 0
    assert np.isnan([none["difference"], none["effect"], none["low"]]).all()


def test_rank_biserial_by_hand():
    # ranks of 1, 2, 2, 4 are 1, 2.5, 2.5, 4; zeros do not count
    assert rank_biserial(np.array([1.0, -2, 2, 4, 0])) == pytest.approx((1 - 2.5 + 2.5 + 4) / 10)
    assert rank_biserial(np.array([-1.0, -3])) == -1
    assert np.isnan(rank_biserial(np.zeros(0)))
