"""Verdicts from planted tables: a good method, a bad one, and every reason to say neither."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from voxplain.assess.checks import checks_of
from voxplain.assess.checks_thresholds import Thresholds
from voxplain.assess.checks_verdicts import BY_INTERVAL, CHECKS
from voxplain.assess.settings import GROUPS
from voxplain.errors import LabelError, MethodError
from voxplain.records.assessment import RANDOM_PAIRS, REPEAT, SCORES
from voxplain.records.metric import Metric
from voxplain.study.score_comparison import comparisons_of
from voxplain.study.score_summary import summary_of

METRICS = tuple(
    Metric(name, family, direction, "1", 0, 1, "", "", "")
    for name, family, direction in (
        ("average_precision", "utility", "higher"),
        ("normalised_average_precision", "utility", "higher"),
        ("faithfulness_correlation", "faithfulness", "higher"),
        ("deletion_area", "faithfulness", "lower"),
    )
)

# value of each metric of a method that is as it should be, and of one that is not
GOOD = {
    "average_precision": 0.6, "normalised_average_precision": 0.4, "faithfulness_correlation": 0.5,
    "average_sensitivity": 0.3, "stability_flip": 0.9, "stability_noise": 0.8,
    "energy_in_body": 0.9, "fill_agreement": 0.8, "leakage": 0.2, "completeness_gap": 0.01,
    "map_peak": 3.0,
}  # fmt: skip
BAD = {
    "average_precision": 0.1, "normalised_average_precision": 0.0, "faithfulness_correlation": -0.1,
    "average_sensitivity": 1.4, "stability_flip": 0.3, "stability_noise": 0.8,
    "energy_in_body": 0.3, "fill_agreement": 0.2, "leakage": 0.7, "completeness_gap": 0.2,
    "map_peak": 3.0,
}  # fmt: skip
TRIVIAL = {"average_precision": 0.3, "faithfulness_correlation": 0.1}


def row(case, metric, value, *, method="ig", stage="original", **other):
    return {
        "case": f"c{case}", "patient": f"p{case}", "model": "m", "seed": 0, "stage": stage,
        "method": method, "target": "a", "metric": metric, "value": value, "flags": "",
        "against": "", **other,
    }  # fmt: skip


def plant(values, *, method="ig", n=8, last=0.1, repeat=0.8, noise=0.01, seed=0, flags=""):
    """Rows of one method over n cases; random pairs are alike by 0.3."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        for metric, value in values.items():
            noisy = value + noise * rng.normal()
            rows.append(row(i, metric, noisy, method=method, flags=flags))
        for stage, value in (
            ("top_down:0", 1.0), ("top_down:2", 0.9), ("top_down:10", last), ("bottom_up:11", 0.9),
        ):  # fmt: skip
            rows.append(row(i, "ssim", value + noise * rng.normal(), method=method, stage=stage))
        other = f"c{(i + 1) % n}"
        value = 0.3 + noise * rng.normal()
        rows.append(row(i, "ssim", value, method=method, stage=RANDOM_PAIRS, against=other))
        value = repeat + noise * rng.normal()
        rows.append(row(i, "ssim", value, method=method, stage=REPEAT, against="other"))
    return rows


def trivial(n=8, name="edges", values=TRIVIAL):
    rng = np.random.default_rng(99)
    return [
        row(i, metric, value + 0.01 * rng.normal(), method=f"baseline:{name}")
        for i in range(n) for metric, value in values.items()
    ]  # fmt: skip


def judge(rows, **options):
    """Verdicts (outcome, evidence) of a table by code, for the model m and the method ig."""
    scores = pd.DataFrame(rows, columns=list(SCORES))
    tables = scores, summary_of(scores, n_boot=300), comparisons_of(scores, METRICS, n_boot=300)
    found = checks_of(*tables, METRICS, n_boot=300, **options)
    return {f.code: (f.outcome, f.evidence) for f in found if f.target == "m · ig"}


def outcomes(rows, **options):
    return {code: outcome for code, (outcome, _) in judge(rows, **options).items()}


def test_a_method_as_it_should_be_passes_everything():
    found = judge(plant(GOOD) + trivial())
    assert list(found) == [f"VX{n}" for n in range(201, 213)] == list(CHECKS)
    assert {outcome for outcome, _ in found.values()} == {"passed"}
    assert "ssim at top_down:10 less that of random pairs (0." in found["VX201"][1]
    assert "n = 8 cases of 8 patients" in found["VX201"][1]
    assert "best trivial map edges, method less map 0.3" in found["VX202"][1]
    assert "leakage 0.1" in found["VX208"][1]
    assert "at most 0.5 is expected" in found["VX208"][1]


def test_a_method_that_fails_fails_everything():
    found = judge(plant(BAD, last=0.5, repeat=0.3, flags="constant map") + trivial())
    outcome = {code: outcome for code, (outcome, _) in found.items()}
    assert outcome.pop("VX207") == "passed"
    assert set(outcome.values()) == {"issue"}
    assert "not below" in found["VX201"][1]
    assert "not better than all" in found["VX202"][1]
    evidence = found["VX203"][1]
    assert "average_sensitivity 1.4" in evidence
    assert "stability_flip 0.3" in evidence
    assert "stability_noise" not in evidence  # it is well
    assert found["VX211"][1].startswith("8 of 8 maps")


def test_findings_are_of_each_model_and_method_and_of_no_baseline():
    rows = plant(GOOD) + plant(BAD, method="gradient") + trivial()
    rows += [{**r, "model": "k"} for r in plant(GOOD)]
    scores = pd.DataFrame(rows, columns=list(SCORES))
    tables = scores, summary_of(scores, n_boot=50), comparisons_of(scores, METRICS, n_boot=50)
    found = checks_of(*tables, METRICS, n_boot=50)
    assert Counter(f.target for f in found) == {"k · ig": 12, "m · gradient": 12, "m · ig": 12}
    assert [f.code for f in found[:12]] == list(CHECKS)
    mixed = scores.sample(frac=1, random_state=1)
    again = checks_of(
        mixed, summary_of(mixed, n_boot=50), comparisons_of(mixed, METRICS, n_boot=50), METRICS,
        n_boot=50,
    )  # fmt: skip
    assert again == found


def test_an_interval_that_reaches_the_line_does_not_pass():
    """The means are on the good side, the intervals are not."""
    values = {**GOOD, "normalised_average_precision": 0.05, "faithfulness_correlation": 0.05}
    found = judge(plant(values, last=0.25, repeat=0.35, noise=0.5, seed=2) + trivial())
    for code in ("VX201", "VX205", "VX209", "VX212"):
        assert found[code][0] == "issue", found[code]


def test_few_patients_are_told_and_not_judged_by_an_interval():
    found = judge(plant(GOOD, n=5) + trivial(5))
    assert found["VX207"][0] == "issue"
    assert "5 patients, at least 6 are needed; not judged: VX201, VX202" in found["VX207"][1]
    for code in BY_INTERVAL:
        assert found[code][0] == "skipped"
        assert "(VX207): 5 patients" in found[code][1]
    # what is skipped for another reason is not told there
    gone = {REPEAT, "top_down:2", "top_down:10", "normalised_average_precision"}
    rows = [r for r in plant(GOOD, n=5) + trivial(5) if not gone & {r["stage"], r["metric"]}]
    fewer = judge(rows)["VX207"][1]
    assert fewer.endswith("not judged: VX202, VX209")
    rest = set(CHECKS) - {*BY_INTERVAL, "VX207"}
    assert {found[code][0] for code in rest} == {"passed"}
    # many cases of few patients are few patients
    rows = [{**r, "patient": f"p{int(r['case'][1:]) % 3}"} for r in plant(GOOD) + trivial()]
    assert outcomes(rows)["VX205"] == "skipped"
    lower = outcomes(plant(GOOD, n=5) + trivial(5), thresholds=Thresholds(n_patients=4))
    assert set(lower.values()) == {"passed"}


def test_what_was_not_computed_is_skipped():
    found = judge([row(i, "map_peak", 0.5) for i in range(8)])
    passed = {code for code, (outcome, _) in found.items() if outcome == "passed"}
    assert passed == {"VX207", "VX211"}
    assert {outcome for outcome, _ in found.values()} == {"passed", "skipped"}
    assert found["VX201"][1] == (
        "no top_down randomisation was run; add randomisation to --metrics"
    )
    assert found["VX204"][1] == "energy_in_body was not computed; add utility to --metrics"
    assert found["VX208"][1] == "leakage was not computed; add curves to --metrics"
    assert found["VX202"][1].endswith("add utility or faithfulness to --metrics")
    assert (
        "no ssim of random pairs"
        in judge([row(i, "ssim", 0.1, stage="top_down:3") for i in range(8)])["VX201"][1]
    )
    only = [row(i, "ssim", 1.0, stage="top_down:0") for i in range(8)]
    assert judge(only)["VX201"][1].startswith("no top_down randomisation was run")
    assert judge(only)["VX211"] == ("skipped", "no original map was scored")


def test_what_was_asked_for_and_is_not_there_has_a_reason():
    found = judge([row(i, "map_peak", 0.5) for i in range(8)], groups=GROUPS)
    assert found["VX204"] == ("not applicable", "energy_in_body: no case has air around the body")
    assert found["VX205"][0] == found["VX206"][0] == "not applicable"
    assert "no true mask or box" in found["VX205"][1]
    assert found["VX208"] == ("skipped", "leakage was not computed")
    assert found["VX201"][1].endswith("add --order top_down")
    assert not any("--metrics" in evidence for _, evidence in found.values())


def test_what_has_no_value_is_not_applicable_with_its_flags():
    rows = plant(dict.fromkeys(GOOD, np.nan), flags="no change; empty mask", last=np.nan)
    found = judge(rows)
    for code in ("VX203", "VX204", "VX205", "VX206", "VX208", "VX209", "VX210"):
        outcome, evidence = found[code]
        assert outcome == "not applicable", code
        assert "in any of 8 scores: empty mask, no change" in evidence
    assert found["VX201"][0] == "not applicable"
    plain = judge([row(i, "completeness_gap", np.nan) for i in range(8)])["VX210"]
    assert plain[1].endswith("the metric does not apply")


def test_the_best_trivial_map_decides_and_a_given_map_does_not():
    rows = plant(GOOD) + trivial() + trivial(name="center", values={"average_precision": 0.63})
    found = judge(rows)["VX202"]
    assert found[0] == "issue"
    assert "best trivial map center" in found[1]
    rows = plant(GOOD) + trivial() + trivial(name="given:u.nii", values={"average_precision": 0.9})
    assert judge(rows)["VX202"][0] == "passed"
    assert judge(rows, thresholds=Thresholds(high_baselines=("none",)))["VX202"][0] == "issue"


def test_a_metric_whose_direction_is_lower_is_turned_round():
    """deletion_area 0.2 against 0.4 of the trivial map is better."""
    for value, expected in ((0.2, "passed"), (0.6, "issue")):
        rows = plant({"deletion_area": value}) + trivial(values={"deletion_area": 0.4})
        rows += trivial(name="center", values={"deletion_area": 0.45})
        found = judge(rows, thresholds=Thresholds(deciding=("deletion_area",)))["VX202"]
        assert found[0] == expected
        assert "best trivial map edges" in found[1]


def test_random_pairs_count_for_both_cases_and_models_for_both():
    """Each pair stands once in the table, under one of its two cases or models."""
    rows = [r for r in plant(GOOD) if r["stage"] != RANDOM_PAIRS or int(r["case"][1:]) % 2 == 0]
    assert "n = 8 cases" in judge(rows)["VX201"][1]
    repeat = [{**r, "model": "k", "against": "m"} for r in rows if r["stage"] == REPEAT]
    rows = [r for r in rows if r["stage"] != REPEAT] + repeat
    assert judge(rows)["VX212"][0] == "passed"


@pytest.mark.parametrize(("n_dead", "outcome"), [(0, "passed"), (1, "tip"), (3, "issue")])
def test_share_of_dead_maps(n_dead, outcome):
    rows = [
        row(i, metric, 0.5, flags="empty map; no change" if i < n_dead else "no change")
        for i in range(30) for metric in ("map_peak", "sparseness")
    ]  # fmt: skip
    found = judge(rows)["VX211"]
    assert found[0] == outcome
    assert found[1].startswith(f"{n_dead} of 30 maps")


def test_ignored_codes():
    found = judge(plant(BAD) + trivial(), ignore=["VX208", "VX101"])
    assert found["VX208"] == ("ignored", "you asked not to be told")
    assert found["VX209"][0] == "issue"
    with pytest.raises(MethodError, match="cannot ignore VX213: no such code"):
        judge(plant(GOOD), ignore=["VX213"])


def test_every_outcome_is_used():
    """Issue, passed, skipped, not applicable, tip and ignored can each be reached."""
    rows = plant({**GOOD, "leakage": 0.9, "completeness_gap": np.nan}, n=30)
    next(r for r in rows if r["metric"] == "map_peak")["flags"] = "empty map"
    rows = [r for r in rows if r["metric"] != "fill_agreement"]
    found = outcomes(rows, ignore=["VX204"])
    assert set(found.values()) == {
        "issue", "tip", "passed", "skipped", "not applicable", "ignored",
    }  # fmt: skip


def test_tables_are_checked():
    with pytest.raises(LabelError, match="the table summary has the columns"):
        checks_of(pd.DataFrame(columns=list(SCORES)), pd.DataFrame(), pd.DataFrame(), METRICS)
