"""Anomalies: equal to scikit-learn, no leak between patients, calibrated, strong enough."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import helmert
from scipy.stats import false_discovery_control
from sklearn.covariance import LedoitWolf
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor

from voxplain.errors import DataError, LabelError, MethodError
from voxplain.records.cohort_table import CohortTable
from voxplain.study.anomalies import (
    ALL_TARGETS,
    ANOMALIES,
    NO_P,
    NO_TARGET,
    SEEN,
    fit_anomalies,
    held_out_detectors,
    score_within,
)
from voxplain.study.anomaly_rows import ABSENT, INCOMPLETE
from voxplain.study.anomaly_settings import PRESETS, AnomalySettings
from voxplain.study.compositions import clr


def shares(seed, n=40, n_targets=1, n_regions=6, *, sd=0.3, heavy=False):
    rng = np.random.default_rng(seed)
    size = (n, n_targets, n_regions)
    noise = rng.standard_t(5, size) if heavy else rng.normal(size=size)
    values = np.exp(noise * sd + np.linspace(0, 2, n_regions))
    return values / values.sum(axis=-1, keepdims=True)


def table(values, patients=None, *, name="case"):
    n, n_targets, n_regions = values.shape
    index = pd.Index([f"{name}-{i:05d}" for i in range(n)], name="case")
    owner = [f"{name}'s patient {i}" for i in range(n)] if patients is None else patients
    return CohortTable(
        "model",
        "smoothgrad",
        pd.DataFrame({"patient": owner}, index=index),
        tuple(f"organ {i}" for i in range(n_targets)),
        tuple(f"region {i}" for i in range(n_regions)),
        {"share": values},
    )


def of(frame, target="organ 0"):
    return frame[frame["target"] == target].set_index("case")


def distances(X, fitted):
    """Squared distances by scikit-learn in isometric log-ratios, about the median."""
    centre = np.median(fitted, axis=0)
    basis = helmert(X.shape[1])
    model = LedoitWolf(assume_centered=True).fit((fitted - centre) @ basis.T)
    return model.mahalanobis((X - centre) @ basis.T)


EXPECTED = {
    "mahalanobis": distances,
    "isolation_forest": lambda X, fitted: (
        -IsolationForest(random_state=0).fit(fitted).decision_function(X)
    ),
    "lof": lambda X, fitted: (
        -LocalOutlierFactor(n_neighbors=20, novelty=True).fit(fitted).decision_function(X)
    ),
}


def digest_order(cohort, seed=0):
    from voxplain.study.anomaly_cases import CaseOrder

    return CaseOrder.of(cohort, seed)


@pytest.mark.parametrize("detector", ["mahalanobis", "isolation_forest", "lof"])
@pytest.mark.parametrize("features", ["clr", "share"])
def test_scores_and_p_are_the_libraries(detector, features):
    cohort, new = table(shares(0, 60)), table(shares(1, 25), name="new")
    found = of(fit_anomalies(cohort, AnomalySettings(detector, features)).score(new))
    order = digest_order(cohort)
    turn = clr if features == "clr" else lambda x: x
    X = turn(cohort.values["share"][order.order, 0])
    fitted, kept = X[order.rank[order.order] % 2 == 0], X[order.rank[order.order] % 2 == 1]
    Y = turn(new.values["share"][:, 0])
    expected = EXPECTED[detector]
    if (detector, features) == ("mahalanobis", "share"):

        def expected(A, B):
            centre = np.median(B, axis=0)
            return LedoitWolf(assume_centered=True).fit(B - centre).mahalanobis(A - centre)

    scores, others = expected(Y, fitted), expected(kept, fitted)
    np.testing.assert_allclose(found["score"], scores, rtol=1e-7, atol=1e-11)
    p = (1 + (others[None] >= scores[:, None] - 1e-11).sum(axis=1)) / (len(kept) + 1)
    np.testing.assert_allclose(found["p"], p, rtol=1e-12)
    np.testing.assert_allclose(found["q"], false_discovery_control(found["p_tail"]), rtol=1e-12)
    np.testing.assert_array_equal(found["is_outlier"], found["q"] <= 0.05)


def test_held_out_scores_are_of_detectors_that_did_not_see_the_patient():
    cohort = table(shares(2, 50))
    found = of(score_within(cohort))
    fold = digest_order(cohort).rank % 5
    X = clr(cohort.values["share"][:, 0])
    for one in range(5):
        own = fold == one
        assert own.sum() == 10
        np.testing.assert_allclose(found["score"][own], distances(X[own], X[~own]), rtol=1e-7)
    p = [(found["score"] >= s).sum() / 50 for s in found["score"]]
    np.testing.assert_allclose(found["p"], p, rtol=1e-12)


@pytest.mark.parametrize("name", ["default", "agg2exp"])
def test_order_of_cases_and_other_targets_change_nothing(name):
    settings = replace(PRESETS[name], n_trees=5)
    values = shares(3, 60, 3)
    patients = [f"p{i // 2}" for i in range(60)]
    cohort = table(values, patients)
    found = score_within(cohort, settings)
    mixed = score_within(cohort.take(np.random.default_rng(0).permutation(60)), settings)
    key = ["target", "case"]
    sort = {"ignore_index": True, "by": key}
    pd.testing.assert_frame_equal(
        found.astype({"target": str, "note": str}).sort_values(**sort),
        mixed.astype({"target": str, "note": str}).sort_values(**sort),
        check_exact=True,
    )
    alone = of(score_within(table(values[:, :1], patients), settings))
    joint = ["target", "q", "is_outlier"]  # corrected over all targets
    pd.testing.assert_frame_equal(
        alone.drop(columns=joint), of(found).drop(columns=joint), check_exact=True
    )


def test_q_of_single_targets_is_over_cases_and_targets_together():
    values = shares(3, 60, 4)
    values[:5, 1] = np.nan
    found = score_within(table(values))
    is_whole = (found["target"] == ALL_TARGETS).to_numpy()
    for rows in (found[is_whole], found[~is_whole]):
        known = rows.dropna(subset=["p_tail"])
        expected = false_discovery_control(known["p_tail"])
        np.testing.assert_allclose(known["q"], expected, rtol=1e-12)
        assert rows["q"].isna().sum() == rows["p_tail"].isna().sum()
    assert found["q"].isna().sum() == 5
    np.testing.assert_array_equal(found["is_outlier"], found["q"] <= 0.05)


def test_cases_of_the_fitting_cohort_have_scores_of_targets_and_no_more():
    cohort = table(shares(4, 60, 2))
    found = fit_anomalies(cohort).score(cohort)
    assert found[["p", "p_tail", "q"]].isna().all(axis=None)
    assert of(found)["score"].notna().all()
    assert of(found, ALL_TARGETS)["score"].isna().all()
    assert of(found, ALL_TARGETS)["mean_score"].notna().all()
    preset = fit_anomalies(cohort, PRESETS["agg2exp"]).score(cohort)
    assert preset["score"].notna().all()


def test_the_papers_preset_is_scikit_learn_on_all_cases():
    cohort, new = table(shares(4, 60, 2)), table(shares(5, 30, 2), name="new")
    found = fit_anomalies(cohort, PRESETS["agg2exp"]).score(new)
    order = digest_order(cohort).order
    all_scores = []
    for t in range(2):
        forest = IsolationForest(random_state=0).fit(cohort.values["share"][order, t])
        rows = of(found, f"organ {t}")
        Y = new.values["share"][:, t]
        np.testing.assert_allclose(rows["score"], -forest.decision_function(Y), atol=1e-12)
        np.testing.assert_array_equal(rows["is_outlier"], forest.predict(Y) == -1)
        assert rows["p"].isna().all()
        assert set(rows["note"]) == {NO_P}
        all_scores.append(-forest.decision_function(Y))
    whole = of(found, ALL_TARGETS)
    np.testing.assert_allclose(whole["score"], np.mean(all_scores, axis=0), atol=1e-12)
    np.testing.assert_allclose(whole["mean_score"], whole["score"])


def test_all_targets_is_the_mean_of_logarithms_compared_again():
    cohort = table(shares(6, 40, 3))
    found = score_within(cohort)
    p = np.array([of(found, f"organ {t}")["p_tail"] for t in range(3)])
    whole = of(found, ALL_TARGETS)
    np.testing.assert_allclose(whole["score"], -np.log10(p).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(
        whole["p"], [(whole["score"] >= s).sum() / 40 for s in whole["score"]], rtol=1e-12
    )
    scores = np.mean([of(found, f"organ {t}")["score"] for t in range(3)], axis=0)
    np.testing.assert_allclose(whole["mean_score"], scores, rtol=1e-12)
    assert tuple(found.columns) == ANOMALIES


def test_absent_class_missing_region_and_too_few_cases():
    values = shares(7, 40, 3)
    values[3, 0] = np.nan
    values[4, 0] = 0
    values[5, 0, 2] = np.nan  # the others do not sum to 1
    values[6, 0] /= 1 - values[6, 0, 2]
    values[6, 0, 2] = np.nan  # they do: it is 0
    values[12:, 1] = np.nan
    values[3, 1:] = np.nan
    values[:, 2] = values[0, 2]
    found = score_within(table(values))
    organ = of(found)
    assert list(organ["note"].iloc[[3, 4, 5]]) == [ABSENT, ABSENT, INCOMPLETE]
    assert organ["score"].iloc[[3, 4, 5]].isna().all()
    assert not organ["is_outlier"].iloc[[3, 4, 5]].any()
    assert organ.drop(organ.index[[3, 4, 5]])["q"].notna().all()
    few = of(found, "organ 1")
    assert few["note"].iloc[0] == "skipped: 11 patients with this target, 20 are needed"
    assert few["note"].iloc[-1] == ABSENT
    assert "same shares" in of(found, "organ 2")["note"].iloc[0]
    assert of(found, ALL_TARGETS)["note"].iloc[3] == NO_TARGET
    fitted = fit_anomalies(table(values))
    assert set(fitted.skipped) == {"organ 1", "organ 2"}
    again = fitted.score(table(shares(8, 5, 3), name="new"))
    assert set(of(again, "organ 1")["note"]) == {fitted.skipped["organ 1"]}


def test_single_patient_and_single_region():
    one = score_within(table(shares(9, 30), ["p"] * 30))
    assert set(of(one)["note"]) == {"skipped: 1 patients with this target, 20 are needed"}
    assert set(of(one, ALL_TARGETS)["note"]) == {NO_TARGET}
    alone = score_within(table(np.ones((30, 1, 1))))
    assert set(of(alone)["note"]) == {"skipped: one region alone is always the whole"}


def test_patients_that_were_fitted_on_have_no_p():
    cohort = table(shares(10, 60))
    fitted = fit_anomalies(cohort)
    both = table(shares(11, 4), [*cohort.patients[:2], "new 1", "new 2"])
    for target in ("organ 0", ALL_TARGETS):
        rows = of(fitted.score(both), target)
        assert list(rows["note"]) == [SEEN, SEEN, "", ""]
        assert list(rows["p"].isna()) == [True, True, False, False]
    assert not any(b"patient" in key for key in fitted.seen)


def test_zeros_are_scored_and_one_where_none_was_is_strange():
    values = shares(12, 80)
    values[::7, 0, 1] = 0
    values[:, 0, 2] = 0
    values /= values.sum(axis=-1, keepdims=True)
    values[3, 0, 2] = 0.3
    values[3, 0] /= values[3, 0].sum()
    found = of(score_within(table(values)))
    assert np.isfinite(found["score"]).all()
    assert found["score"].idxmax() == "case-00003"
    assert found["is_outlier"].iloc[3]


def test_few_neighbours_are_noted():
    found = of(score_within(table(shares(13, 20)), AnomalySettings("lof", min_cases=20)))
    assert set(found["note"]) == {"15 neighbours: only 16 cases to fit on"}


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: AnomalySettings("forest"), MethodError, "isolation_forest"),
        (lambda: AnomalySettings(level=0), MethodError, "between 0 and 1"),
        (lambda: AnomalySettings(min_cases=3), MethodError, "min_cases"),
        (lambda: AnomalySettings(rule="predict"), MethodError, "mahalanobis"),
        (lambda: score_within(table(shares(0)), n_folds=1), MethodError, "at least 2"),
        (lambda: score_within(table(-shares(0))), DataError, "least of organ 0"),
        (lambda: held_out_detectors(table(shares(0)), None, "x"), DataError, "no case 'x'"),
        (
            lambda: fit_anomalies(table(shares(0))).score(table(shares(0, n_regions=5))),
            LabelError,
            "region 5",
        ),
    ],
)
def test_refusals(call, error, told):
    with pytest.raises(error, match=told):
        call()


def false_alarms(seeds, settings, *, heavy=False, n=40):
    """Share of cohorts without any anomaly in which a case is called one, by kind of row."""
    found = [score_within(table(shares(s, n, 2, heavy=heavy)), settings) for s in seeds]
    return np.mean(
        [[of(f)["is_outlier"].any(), of(f, ALL_TARGETS)["is_outlier"].any()] for f in found], axis=0
    )


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["mahalanobis", "lof"])
@pytest.mark.parametrize("heavy", [False, True])
def test_false_alarms_of_null_cohorts(detector, heavy):
    n = 200
    share = false_alarms(range(n), AnomalySettings(detector), heavy=heavy)
    print(f"false alarms {detector}, heavy tails {heavy}: {share} of {n} cohorts")
    assert (share <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n)).all()


def test_p_of_null_cases_is_uniform_at_its_level():
    p = []
    for seed in range(40):
        fitted = fit_anomalies(table(shares(seed, 39)))
        p.append(of(fitted.score(table(shares(1000 + seed, 40), name="new")))["p"])
    share = np.mean(np.concatenate(p) <= 0.1)
    # cases of one cohort share their reference: the mean over 40 references of 19 patients
    error = np.sqrt(0.1 * 0.9 / 20 / 40 + 0.1 * 0.9 / 1600)
    assert share <= 0.1 + 3 * error
    assert share >= 0.1 - 3 * error


def planted(seed, settings, n=100):
    values = shares(seed, n, sd=0.1)
    values[0, 0, 2] *= 2
    values[0, 0] /= values[0, 0].sum()
    found = of(score_within(table(values), settings))
    return found["p"].iloc[0] <= 0.05, found["score"].idxmax() == found.index[0]


@pytest.mark.parametrize("detector", ["mahalanobis", "lof"])
def test_a_doubled_share_is_found(detector):
    power = np.mean([planted(seed, AnomalySettings(detector)) for seed in range(20)], axis=0)
    assert (power >= 0.9).all()


@pytest.mark.slow
def test_a_hundred_thousand_cases():
    values = np.random.default_rng(0).dirichlet(np.full(17, 3.0), (100_000, 17))
    cohort = table(values)
    start, cpu = time.perf_counter(), time.process_time()
    found = score_within(cohort)
    cpu = time.process_time() - cpu
    print(f"100,000 cases: {time.perf_counter() - start:.1f} s, {cpu:.1f} s of the processor")
    assert len(found) == 18 * 100_000
    assert cpu < 15
