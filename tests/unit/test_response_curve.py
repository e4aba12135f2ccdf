"""Response curves: closed forms, an optimiser as oracle, and intervals that cover the truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from voxplain.errors import LabelError, MethodError
from voxplain.records.lesion_tables import RESPONSE
from voxplain.study.response_curve import (
    CURVE,
    HALF,
    RIDGE,
    Psychometric,
    chance_of,
    half_diameter,
    response_curve,
)


def table(
    rng: np.random.Generator,
    truth: tuple[float, float, float] = (-6.0, 3.0, 1.5),
    n_patients: int = 6,
    n_places: int = 5,
    model: str = "net",
) -> pd.DataFrame:
    rows = [
        {
            **dict.fromkeys(RESPONSE, 0.0), "case": f"c{p}", "patient": f"p{p}", "model": model,
            "place": s, "diameter_mm": d, "contrast": c,
            "probability_mean": rng.random(),
            "is_detected": bool(c and rng.random() < chance_of(np.array(truth), d, c)),
        }
        for p in range(n_patients) for s in range(1, n_places + 1)
        for d in (3.0, 5.0, 8.0, 12.0) for c in (0.0, 0.5, 1.0, 2.0)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(RESPONSE))


def test_the_fit_is_the_minimum_that_scipy_finds() -> None:
    rng = np.random.default_rng(1)
    diameter, contrast = rng.uniform(2, 15, 12), rng.uniform(0.2, 2, 12)
    n = rng.integers(1, 30, (4, 12)).astype(float)
    hits = rng.binomial(n.astype(int), 0.4).astype(float)
    found = Psychometric(diameter, contrast).fit(hits, n)
    raw = np.column_stack([np.log(diameter), contrast])
    X = np.column_stack([np.ones(12), (raw - raw.mean(0)) / raw.std(0)])

    def loss(b: np.ndarray, k: int) -> float:
        values = X @ b
        likelihood = hits[k] * values - n[k] * np.logaddexp(0, values)
        return float(-likelihood.sum() + RIDGE / 2 * b @ b)

    for k in range(4):
        best = minimize(loss, np.zeros(3), args=(k,), tol=1e-12).x
        wanted = X @ best
        ours = found[k, 0] + found[k, 1] * np.log(diameter) + found[k, 2] * contrast
        np.testing.assert_allclose(ours, wanted, atol=1e-4)


def test_many_lesions_give_the_planted_curve() -> None:
    truth = np.array([-6.0, 3.0, 1.5])
    diameter, contrast = (a.ravel() for a in np.meshgrid([3.0, 5, 8, 12], [0.5, 1, 2]))
    n = np.full(12, 1e6)
    found = Psychometric(diameter, contrast).fit(n * chance_of(truth, diameter, contrast), n)
    np.testing.assert_allclose(found, truth, atol=1e-3)
    assert half_diameter(found, 1.0) == pytest.approx(np.exp(4.5 / 3), rel=1e-3)
    assert chance_of(found, half_diameter(found, 0.5), np.array(0.5)) == pytest.approx(0.5)


def test_all_or_nothing_stays_finite_and_halves_lie_between() -> None:
    diameter = np.array([3.0, 5.0, 8.0, 12.0])
    n = np.full(4, 20.0)
    found = Psychometric(diameter, np.ones(4)).fit(np.array([0.0, 0, 20, 20]), n)
    assert np.isfinite(found).all()
    assert found[2] == 0  # one contrast tells nothing of contrast
    assert 5 < half_diameter(found, 1.0) < 8
    for hits in (np.zeros(4), n):
        assert np.isfinite(Psychometric(diameter, np.ones(4)).fit(hits, n)).all()


def test_no_rise_has_no_half() -> None:
    assert half_diameter(np.array([1.0, 0.0, 0.0]), 1.0) == np.inf
    assert half_diameter(np.array([1.0, -2.0, 0.0]), 1.0) == np.inf


def test_rates_are_counted_by_hand() -> None:
    frame = table(np.random.default_rng(2), n_patients=3, n_places=2)
    curve, half = response_curve(frame, n_boot=50)
    assert tuple(curve.columns) == CURVE
    assert tuple(half.columns) == HALF
    assert len(curve) == 16
    for row in curve.itertuples():
        chosen = frame[
            (frame["diameter_mm"] == row.diameter_mm) & (frame["contrast"] == row.contrast)
        ]
        assert row.n == len(chosen) == 6
        assert row.n_patients == 3
        assert row.rate == chosen["is_detected"].mean()
        assert row.probability_mean == pytest.approx(chosen["probability_mean"].mean())
        assert row.low <= row.rate <= row.high
        assert np.isnan(row.fitted) == (row.contrast == 0)
    assert set(curve["resampled"]) == {"patient"}
    assert half["contrast"].tolist() == [0.5, 1.0, 2.0]


def test_intervals_resample_patients_not_lesions() -> None:
    """Patients that answer all alike: the interval is that of three draws, 0 to 1."""
    frame = table(np.random.default_rng(3), n_patients=3, n_places=40)
    frame["is_detected"] = frame["patient"] == "p0"
    curve, _ = response_curve(frame, n_boot=500)
    assert (curve["rate"] - 1 / 3).abs().max() < 1e-12
    assert (curve["low"] == 0).all()
    assert (curve["high"] > 0.6).all()
    alone, _ = response_curve(frame[frame["patient"] == "p1"], n_boot=20)
    assert set(alone["resampled"]) == {"place"}


def test_intervals_cover_the_planted_half() -> None:
    truth = (-6.0, 3.0, 1.5)
    wanted = np.exp(4.5 / 3)
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(40):
        _, half = response_curve(table(rng, truth, 8, 3), n_boot=150)
        row = half[half["contrast"] == 1.0].iloc[0]
        hits += row["low"] <= wanted <= row["high"]
    assert hits >= 31  # of 40 at 95 %; a cluster bootstrap of 8 patients covers a little less


def test_models_are_apart_and_the_seed_decides() -> None:
    rng = np.random.default_rng(5)
    good, bad = table(rng, (0, 3, 3), model="good"), table(rng, (-20, 1, 0.1), model="bad")
    both = pd.concat([good, bad])
    curve, half = response_curve(both, n_boot=60, seed=7)
    again, _ = response_curve(both, n_boot=60, seed=7)
    pd.testing.assert_frame_equal(curve, again)
    means = curve[curve["contrast"] > 0].groupby("model")["rate"].mean()
    assert means["good"] > 0.9
    assert means["bad"] < 0.1
    notes = half.set_index(["model", "contrast"])["note"]
    assert notes["good", 2.0] == "below the tested diameters"
    assert notes["bad", 0.5] in (
        "above the tested diameters", "detection does not rise with the diameter",
    )  # fmt: skip


def test_missing_cells_and_contrast_0_alone() -> None:
    frame = table(np.random.default_rng(6))
    holes = frame[~((frame["patient"] != "p0") & (frame["diameter_mm"] == 12))]
    curve, _ = response_curve(holes, n_boot=40)
    assert (curve.loc[curve["diameter_mm"] == 12, "n_patients"] == 1).all()
    clean, half = response_curve(frame[frame["contrast"] == 0], n_boot=10)
    assert clean["fitted"].isna().all()
    assert half.empty


def test_bad_tables_and_settings_are_refused() -> None:
    frame = table(np.random.default_rng(7), n_patients=1, n_places=1)
    with pytest.raises(LabelError, match="missing: contrast"):
        response_curve(frame.drop(columns="contrast"))
    with pytest.raises(LabelError, match="no rows"):
        response_curve(frame.iloc[:0])
    with pytest.raises(MethodError, match="n_boot is at least 1"):
        response_curve(frame, n_boot=0)
    with pytest.raises(MethodError, match="level between 0 and 1"):
        response_curve(frame, level=95)
