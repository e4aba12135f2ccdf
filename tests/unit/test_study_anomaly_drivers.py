"""What drives a score: exact splits, closed forms, the planted region first."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest
from tests.unit.test_study_anomalies import of, shares, table

from voxplain.errors import DataError, LabelError, TargetError
from voxplain.study.anomalies import fit_anomalies, held_out_detectors, score_within
from voxplain.study.anomaly_drivers import DRIVERS, drivers
from voxplain.study.anomaly_settings import PRESETS, AnomalySettings
from voxplain.study.compositions import closed, clr


def odd_table(n=60):
    values = shares(0, n, 2)
    values[3, 0, 2] *= 30
    return table(values / values.sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("features", ["clr", "share"])
def test_contributions_sum_to_the_score_that_the_case_was_given(features):
    cohort, settings = odd_table(), AnomalySettings(features=features)
    scores = of(score_within(cohort, settings))["score"]
    for case in ("case-00003", "case-00010"):
        detectors = held_out_detectors(cohort, settings, case, targets=["organ 0"])
        found = drivers(detectors, cohort, case, "organ 0")
        assert tuple(found.columns) == DRIVERS
        assert found["contribution"].sum() == pytest.approx(scores[case], rel=1e-10)
        assert found["contribution"].is_monotonic_decreasing
    odd = drivers(held_out_detectors(cohort, settings, "case-00003"), cohort, "case-00003",
                  "organ 0")  # fmt: skip
    assert odd["region"].iloc[0] == "region 2"
    assert odd["z"].iloc[0] > 5


def test_numbers_of_the_split():
    cohort = odd_table()
    fitted = fit_anomalies(cohort)
    detector = fitted.detectors["organ 0"]
    found = drivers(fitted, cohort, "case-00003", "organ 0").set_index("region")
    found = found.loc[list(cohort.parts)]
    x = clr(cohort.values["share"][3, 0])
    moved = x - detector.centre
    np.testing.assert_allclose(found["contribution"], moved * (detector.precision @ moved))
    np.testing.assert_allclose(found["z"], moved / detector.spread)
    assert found["expected"].sum() == pytest.approx(1)
    np.testing.assert_allclose(clr(found["expected"].to_numpy()), detector.centre, atol=1e-12)
    np.testing.assert_allclose(found["share"], cohort.values["share"][3, 0])


def test_one_changed_log_ratio_in_closed_form():
    # with S⁻¹ the projection on the plane of log-ratios, the split is that of ‖x − m‖²
    from voxplain.study.anomaly_detectors import Detector

    parts = np.array([0.2, 0.3, 0.5])
    centre = clr(parts)
    plane = np.eye(3) - 1 / 3
    detector = Detector(AnomalySettings(), np.full(3, 1e-3), centre, np.ones(3), plane, None)
    changed = closed(parts * [np.e, 1, 1])  # moved by (2, −1, −1) / 3
    assert detector.score(changed[None])[0] == pytest.approx(6 / 9, rel=1e-12)


def test_of_a_forest_it_is_what_the_score_loses():
    cohort = odd_table()
    fitted = fit_anomalies(cohort, PRESETS["agg2exp"])
    found = drivers(fitted, cohort, "case-00003", "organ 0")
    assert found["region"].iloc[0] == "region 2"
    from voxplain.study.anomaly_cases import CaseOrder

    X = cohort.values["share"][CaseOrder.of(cohort, 0).order, 0]
    forest = IsolationForest(random_state=0).fit(X)
    x, median = cohort.values["share"][3, 0], np.median(X, axis=0)
    median = median / median.sum()
    for _, row in found.iterrows():
        i = cohort.parts.index(row["region"])
        changed = x / (1 - x[i]) * (1 - median[i])
        changed[i] = median[i]
        expected = forest.decision_function([changed])[0] - forest.decision_function([x])[0]
        assert row["contribution"] == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("name", ["default", "agg2exp"])
def test_a_region_that_is_all_there_is(name):
    cohort = odd_table()
    fitted = fit_anomalies(cohort, PRESETS[name])
    values = np.zeros((1, 1, 6))
    values[0, 0, 1] = 1
    found = drivers(fitted, table(values, name="new"), "new-00000", "organ 0")
    assert np.isfinite(found[["z", "contribution"]].to_numpy()).all()


def test_refusals():
    cohort = odd_table()
    fitted = fit_anomalies(cohort)
    with pytest.raises(TargetError, match="no detector of 'all targets'"):
        drivers(fitted, cohort, "case-00003", "all targets")
    with pytest.raises(DataError, match="no case 'x'"):
        drivers(fitted, cohort, "x", "organ 0")
    with pytest.raises(LabelError, match="this case has"):
        drivers(fitted, table(shares(0, n_regions=5)), "case-00003", "organ 0")
    values = shares(0, 60, 2)
    values[3, 0] = np.nan
    with pytest.raises(DataError, match="no map of 'organ 0'"):
        drivers(fitted, table(values), "case-00003", "organ 0")
    few = fit_anomalies(table(shares(0, 10)))
    with pytest.raises(TargetError, match="10 patients"):
        drivers(few, table(shares(0, 10)), "case-00003", "organ 0")
