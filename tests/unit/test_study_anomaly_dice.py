"""Scores against Dice: scipy and scikit-learn, intervals that cover, few and many patients."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.stats import false_discovery_control
from sklearn.metrics import roc_auc_score

from voxplain.errors import DataError, LabelError
from voxplain.study.anomaly_dice import (
    AGAINST_DICE,
    DETECTION,
    EXTREMES,
    anomaly_against_dice,
    extremes,
    low_dice_detection,
)
from voxplain.study.anomaly_intervals import auroc_error, auroc_interval, spearman_draws
from voxplain.study.anomaly_rows import ALL_TARGETS, ANOMALIES
from voxplain.study.bootstrap import PatientDraws


def study(seed, n=60, *, slope=0.7, classes=("heart", "lung"), n_each=1):
    """Scores, Dice and patients; Spearman's correlation goes with −slope."""
    rng = np.random.default_rng(seed)
    cases = pd.Index([f"case-{i:05d}" for i in range(n)], name="case")
    patients = [f"p{i // n_each:05d}" for i in range(n)]
    frames, dice = [], {}
    for name in (*classes, ALL_TARGETS):
        score = rng.normal(size=n)
        dice[name] = stats.norm.cdf(rng.normal(size=n) - slope * score)
        frames.append(pd.DataFrame({"case": cases, "target": name, "score": score}))
    scores = pd.concat(frames, ignore_index=True).reindex(columns=list(ANOMALIES))
    frame = pd.DataFrame({name: dice[name] for name in classes}, index=cases)
    return scores, frame, patients


def score_of(scores, target):
    return scores[scores["target"] == target].set_index("case")["score"]


def test_correlation_is_scipys():
    scores, dice, patients = study(0)
    found = anomaly_against_dice(scores, dice, patients, n_boot=300)
    assert tuple(found.columns) == AGAINST_DICE
    assert list(found["target"]) == ["heart", "lung", ALL_TARGETS]
    for _, row in found.iterrows():
        value = dice.mean(axis=1) if row["target"] == ALL_TARGETS else dice[row["target"]]
        expected = stats.spearmanr(score_of(scores, row["target"]), value)
        assert row["rho"] == pytest.approx(expected.statistic, rel=1e-12)
        assert row["p"] == pytest.approx(expected.pvalue, rel=1e-10)
        assert row["low"] < row["rho"] < row["high"]
    np.testing.assert_allclose(found["q"], false_discovery_control(found["p"]))


def test_one_mean_a_patient_and_any_order():
    scores, dice, patients = study(1, n_each=3)
    found = anomaly_against_dice(scores, dice, patients, n_boot=200)
    assert list(found["n_patients"]) == [20, 20, 20]
    means = pd.DataFrame({"a": score_of(scores, "heart"), "b": dice["heart"], "p": patients})
    means = means.groupby("p").mean()
    assert found["rho"].iloc[0] == pytest.approx(stats.spearmanr(means["a"], means["b"]).statistic)
    order = np.random.default_rng(0).permutation(60)
    mixed = scores.sample(frac=1, random_state=1)
    for call in (anomaly_against_dice, low_dice_detection):
        pd.testing.assert_frame_equal(
            call(mixed, dice.iloc[order], [patients[i] for i in order], n_boot=50),
            call(scores, dice, patients, n_boot=50),
        )


def test_draws_of_the_correlation_are_scipys_on_the_drawn_rows():
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 6, 25).astype(float), rng.normal(size=25)
    counts = PatientDraws([str(i) for i in range(25)], 40, 0).counts
    expected = [stats.spearmanr(np.repeat(a, c), np.repeat(b, c)).statistic for c in counts]
    np.testing.assert_allclose(spearman_draws(a, b, counts), expected, rtol=1e-10)
    assert np.isnan(spearman_draws(np.ones(25), b, counts)).all()


def test_auroc_is_scikit_learns():
    scores, dice, patients = study(3, 80, n_each=2)
    found = low_dice_detection(scores, dice, patients, n_boot=200).set_index("target")
    assert (found.index.name, *found.columns) == DETECTION
    for name in dice.columns:
        cut = np.quantile(dice[name], 0.25)
        expected = roc_auc_score(dice[name] < cut, score_of(scores, name))
        row = found.loc[name]
        assert row["threshold"] == cut
        assert (row["n_low"], row["n_rest"], row["n_patients"]) == (20, 60, 40)
        assert row["auroc"] == pytest.approx(expected, rel=1e-12)
        assert row["low"] < row["auroc"] < row["high"]
    fixed = low_dice_detection(scores, dice, patients, threshold=0.5, n_boot=20)
    assert list(fixed["n_low"])[:2] == [int((dice[name] < 0.5).sum()) for name in dice]


def test_a_quarter_of_total_failures_is_still_split_off():
    """Their Dice of 0 is the lower quartile itself, below which there is none."""
    scores, dice, patients = study(9, 40, classes=("heart",))
    dice["heart"] = dice["heart"].clip(lower=0.01)
    failed = np.arange(40) < 12
    dice.loc[failed, "heart"] = 0.0
    row = low_dice_detection(scores, dice, patients, n_boot=50).iloc[0]
    assert row["threshold"] == dice["heart"][~failed].min()
    assert (row["n_low"], row["n_rest"]) == (12, 28)
    expected = roc_auc_score(failed, score_of(scores, "heart"))
    assert row["auroc"] == pytest.approx(expected, rel=1e-12)
    # two of them have no map at all, and so no score
    lost = scores["case"].isin(dice.index[:2]) & (scores["target"] == "heart")
    scores.loc[lost, "score"] = np.nan
    row = low_dice_detection(scores, dice, patients, n_boot=50).iloc[0]
    assert (row["n_low"], row["n_rest"]) == (10, 28)
    assert row["note"] == ("2 cases of Dice 0 have no score (class missed entirely): not counted")


def test_one_order_of_many_patients_has_no_interval():
    scores, dice, patients = study(5, 1200, classes=("heart",))
    dice["heart"] = -score_of(scores, "heart")
    row = anomaly_against_dice(scores, dice, patients).iloc[0]
    assert row["rho"] == pytest.approx(-1)
    assert np.isnan(row["low"]) or row["low"] <= row["rho"] <= row["high"]


def test_error_of_an_auroc_is_delongs_and_that_of_draws():
    rng = np.random.default_rng(4)
    n = 300
    is_low = rng.random(n) < 0.3
    score = np.round(rng.normal(size=n) + is_low, 1)
    area, error = auroc_error(score, is_low, np.arange(n))
    assert area == pytest.approx(roc_auc_score(is_low, score), rel=1e-12)
    wins = np.sign(score[is_low][:, None] - score[~is_low][None]) / 2 + 0.5
    by_hand = wins.mean(1).var() / is_low.sum() + wins.mean(0).var() / (~is_low).sum()
    assert error == pytest.approx(np.sqrt(by_hand * n / (n - 1)), rel=1e-12)
    drawn = auroc_interval(
        score, is_low, [f"{i:03d}" for i in range(n)], n_boot=2000, level=0.95, seed=0
    )
    assert drawn[2] == "bootstrap"
    assert drawn[1] - drawn[0] == pytest.approx(2 * 1.96 * error, rel=0.1)
    # two cases a patient that are the same: no more is known than of one
    twice = auroc_error(np.repeat(score, 2), np.repeat(is_low, 2), np.repeat(np.arange(n), 2))
    assert twice == pytest.approx((area, error), rel=1e-12)


def test_many_patients_take_the_asymptotic_interval():
    scores, dice, patients = study(5, 1500)
    first = anomaly_against_dice(scores, dice, patients).iloc[0]
    assert first["interval"] == "asymptotic"
    rho, z = first["rho"], stats.norm.ppf(0.975)
    half = z * np.sqrt((1 + rho**2 / 2) / 1497)
    assert first["low"] == pytest.approx(np.tanh(np.arctanh(rho) - half), rel=1e-12)
    assert first["high"] == pytest.approx(np.tanh(np.arctanh(rho) + half), rel=1e-12)
    second = low_dice_detection(scores, dice, patients).iloc[0]
    assert second["interval"] == "asymptotic"
    assert second["low"] < second["auroc"] < second["high"]


@pytest.mark.slow
def test_intervals_of_no_relation_cover():
    n = 200
    rows = [study(seed, 40, slope=0, classes=("heart",)) for seed in range(n)]
    rho = [anomaly_against_dice(*row, n_boot=200).iloc[0] for row in rows]
    area = [low_dice_detection(*row, n_boot=200).iloc[0] for row in rows]
    least = 0.95 - 3 * np.sqrt(0.95 * 0.05 / n)
    assert np.mean([r["low"] <= 0 <= r["high"] for r in rho]) >= least
    assert np.mean([r["low"] <= 0.5 <= r["high"] for r in area]) >= least
    assert np.mean([r["p"] <= 0.05 for r in rho]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n)


def test_what_cannot_be_told_has_a_note():
    scores, dice, patients = study(6, 12)
    dice["lung"] = 1.0
    dice.loc[dice.index[3:], "heart"] = np.nan
    found = anomaly_against_dice(scores, dice, patients).set_index("target")
    assert found["note"]["heart"] == "not computed: 3 patients, 4 are needed"
    assert found["note"]["lung"] == "not computed: all Dice are equal"
    assert found[["rho", "p", "q", "low"]].loc[["heart", "lung"]].isna().all(axis=None)
    low = low_dice_detection(scores, dice, patients).set_index("target")
    assert "0 patients with a Dice below the threshold and 12 without" in low["note"]["lung"]
    assert low["note"][ALL_TARGETS] == "few: 3 cases on one side"
    for call in (anomaly_against_dice, low_dice_detection):
        assert len(call(scores, pd.DataFrame(), [])) == 0
        assert len(call(scores, dice.rename(columns=str.upper), patients)) == 0


def test_extremes():
    scores, _, patients = study(7, 12, n_each=2)
    found = extremes(scores, 2)
    assert tuple(found.columns) == EXTREMES
    own = score_of(scores, ALL_TARGETS).sort_values()
    assert list(found["case"]) == [own.index[-1], own.index[-2], own.index[0], own.index[1]]
    assert list(found["end"]) == ["top", "top", "bottom", "bottom"]
    assert list(found["rank"]) == [1, 2, 1, 2]
    assert len(extremes(scores, 8)) == 12
    owner = pd.Series(patients, index=[f"case-{i:05d}" for i in range(12)])
    assert extremes(scores, 6, patients=owner)["case"].map(owner).is_unique


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda s, d, p: anomaly_against_dice(s, d, p[:-1]), DataError, "12 cases"),
        (lambda s, d, p: anomaly_against_dice(s, d, p, level=2), DataError, "level"),
        (lambda s, d, p: low_dice_detection(s, d, p, threshold=1.5), DataError, "1.5"),
        (lambda s, d, p: low_dice_detection(s, d, p, n_boot=0), DataError, "n_boot"),
        (lambda s, d, p: anomaly_against_dice(s[["case"]], d, p), LabelError, "target"),
        (lambda s, d, p: extremes(s, 0), DataError, "at least 1"),
    ],
)
def test_refusals(call, error, told):
    with pytest.raises(error, match=told):
        call(*study(8, 12))
