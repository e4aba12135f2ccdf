"""Types of lesions compared: against closed forms and libraries, with and without an effect."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.multitest import multipletests
from tests.lesion_studies import lesion_study

from voxplain.errors import DataError, LabelError
from voxplain.study.feature_values import FEATURES, KEY, MAP_FEATURES, VALUES, feature_values
from voxplain.study.lesion_statistics import DISTRIBUTIONS, distributions, lesion_statistics
from voxplain.study.lesion_tests import (
    EFFECTS,
    TESTS,
    cliffs_delta,
    holm,
    pair_effects,
    type_tests,
)
from voxplain.study.mixed_model import MIXED, mixed_models

ALL = ("FP", "TP", "FN", "US", "TN")


def values_of(values, types, patients, feature="share"):
    """A table of one feature."""
    n = len(values)
    return pd.DataFrame(
        {
            "model": "net", "method": "gradient", "channel": "flair", "feature": feature,
            "unit": "1", "case": patients, "patient": patients,
            "instance": [f"P{i}" for i in range(n)], "type": types,
            "value": np.asarray(values, float),
        },
        columns=list(VALUES),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_cliffs_delta_is_what_it_says(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 6, 13).astype(float), rng.integers(1, 8, 9).astype(float)
    expected = np.sign(a[:, None] - b[None, :]).mean()
    assert cliffs_delta(a, b) == pytest.approx(expected)
    assert cliffs_delta(b, a) == pytest.approx(-expected)
    u = stats.mannwhitneyu(a, b).statistic
    assert cliffs_delta(a, b) == pytest.approx(2 * u / (13 * 9) - 1)


def test_cliffs_delta_at_its_ends():
    assert cliffs_delta(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 1
    assert cliffs_delta(np.array([1.0]), np.array([1.0, 1.0])) == 0
    assert np.isnan(cliffs_delta(np.array([]), np.array([1.0])))


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_the_librarys(seed):
    rng = np.random.default_rng(seed)
    p = rng.choice(rng.random(12) ** 4, 20)  # with ties
    expected = multipletests(p, method="holm")[1]
    np.testing.assert_allclose(holm(p), expected)
    gaps = np.insert(p, [3, 9], np.nan)  # tests that were not made count for nothing
    np.testing.assert_allclose(holm(gaps), np.insert(expected, [3, 9], np.nan))


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, 0.04])), [0.06, 0.03, 0.06])


def test_features_in_one_table():
    rng = np.random.default_rng(1)
    instances, saliency, _ = lesion_study(rng, 3, 4)
    shuffled = saliency.sample(frac=1, random_state=2)
    values = feature_values(instances, shuffled)
    assert tuple(values.columns) == VALUES
    assert set(values["feature"]) == set(FEATURES)
    assert len(values) == 12 * 7
    peaks = values[values["feature"] == "peak_negative"].set_index(["case", "instance"])
    same = saliency.set_index(["case", "instance"])["peak_negative"]
    pd.testing.assert_series_equal(peaks["value"].sort_index(), same, check_names=False)
    volumes = values[values["feature"] == "volume_mm3"]
    assert (volumes["method"] == "none").all()
    np.testing.assert_array_equal(volumes["value"], instances["volume_mm3"])
    assert dict(zip(values["feature"], values["unit"], strict=True)) == {
        "peak_positive": "logit per intensity", "peak_negative": "logit per intensity",
        "mean_inside": "logit per intensity", "share": "1", "peak_distance_mm": "mm",
        "volume_mm3": "mm³", "probability_mean": "1",
    }  # fmt: skip


def test_a_row_of_distributions():
    rng = np.random.default_rng(7)
    values = rng.normal(size=11)
    patients = list("aaabbbccddd")
    table = values_of([*values, np.nan, 5.0], ["FN"] * 12 + ["lesion"], [*patients, "e", "a"])
    found = distributions(table, n_boot=500)
    assert tuple(found.columns) == DISTRIBUTIONS
    row, other = found.to_dict("records")
    assert (row["n"], row["n_missing"], row["n_patients"], row["type"]) == (11, 1, 4, "FN")
    assert row["median"] == pytest.approx(np.median(values))
    assert row["quartile_1"] == pytest.approx(np.percentile(values, 25))
    assert row["quartile_3"] == pytest.approx(np.percentile(values, 75))
    assert row["mean"] == pytest.approx(values.mean())
    assert row["sd"] == pytest.approx(values.std(ddof=1))
    assert values.min() <= row["low"] < row["median"] < row["high"] <= values.max()
    assert (other["type"], other["n"], other["median"]) == ("lesion", 1, 5)
    assert np.isnan([other["low"], other["high"], other["sd"]]).all()


def test_a_type_without_any_value_is_told():
    found = distributions(values_of([1, 2, np.nan], ["TP", "TP", "FP"], list("aba")), n_boot=9)
    row = found.set_index("type").loc["FP"]
    assert (row["n"], row["n_missing"]) == (0, 1)
    assert np.isnan(row["median"])


@pytest.mark.parametrize("seed", range(3))
def test_tests_are_the_librarys(seed):
    rng = np.random.default_rng(seed)
    instances, saliency, _ = lesion_study(rng, 6, 9, types=ALL)
    saliency.loc[:3, "share"] = np.nan
    values = feature_values(instances, saliency)
    tests, effects = type_tests(values), pair_effects(values, n_boot=50)
    assert tuple(tests.columns) == TESTS
    assert tuple(effects.columns) == EFFECTS
    samples = {
        names: part["value"].dropna().to_numpy()
        for names, part in values.groupby(["feature", "type"])
    }
    for row in tests.to_dict("records"):
        assert row["types"] == "TP;US;FP;FN;TN"
        expected = stats.kruskal(*(samples[row["feature"], t] for t in ALL))
        assert (row["statistic"], row["p"]) == pytest.approx(tuple(expected))
    assert len(effects) == 7 * 10
    for row in effects.to_dict("records"):
        a, b = (samples[row["feature"], row[f"type_{x}"]] for x in "ab")
        expected = stats.mannwhitneyu(a, b, alternative="two-sided")
        assert (row["u"], row["p"]) == pytest.approx(tuple(expected))
        assert (row["n_a"], row["n_b"]) == (len(a), len(b))
        assert row["cliffs_delta"] == pytest.approx(cliffs_delta(a, b))
        assert row["median_difference"] == pytest.approx(np.median(a) - np.median(b))
        assert row["low"] <= row["cliffs_delta"] <= row["high"]
    for method, n in (("gradient", 50), ("none", 20)):
        family = effects[effects["method"] == method]
        assert (family["n_family"] == n).all()
        expected = multipletests(family["p"], method="holm")[1]
        np.testing.assert_allclose(family["p_holm"].astype(float), expected)


def test_lesions_without_truth_are_not_compared():
    values = values_of([1, 2, 3, 4], ["TP", "TP", "lesion", "lesion"], list("abab"))
    assert type_tests(values)["note"].item() == "fewer than two types of lesions"
    assert pair_effects(values, n_boot=9).empty
    assert mixed_models(values)["note"].item().endswith("nothing to compare")


def test_equal_values_differ_in_nothing():
    values = values_of([2] * 6, ["TP", "FP"] * 3, list("aabbcc"))
    (test,) = type_tests(values).to_dict("records")
    (effect,) = pair_effects(values, n_boot=20).to_dict("records")
    assert (test["p"], test["note"]) == (1, "all values are equal")
    assert (effect["p"], effect["p_holm"], effect["cliffs_delta"]) == (1, 1, 0)
    assert (effect["u"], effect["low"], effect["high"]) == (4.5, 0, 0)


def test_one_patient_has_no_interval():
    rng = np.random.default_rng(0)
    values = values_of(rng.random(9), ["TP"] * 5 + ["FP"] * 4, list("abcde") + ["a"] * 4)
    (effect,) = pair_effects(values, n_boot=20).to_dict("records")
    assert effect["note"] == "no interval: one side has one patient"
    assert np.isnan(effect["low"])
    assert np.isfinite(effect["p"])


@pytest.mark.parametrize("scale", [1.0, 3e-7])
def test_mixed_model_is_the_librarys(scale):
    rng = np.random.default_rng(4)
    instances, saliency, _ = lesion_study(rng, 10, 8, effect=1, patient_sd=1.5, types=ALL[:3])
    values = feature_values(instances, saliency, features=["peak_positive"])
    found = mixed_models(values.assign(value=scale * values["value"])).set_index("type")
    assert tuple(found.reset_index()[list(MIXED)].columns) == MIXED
    design = np.column_stack([np.ones(80), *(values["type"] == t for t in ("FP", "FN"))])
    fit = MixedLM(values["value"], design.astype(float), groups=values["patient"]).fit(reml=True)
    for i, kind in enumerate(("FP", "FN"), 1):
        row = found.loc[kind]
        error = scale * fit.bse_fe.iloc[i]
        assert row["coefficient"] == pytest.approx(scale * fit.fe_params.iloc[i], abs=error / 100)
        assert row["low"] == pytest.approx(scale * fit.conf_int().iloc[i, 0], abs=error / 50)
        assert row["p"] == pytest.approx(fit.pvalues.iloc[i], rel=5e-2)
        assert row["sd_patient"] == pytest.approx(scale * np.sqrt(fit.cov_re.iloc[0, 0]), rel=2e-2)
        assert row["sd_residual"] == pytest.approx(scale * np.sqrt(fit.scale), rel=1e-2)
        assert (row["reference"], row["n"], row["n_patients"], row["note"]) == ("TP", 80, 10, "")


def test_balanced_mixed_model_is_the_paired_comparison():
    # every patient with as many of each type: the coefficient is the mean of the differences
    rng = np.random.default_rng(8)
    n, m = 9, 4
    value = rng.normal(size=(n, 2, m)) + 3 * rng.normal(size=(n, 1, 1))
    types = np.broadcast_to(np.array(["TP", "FP"])[:, None], (n, 2, m))
    patient = np.broadcast_to(np.array([f"p{i}" for i in range(n)])[:, None, None], (n, 2, m))
    row = mixed_models(values_of(value.ravel(), types.ravel(), patient.ravel())).iloc[0]
    assert row["coefficient"] == pytest.approx((value[:, 1] - value[:, 0]).mean(), rel=1e-4)
    # residual mean square of the two-way layout without interaction, patient and type removed
    rest = value - value.mean(axis=(1, 2), keepdims=True)
    rest = rest - rest.mean(axis=(0, 2), keepdims=True)
    residual = (rest**2).sum() / (n * 2 * m - n - 1)
    assert row["sd_residual"] == pytest.approx(np.sqrt(residual), rel=1e-3)
    half = 1.959964 * np.sqrt(residual * 2 / (n * m))
    assert row["high"] - row["low"] == pytest.approx(2 * half, rel=1e-3)


def test_alike_patients_are_least_squares():
    # patients' means are all equal, so that the best variance of patients is 0
    value = np.tile([0.0, 1.0, 2.0, 5.0], 5)
    types = ["TP", "TP", "FP", "FP"] * 5
    row = mixed_models(values_of(value, types, np.repeat(list("abcde"), 4))).iloc[0]
    assert row["note"] == "patients do not differ: their variance is 0"
    assert row["coefficient"] == pytest.approx(3)
    assert row["sd_patient"] == 0
    fit = stats.linregress([t == "FP" for t in types], value)
    assert row["high"] - row["low"] == pytest.approx(2 * 1.959964 * fit.stderr, rel=1e-3)


@pytest.mark.parametrize(
    ("types", "patients", "reason"),
    [
        (["TP", "FP"] * 4, ["a"] * 8, "one patient"),
        (["TP", "FP"] * 4, list("abcdefgh"), "one lesion in each patient"),
        (["TN", "FP"] * 4, list("aabbccdd"), "no true positive"),
        (["TP"] * 8, list("aabbccdd"), "true positives alone"),
        (["TP", "FP", "FP"], list("aab"), "3 lesions for 4 parameters"),
    ],
)
def test_what_cannot_be_fitted_is_a_row_with_a_reason(types, patients, reason):
    found = mixed_models(values_of(np.arange(len(types)) ** 1.5, types, patients))
    assert len(found) >= 1
    assert found["note"].str.startswith(f"not fitted: {reason}").all()
    assert found["coefficient"].isna().all()


def test_types_that_are_patients_are_told():
    # with one patient of each type the two cannot be told apart; with two they can
    value, types = np.r_[0:4, 10:14], ["TP"] * 4 + ["FP"] * 4
    (row,) = mixed_models(values_of(value, types, list("aaaabbbb"))).to_dict("records")
    assert row["note"].startswith("not fitted: each patient has one type")
    (row,) = mixed_models(values_of(value, types, list("aabbccdd"))).to_dict("records")
    assert row["coefficient"] == pytest.approx(10)


def test_values_without_residual_are_told():
    values = values_of(np.tile([1.0, 4], 4), ["TP", "FP"] * 4, list("aabbccdd"))
    assert "explain every value" in mixed_models(values)["note"].item()


@pytest.mark.parametrize("patient_sd", [0.0, 0.5, 2.0])
def test_mixed_models_interval_covers_the_planted_effect(patient_sd):
    rng = np.random.default_rng(17)
    n_studies, n_hit = 150, 0
    patient = np.repeat(np.arange(15), 6)
    names = [f"p{p}" for p in patient]
    for _ in range(n_studies):
        types = np.where(rng.random(90) < 0.4, "FP", "TP")
        value = rng.normal(size=90) + patient_sd * rng.normal(size=15)[patient]
        row = mixed_models(values_of(value + 1.2 * (types == "FP"), types, names)).iloc[0]
        n_hit += row["low"] < 1.2 < row["high"]
    assert abs(n_hit / n_studies - 0.95) < 3 * np.sqrt(0.95 * 0.05 / n_studies)


def test_planted_effect_is_found():
    rng = np.random.default_rng(11)
    instances, saliency, _ = lesion_study(rng, 15, 10, effect=1.2, patient_sd=0.5)
    found = lesion_statistics(instances, saliency, n_boot=300)
    for name, table in found._asdict().items():
        is_planted = (table["feature"] == "peak_positive").to_numpy()
        if name == "tests":
            assert (table["p"] < 1e-4).to_numpy().tolist() == is_planted.tolist()
        elif name == "effects":
            assert (table["p_holm"] < 0.01).to_numpy().tolist() == is_planted.tolist()
            row = table[is_planted].iloc[0]
            assert row["high"] < 0  # TP below FP
            # two normal samples: P(a > b) = Φ(−d / √2), d on the spread of patients and lesions
            d = 1.2 / np.sqrt(1 + 0.5**2)
            assert row["low"] < 2 * stats.norm.cdf(-d / np.sqrt(2)) - 1 < row["high"]
        elif name == "mixed":
            assert (table["p"] < 1e-4).to_numpy().tolist() == is_planted.tolist()


def test_without_effect_families_are_wrong_as_rarely_as_promised():
    rng = np.random.default_rng(21)
    n_studies, wrong, small = 60, 0, []
    for _ in range(n_studies):
        instances, saliency, _ = lesion_study(rng, 8, 5)
        values = feature_values(instances, saliency, features=MAP_FEATURES)
        effects = pair_effects(values, n_boot=1)
        wrong += (effects["p_holm"] < 0.05).any()
        small += effects["p"].tolist()
    assert wrong / n_studies < 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_studies)
    assert stats.kstest(small, "uniform").statistic < 0.05
    assert np.mean(np.array(small) < 0.05) == pytest.approx(0.05, abs=0.02)


def test_strong_patients_make_no_false_effects_in_the_mixed_model():
    # few patients have most false positives, so that patients' levels look like types
    rng = np.random.default_rng(5)
    n_studies, wrong, naive = 60, 0, 0
    for _ in range(n_studies):
        level, most = 3 * rng.normal(size=12), rng.permutation(np.linspace(0.1, 0.9, 12))
        patient = np.repeat(np.arange(12), 8)
        types = np.where(rng.random(96) < most[patient], "FP", "TP")
        table = values_of(rng.normal(size=96) + level[patient], types, [f"p{p}" for p in patient])
        wrong += mixed_models(table)["p"].item() < 0.05
        naive += type_tests(table)["p"].item() < 0.05
    assert wrong / n_studies < 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_studies)
    assert naive > 2 * n_studies * 0.05 + 3  # the studies could have misled


def test_draws_and_order_of_cases_do_not_matter():
    rng = np.random.default_rng(2)
    instances, saliency, _ = lesion_study(rng, 5, 6)
    one = lesion_statistics(instances, saliency, n_boot=40, seed=3)
    order = np.random.default_rng(0).permutation(len(instances))
    other = lesion_statistics(
        instances.iloc[order], saliency.sample(frac=1, random_state=1), n_boot=40, seed=3
    )
    for a, b in zip(one, other, strict=True):
        key = [*KEY, *({"type", "type_a", "type_b"} & set(a.columns))]
        pd.testing.assert_frame_equal(
            a.sort_values(key, ignore_index=True), b.sort_values(key, ignore_index=True), rtol=1e-4
        )


def test_bad_input_is_told():
    instances, saliency, _ = lesion_study(np.random.default_rng(0), 2, 3)
    with pytest.raises(DataError, match=r"no feature 'peak_positiv'; did you mean 'peak_"):
        feature_values(instances, saliency, features=["peak_positiv"])
    with pytest.raises(DataError, match="no method 'gradent' in the results; did you mean"):
        feature_values(instances, saliency, methods=["gradent"])
    with pytest.raises(DataError, match="at least one feature"):
        feature_values(instances, saliency, features=[])
    with pytest.raises(DataError, match="TN, lesion, got false"):
        feature_values(instances.replace({"type": {"TP": "false", "FP": "false"}}), saliency)
    with pytest.raises(DataError, match=r"lesion P3 of case c01.*different runs"):
        feature_values(instances.iloc[:-1], saliency)
    units = saliency.assign(unit=["a", "b", *saliency["unit"][2:]])
    with pytest.raises(DataError, match="channel flair have 3 units"):
        feature_values(instances, units)
    with pytest.raises(LabelError, match="missing: type"):
        feature_values(instances.drop(columns="type"), saliency)
    for level in (0, 1, 95):
        with pytest.raises(DataError, match=f"got {level}"):
            lesion_statistics(instances, saliency, level=level)
    with pytest.raises(DataError, match="n_boot"):
        lesion_statistics(instances, saliency, n_boot=0)
