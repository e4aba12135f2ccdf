"""False positives told from true ones: closed forms, libraries, no leak between patients."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score
from tests.lesion_studies import lesion_study

from voxplain.errors import DataError, LabelError
from voxplain.study.error_detector import (
    DETECTOR,
    PR,
    PREDICTORS,
    ROC,
    SCORES,
    error_detector,
)
from voxplain.study.error_folds import detector_features, held_out_scores, patient_folds


def quality(tables, predictor="saliency", **settings):
    found = error_detector(*tables, **settings).detector
    return found.set_index("predictor").loc[predictor]


@pytest.mark.parametrize("effect", [0.7, 1.5])
def test_auroc_of_normal_features_is_the_closed_form(effect):
    tables = lesion_study(np.random.default_rng(3), 80, 20, effect=effect)
    row = quality(tables, n_boot=200)
    assert row["auroc"] == pytest.approx(stats.norm.cdf(effect / np.sqrt(2)), abs=0.03)
    assert row["auroc_gain_low"] > 0  # the plain probability knows nothing here
    assert row["precision_average"] > row["prevalence"] + 0.1
    assert row["auroc_low"] < row["auroc"] < row["auroc_high"]


def test_without_effect_the_interval_covers_a_half():
    rng = np.random.default_rng(9)
    n_studies = 25
    rows = [quality(lesion_study(rng, 15, 6), n_boot=200) for _ in range(n_studies)]
    covered = np.mean([row["auroc_low"] <= 0.5 <= row["auroc_high"] for row in rows])
    assert covered >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / n_studies)
    gain = np.mean([row["auroc_gain_low"] <= 0 <= row["auroc_gain_high"] for row in rows])
    assert gain >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / n_studies)
    # pooled scores of a useless detector are not worse than chance
    assert np.mean([row["auroc"] for row in rows]) == pytest.approx(0.5, abs=0.05)


def test_what_only_marks_the_patient_is_worth_nothing():
    # each patient has one level and one kind of lesion: known by heart, useless for a new one
    rng = np.random.default_rng(2)
    instances, saliency, shells = lesion_study(rng, 30, 8, patient_sd=30)
    kind = dict(zip(sorted(instances["patient"].unique()), ["FP", "TP"] * 15, strict=True))
    instances["type"] = instances["patient"].map(kind)
    assert quality((instances, saliency, shells), n_boot=200)["auroc"] < 0.75


def test_probability_is_taken_as_it_is():
    tables = lesion_study(np.random.default_rng(4), 9, 5)
    found = error_detector(*tables, n_boot=100)
    assert tuple(found.detector.columns) == DETECTOR
    assert list(found.detector["predictor"]) == list(PREDICTORS)
    instances = tables[0]
    is_false = instances["type"] == "FP"
    for name in ("probability_mean", "probability_max"):
        row = found.detector.set_index("predictor").loc[name]
        assert row["auroc"] == pytest.approx(roc_auc_score(is_false, -instances[name]))
        assert row["precision_average"] == pytest.approx(
            average_precision_score(is_false, -instances[name])
        )
        assert (row["n_features"], row["n_folds"], row["n_fp"]) == (1, 9, is_false.sum())
    assert found.detector["auroc_gain"].isna().tolist() == [True, False, False, False]
    # 5 of the map and 2 shells, and the two probabilities
    assert found.detector["n_features"].tolist() == [1, 1, 7, 9]


def test_curves_are_of_the_scores():
    tables = lesion_study(np.random.default_rng(6), 14, 6, effect=1)
    found = error_detector(*tables, n_boot=20)
    assert tuple(found.roc.columns) == ROC
    assert tuple(found.pr.columns) == PR
    assert tuple(found.scores.columns) == SCORES
    quality_of = found.detector.set_index("predictor")
    for name in PREDICTORS:
        scores = found.scores[found.scores["predictor"] == name]
        is_false = scores["type"] == "FP"
        roc = found.roc[found.roc["predictor"] == name]
        area = np.trapezoid(roc["hit_rate"], roc["false_alarm_rate"])
        assert area == pytest.approx(quality_of.loc[name, "auroc"])
        assert roc["threshold"].iloc[0] == np.inf
        assert (roc.iloc[-1][["false_alarm_rate", "hit_rate"]] == 1).all()
        pr = found.pr[found.pr["predictor"] == name]
        area = (np.diff(pr["recall"], prepend=0) * pr["precision"]).sum()
        assert area == pytest.approx(quality_of.loc[name, "precision_average"])
        for at in (roc.iloc[len(roc) // 2], pr.iloc[len(pr) // 3]):
            chosen = scores["score"] >= at["threshold"]
            if "recall" in at:
                assert at["recall"] == pytest.approx(chosen[is_false].mean())
                assert at["precision"] == pytest.approx(is_false[chosen].mean())
            else:
                assert at["hit_rate"] == pytest.approx(chosen[is_false].mean())
                assert at["false_alarm_rate"] == pytest.approx(chosen[~is_false].mean())
        # every patient was held out once, and as a whole
        assert (scores.groupby("patient")["fold"].nunique() == 1).all()
        assert scores["fold"].min() == 1


@pytest.mark.parametrize(("n_patients", "n_folds"), [(4, 4), (10, 10), (25, 5)])
def test_no_patient_is_on_both_sides(n_patients, n_folds):
    rng = np.random.default_rng(n_patients)
    patient = np.repeat([f"p{i}" for i in range(n_patients)], 6)
    is_false = rng.random(len(patient)) < 0.4
    folds = patient_folds(is_false, patient, seed=1)
    assert len(folds) == n_folds
    assert np.array_equal(np.sort(np.concatenate([f[1] for f in folds])), np.arange(len(patient)))
    for train, held_out in folds:
        assert not set(patient[train]) & set(patient[held_out])
        assert 0 < is_false[train].sum() < len(train)


def test_rare_errors_leave_one_patient_out():
    patient = np.repeat([f"p{i}" for i in range(30)], 3)
    is_false = np.zeros(90, bool)
    is_false[[0, 40]] = True
    assert len(patient_folds(is_false, patient, seed=0)) == 30


def test_a_held_out_score_knows_nothing_of_its_lesion():
    rng = np.random.default_rng(5)
    X, is_false = rng.normal(size=(40, 3)), rng.random(40) < 0.5
    patient = np.repeat([f"p{i}" for i in range(8)], 5)
    folds = patient_folds(is_false, patient, 0)
    before, n_filled = held_out_scores(X, is_false, folds)
    assert n_filled == 0
    turned = is_false.copy()
    turned[patient == "p3"] ^= True
    after, _ = held_out_scores(X, turned, folds)
    np.testing.assert_allclose(after[patient == "p3"], before[patient == "p3"])
    assert not np.allclose(after[patient != "p3"], before[patient != "p3"])


def test_scores_do_not_depend_on_units():
    rng = np.random.default_rng(7)
    X, is_false = rng.normal(size=(60, 3)), rng.random(60) < 0.4
    folds = patient_folds(is_false, np.repeat([f"p{i}" for i in range(10)], 6), 0)
    one, _ = held_out_scores(X, is_false, folds)
    other, _ = held_out_scores(X * [1e-6, 1e5, 3] + [1e-5, 7, 0], is_false, folds)
    np.testing.assert_allclose(other, one, rtol=1e-2, atol=1e-3)


def test_missing_features_are_filled_and_counted():
    instances, saliency, shells = lesion_study(np.random.default_rng(8), 12, 6)
    saliency.loc[saliency.index[:5], "peak_distance_mm"] = np.nan
    shells.loc[shells["to_mm"] == 4, "mean"] = np.nan  # empty for all: on the border
    row = quality((instances, saliency, shells), n_boot=20)
    assert row["n_filled"] == 5 + 72
    assert 0 < row["auroc"] < 1


def test_features_by_channel_and_shell():
    _, saliency, shells = lesion_study(np.random.default_rng(1), 2, 3)
    both = pd.concat([saliency, saliency.assign(channel="mprage", share=0.25)])
    features = detector_features(both, shells)
    assert list(features.columns[:2]) == ["flair peak_positive", "mprage peak_positive"]
    assert list(features.columns[-2:]) == ["flair mean 0–2 mm", "flair mean 2–4 mm"]
    assert (features["mprage share"] == 0.25).all()
    ring = shells[(shells["case"] == "c01") & (shells["to_mm"] == 4)].set_index("instance")
    assert features.loc[("c01", "P2"), "flair mean 2–4 mm"] == ring.loc["P2", "mean"]
    assert list(detector_features(saliency, shells.iloc[:0]).columns[-1:]) == [
        "flair peak_distance_mm"
    ]


def test_other_types_do_not_matter():
    rng = np.random.default_rng(12)
    instances, saliency, shells = lesion_study(rng, 12, 8, types=("FP", "TP", "FN", "US", "TN"))
    whole = error_detector(instances, saliency, shells, n_boot=20)
    part = error_detector(
        instances[instances["type"].isin(["TP", "FP"])], saliency, shells, n_boot=20
    )
    pd.testing.assert_frame_equal(whole.detector, part.detector)
    assert set(whole.scores["type"]) == {"TP", "FP"}


def test_order_does_not_matter_and_methods_stand_alone():
    instances, saliency, shells = lesion_study(np.random.default_rng(13), 12, 6, effect=1)
    one = error_detector(instances, saliency, shells, n_boot=20)
    other = error_detector(
        instances.sample(frac=1, random_state=0), saliency.sample(frac=1, random_state=1),
        shells.sample(frac=1, random_state=2), n_boot=20,
    )  # fmt: skip
    pd.testing.assert_frame_equal(one.detector, other.detector)
    more = error_detector(
        instances,
        pd.concat([saliency, saliency.assign(method="b", peak_positive=0.0)]),
        pd.concat([shells, shells.assign(method="b")]),
        n_boot=20,
    ).detector
    assert len(more) == 8
    pd.testing.assert_frame_equal(more[more["method"] == "gradient"], one.detector)
    chosen = error_detector(
        instances, pd.concat([saliency, saliency.assign(method="b")]), shells, methods=["b"],
        n_boot=20,
    )  # fmt: skip
    assert set(chosen.detector["method"]) == {"b"}


def test_too_few_patients_are_told():
    instances, saliency, shells = lesion_study(np.random.default_rng(0), 6, 5)
    instances["type"] = np.where(instances["patient"] == "p02", "FP", "TP")
    found = error_detector(instances, saliency, shells, n_boot=20)
    assert list(found.detector["predictor"]) == list(PREDICTORS)
    assert found.detector["note"].str.contains("1 patients with a false positive").all()
    assert found.detector["auroc"].isna().all()
    assert (found.detector["n_fp"] == 5).all()
    assert tuple(found.roc.columns) == ROC
    assert found.roc.empty
    assert found.scores.empty
    instances["type"] = "FN"
    found = error_detector(instances, saliency, shells, n_boot=20)
    assert found.detector["note"].str.contains("0 patients with a false positive").all()


def test_a_model_without_probability_has_saliency_only():
    instances, saliency, shells = lesion_study(np.random.default_rng(0), 6, 5, effect=2)
    instances[["probability_mean", "probability_max"]] = np.nan
    found = error_detector(instances, saliency, shells, n_boot=20).detector.set_index("predictor")
    assert found["auroc"].notna().tolist() == [False, False, True, False]
    assert found.loc["saliency", "auroc"] > 0.7
    assert np.isnan(found.loc["saliency", "auroc_gain"])
    assert found.loc["probability_mean", "note"] == "not computed: 30 lesions have no probability"


def test_bad_input_is_told():
    instances, saliency, shells = lesion_study(np.random.default_rng(0), 6, 5)
    with pytest.raises(LabelError, match=r"shells.*missing: to_mm"):
        error_detector(instances, saliency, shells.drop(columns="to_mm"))
    with pytest.raises(DataError, match="got 2"):
        error_detector(instances, saliency, shells, level=2)
    with pytest.raises(DataError, match="got 0"):
        error_detector(instances, saliency, shells, n_boot=0)
