"""Millimetres that lesions need: closed forms, comings and goings, resampled patients."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from voxplain.errors import LabelError
from voxplain.records.lesion_tables import CONTEXT
from voxplain.study.context_need import (
    CURVES,
    MEDIANS,
    NEED,
    context_curves,
    context_medians,
    context_need,
)

INF = float("inf")


def curve(distances, values, **changes):
    """Rows of one lesion."""
    same = {
        "case": "c", "patient": "p", "model": "m", "instance": "P1", "type": "TP", "mode": "keep",
        "fill": "constant:0", "n_steps": pd.NA, "n_voxels": 20, **changes,
    }  # fmt: skip
    rows = [
        {
            **same, "distance_mm": float(d), "probability_mean": p, "probability_max": p,
            "n_detected_voxels": int(p > 0.5), "is_detected": p > 0.5,
        }
        for d, p in zip(distances, values, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(CONTEXT))


def need_of(distances, values, share=0.95, **changes):
    frame = context_need(curve(distances, values, **changes), share)
    assert tuple(frame.columns) == NEED
    (row,) = frame.to_dict("records")
    return row


@pytest.mark.parametrize("seed", range(5))
def test_a_line_is_crossed_where_it_says(seed):
    rng = np.random.default_rng(seed)
    final, end, share = rng.uniform(0.2, 1), rng.uniform(5, 20), rng.uniform(0.3, 0.99)
    distances = np.unique(np.concatenate([[0, end], rng.uniform(0, end, 6), [end + 1, INF]]))
    values = final * np.minimum(distances / end, 1)
    order = rng.permutation(len(distances))
    row = need_of(distances[order], values[order], share)
    assert row["need_mm"] == pytest.approx(share * end)
    assert row["first_mm"] == pytest.approx(share * end)
    assert row["probability_final"] == final
    assert row["is_reached"] is True
    assert (row["n_voxels"], row["share"], row["type"]) == (20, share, "TP")


@pytest.mark.parametrize(
    ("distances", "values", "need", "first"),
    [
        # comes and goes: needed is from where on it stays
        ([0, 2, 4, 6, 8, INF], [0.0, 1.0, 0.0, 0.0, 1.0, 1.0], 7, 1),
        # sure from the lesion alone
        ([0, 5, INF], [0.9, 0.9, 1.0], 0, 0),
        # more sure without the surroundings
        ([0, 5, INF], [1.0, 0.8, 0.5], 0, 0),
        # the first distance is not 0: no telling how much less would do
        ([3, 5, INF], [0.9, 0.9, 1.0], 3, 3),
        # reached at a measured distance exactly
        ([0, 4, 8, INF], [0.0, 0.5, 1.0, 1.0], 4, 4),
        # never within the measured distances, for want of them or of stability
        ([0, 4, 8, INF], [0.0, 0.1, 0.2, 1.0], np.nan, np.nan),
        ([0, 4, 8, INF], [0.0, 0.9, 0.2, 1.0], np.nan, np.nan),
        ([INF], [0.7], np.nan, np.nan),
        # nothing to reach
        ([0, 4, INF], [0.0, 0.0, 0.0], np.nan, np.nan),
        ([0, 4, INF], [np.nan, np.nan, np.nan], np.nan, np.nan),
    ],
)
def test_curves(distances, values, need, first):
    row = need_of(distances, values, share=0.5)
    assert row["need_mm"] == pytest.approx(need, nan_ok=True)
    assert row["first_mm"] == pytest.approx(first, nan_ok=True)
    assert row["is_reached"] is bool(np.isfinite(need))


@pytest.mark.parametrize(
    ("values", "need", "first"),
    [
        ([1.0, 1.0, 0.0, 0.0], 3, 3),
        ([1.0, 0.0, 1.0, 0.0], 1, 5),  # missed from 1 mm on, for good from 5 mm on
        ([1.0, 0.9, 0.8, 0.7], np.nan, np.nan),
        ([1.0, 0.0, 0.0, 1.0], np.nan, np.nan),
    ],
)
def test_removed_surroundings_are_missed_from_the_first_fall_on(values, need, first):
    row = need_of([0, 2, 4, 6], values, share=0.5, mode="remove")
    assert row["need_mm"] == pytest.approx(need, nan_ok=True)
    assert row["first_mm"] == pytest.approx(first, nan_ok=True)


def test_lesions_modes_fills_models_and_cases_are_apart():
    parts = [
        curve([0, 10, INF], [0, 1, 1]),
        curve([0, 20, INF], [0, 1, 1], model="n"),
        curve([0, 30, INF], [0, 1, 1], instance="P2"),
        curve([0, 40, INF], [0, 1, 1], case="d"),
        curve([0, 50, INF], [0, 1, 1], fill="mean"),
        curve([0, 60], [1, 0], mode="remove"),
    ]
    frame = context_need(pd.concat(parts).sample(frac=1, random_state=1), share=0.5)
    assert sorted(frame["need_mm"]) == [5, 10, 15, 20, 25, 30]


def many(rng, n_patients, n_lesions, model="m"):
    """One row a lesion, as from `context_need`, patients differing."""
    rows = []
    for p in range(n_patients):
        shift = rng.normal(0, 3)
        n = int(rng.integers(1, n_lesions + 1))
        rows += [
            {
                "case": f"c{p}", "patient": f"p{p}", "model": model, "instance": f"P{i}",
                "type": rng.choice(["TP", "FP"]), "mode": "keep", "fill": "mean",
                "n_voxels": 9, "share": 0.95, "probability_final": 0.8,
                "need_mm": 7 + shift + rng.normal(0, 0.1), "first_mm": 0.0, "is_reached": True,
            }
            for i in range(n)
        ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(NEED))


def test_medians_of_each_model_and_type():
    rng = np.random.default_rng(3)
    need = pd.concat([many(rng, 12, 5), many(rng, 12, 5, "n")], ignore_index=True)
    frame = context_medians(need, n_boot=200)
    assert tuple(frame.columns) == MEDIANS
    for row in frame.to_dict("records"):
        own = need[need["model"] == row["model"]]
        own = own if row["type"] == "all" else own[own["type"] == row["type"]]
        assert row["median_mm"] == pytest.approx(own["need_mm"].median())
        assert row["n_lesions"] == row["n_reached"] == len(own)
        assert row["n_patients"] == own["patient"].nunique()
        assert row["low_mm"] <= row["median_mm"] <= row["high_mm"]
    assert len(frame) == 2 * 3
    pd.testing.assert_frame_equal(frame, context_medians(need, n_boot=200))
    other = context_medians(need, n_boot=200, seed=1)
    assert not frame["low_mm"].equals(other["low_mm"])


def test_the_interval_resamples_patients_not_lesions():
    # patients differ, their lesions do not: 200 lesions tell no more than 8 patients
    rng = np.random.default_rng(0)
    of_patient = rng.normal(8, 3, 8)
    need = pd.concat([many(rng, 8, 1)] * 25, ignore_index=True)
    need["need_mm"] = need["patient"].str[1:].astype(int).map(dict(enumerate(of_patient)))
    once = need.drop_duplicates("patient")
    repeated, single = (
        context_medians(one.assign(type="TP"), n_boot=4000).set_index("type").loc["all"]
        for one in (need, once)
    )
    assert repeated["n_lesions"] == 200
    assert repeated["median_mm"] == single["median_mm"]
    assert repeated["low_mm"] == single["low_mm"]
    assert repeated["high_mm"] == single["high_mm"]
    # all 8**8 draws by their counts: the median of a resample of 8 lies at or below the second
    # smallest with the chance that at least 5 of 8 draws do (linear between: 4 and 4 is above)
    assert single["low_mm"] <= np.sort(of_patient)[2]
    assert single["high_mm"] >= np.sort(of_patient)[5]


def test_the_interval_covers():
    rng = np.random.default_rng(9)
    hits = 0
    for seed in range(60):
        need = many(rng, 25, 3)
        row = context_medians(need, n_boot=200, seed=seed, level=0.9).iloc[0]
        hits += row["low_mm"] <= 7 <= row["high_mm"]
    assert 46 <= hits <= 60  # binomial with 0.9: 54 ± 2.3, patients of few lesions blur it


def test_lesions_that_are_not_reached_count_as_far():
    rng = np.random.default_rng(1)
    need = many(rng, 9, 1).assign(type="TP")
    need["need_mm"] = np.arange(9.0)
    some = need.copy()
    some.loc[6:, ["need_mm", "is_reached"]] = [np.nan, False]
    row = context_medians(some, n_boot=300).iloc[0]
    assert row["median_mm"] == 4
    assert row["n_reached"] == 6
    assert row["high_mm"] == INF
    most = need.copy()
    most.loc[3:, ["need_mm", "is_reached"]] = [np.nan, False]
    assert context_medians(most, n_boot=300).iloc[0]["median_mm"] == INF
    unknown = need.copy()
    unknown.loc[6:, ["need_mm", "probability_final", "is_reached"]] = [np.nan, 0.0, False]
    assert context_medians(unknown, n_boot=300).iloc[0]["n_lesions"] == 6


def test_controls_are_beside_the_lesions():
    rng = np.random.default_rng(2)
    need = many(rng, 6, 2).assign(type="TP")
    controls = need.assign(type="TN", need_mm=99.0)
    frame = context_medians(pd.concat([need, controls]), n_boot=50).set_index("type")
    assert frame.loc["all", "n_lesions"] == len(need)
    assert frame.loc["TN", "median_mm"] == 99


def test_one_patient_has_no_interval():
    row = context_medians(many(np.random.default_rng(0), 1, 4), n_boot=10).iloc[0]
    assert np.isnan([row["low_mm"], row["high_mm"]]).all()
    assert np.isfinite(row["median_mm"])


def test_curves_over_lesions():
    frame = pd.concat(
        [
            curve([0, 5, INF], [0.2, 0.6, 0.8]),
            curve([0, 5, INF], [0.4, 0.4, 1.0], instance="P2"),
            curve([0, 5, INF], [0.9, 0.9, 0.9], instance="C1", type="TN"),
            curve([0, 5, INF], [0.9, 0.9, 0.9], model="n"),
        ]
    ).sample(frac=1, random_state=0)
    curves = context_curves(frame)
    assert tuple(curves.columns) == CURVES
    own = curves[curves["model"] == "m"]
    assert own["distance_mm"].tolist() == [0, 5, INF]
    np.testing.assert_allclose(own["probability_mean"], [0.3, 0.5, 0.9])
    np.testing.assert_allclose(own["probability_sd"], np.sqrt([0.02, 0.02, 0.02]))
    assert own["n_detected"].tolist() == [0, 1, 2]
    assert own["share_detected"].tolist() == [0, 0.5, 1]
    assert own["n_lesions"].tolist() == [2, 2, 2]
    assert curves[curves["model"] == "n"]["probability_sd"].isna().all()


def test_no_lesion_gives_empty_tables():
    empty = curve([], [])
    need = context_need(empty)
    assert tuple(need.columns) == NEED
    assert len(need) == 0
    assert tuple(context_medians(need).columns) == MEDIANS
    assert tuple(context_curves(empty).columns) == CURVES


@pytest.mark.parametrize("share", [0, -0.5, 1.01, float("nan")])
def test_bad_share(share):
    with pytest.raises(LabelError, match="share is above 0 and at most 1"):
        context_need(curve([0, INF], [0, 1]), share)


def test_bad_tables():
    good = curve([0, 5, INF], [0, 1, 1])
    with pytest.raises(LabelError, match="missing: distance_mm"):
        context_need(good.drop(columns="distance_mm"))
    with pytest.raises(LabelError, match=r"lesion P1 of case c, model m.*different names"):
        context_need(pd.concat([good, good]))
    with pytest.raises(LabelError, match="the whole image were expected"):
        context_need(good[:2])
    with pytest.raises(LabelError, match="missing"):
        context_medians(good)
    with pytest.raises(LabelError, match="missing"):
        context_curves(good.drop(columns="mode"))
    need = context_need(good)
    with pytest.raises(LabelError, match="n_boot is at least 1"):
        context_medians(need, n_boot=0)
    with pytest.raises(LabelError, match="level between 0 and 1"):
        context_medians(need, level=1)
