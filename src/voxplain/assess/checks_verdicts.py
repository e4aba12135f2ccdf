"""What is asked of one model and method, check by check: codes VX201 to VX212."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import numpy as np

from voxplain.assess.cascade import PREDICTION_CHANGE
from voxplain.assess.checks_subject import Mean, Subject, Verdict
from voxplain.assess.performance import PREDICTION_AGREEMENT
from voxplain.records.assessment import BASELINE, RANDOM_PAIRS, REPEAT

BY_INTERVAL = ("VX201", "VX202", "VX205", "VX209", "VX212")
"""Checks whose verdict is drawn from an interval over patients."""

_STABILITY = ("stability_flip", "stability_shift", "stability_noise")
_ABSENT = {
    "energy_in_body": "no case has air around the body",
    "normalised_average_precision": "no true mask or box of a target is known in any case",
    "fill_agreement": "the method has no fill",
}
"""Why a metric is not there though its group was asked for."""
_TOO_FEW = "too few to say (VX207): "


def _too_few(subject: Subject, n_patients: int) -> Verdict:
    needed = subject.limits.n_patients
    return "skipped", f"{_TOO_FEW}{n_patients} patients, at least {needed} are needed"


def _mean_or_reason(subject: Subject, metric: str) -> Mean | Verdict:
    mean = subject.mean(metric)
    if mean is None:
        hint = subject.missing(metric)
        if not hint and metric in _ABSENT:
            return "not applicable", f"{metric}: {_ABSENT[metric]}"
        return "skipped", f"{metric} was not computed{hint}"
    if not mean.n:
        return "not applicable", subject.undefined(metric)
    return mean


def _limited(subject: Subject, *, metric: str, highest: bool, limit: str) -> Verdict:
    """Hold a mean against a limit, whatever its interval."""
    mean = _mean_or_reason(subject, metric)
    if not isinstance(mean, Mean):
        return mean
    line = getattr(subject.limits, limit)
    is_beyond = mean.value > line if highest else mean.value < line
    word = "at most" if highest else "at least"
    return "issue" if is_beyond else "passed", f"{metric} {mean}; {word} {line:g} is expected"


def _above_zero(subject: Subject, *, metric: str) -> Verdict:
    """Ask that a mean's whole interval is above 0."""
    mean = _mean_or_reason(subject, metric)
    if not isinstance(mean, Mean):
        return mean
    if mean.n_patients < subject.limits.n_patients:
        return _too_few(subject, mean.n_patients)
    if mean.low > 0:
        return "passed", f"{metric} {mean}: above 0"
    return "issue", f"{metric} {mean}: the interval reaches 0 or lies below"


def _randomisation(subject: Subject) -> Verdict:
    step = subject.last_step()
    if step is None:
        hint = subject.missing(PREDICTION_CHANGE.name) or f"; add --order {subject.limits.order}"
        return "skipped", f"no {subject.limits.order} randomisation was run{hint}"
    return _against_random_pairs(subject, step, is_below=True)


def _repeatability(subject: Subject) -> Verdict:
    if not len(subject.rows(REPEAT)):
        hint = subject.missing(PREDICTION_AGREEMENT.name)
        return (
            "skipped",
            f"maps of a second training were not compared; give two models or more{hint}",
        )
    return _against_random_pairs(subject, REPEAT, is_below=False)


def _against_random_pairs(subject: Subject, stage: str, *, is_below: bool) -> Verdict:
    """Ask that a stage's similarity is below (above) that of maps of different images."""
    metric = subject.limits.similarity
    for name in (stage, RANDOM_PAIRS):
        rows = subject.rows(name)
        if not len(rows):
            return "skipped", f"no {metric} of {name}; it needs cases of two patients at least"
        if rows["value"].isna().all():
            return "not applicable", f"{metric} of {name} has no value in any of {len(rows)} scores"
    random, mean = subject.less_random_pairs(stage)
    if mean.n_patients < subject.limits.n_patients:
        return _too_few(subject, mean.n_patients)
    side = "below" if is_below else "above"
    evidence = f"{metric} at {stage} less that of random pairs ({random:.3g}): {mean}"
    if (mean.high < 0) if is_below else (mean.low > 0):
        return "passed", f"{evidence}: {side}"
    return "issue", f"{evidence}: not {side}"


def _trivial_maps(subject: Subject) -> Verdict:
    """Ask that the method is better than each trivial map in every deciding metric."""
    directions = {metric.name: metric.direction for metric in subject.metrics}
    told: list[str] = []
    is_beaten, n_fewest = False, []
    for metric in subject.limits.deciding:
        rows = subject.rivals(metric)
        rows = rows[rows["difference"].notna()]
        if not len(rows):
            continue
        sign = -1.0 if directions.get(metric) == "lower" else 1.0
        best = rows.iloc[int(np.argmin(sign * rows["difference"].to_numpy(float)))]
        ends = rows[["low", "high"]].to_numpy(float) * sign
        n_fewest.append(int(rows["n_patients"].min()))
        is_better = bool((np.min(ends, axis=1) > 0).all())
        is_beaten |= not is_better
        gain = Mean(
            float(best["difference"]), float(best["low"]), float(best["high"]), int(best["n"]),
            int(best["n_patients"]),
        )  # fmt: skip
        told.append(
            f"{metric}: best trivial map {best['rival'].removeprefix(BASELINE)}, method less map "
            f"{gain}, effect {best['effect']:.2g}, corrected p {best['p_holm']:.2g}: "
            + ("better than all" if is_better else "not better than all")
        )
    if not told:
        wanted = " nor ".join(subject.limits.deciding)
        hint = subject.missing(*subject.limits.deciding)
        return "skipped", f"neither {wanted} was compared with a trivial map{hint}"
    if min(n_fewest) < subject.limits.n_patients:
        return _too_few(subject, min(n_fewest))
    return "issue" if is_beaten else "passed", "; ".join(told)


def _unstable(subject: Subject) -> Verdict:
    lines = {"average_sensitivity": subject.limits.average_sensitivity}
    lines |= dict.fromkeys(_STABILITY, subject.limits.stability)
    known = {name: subject.mean(name) for name in lines}
    computed = {name: mean for name, mean in known.items() if mean is not None}
    if not computed:
        return "skipped", f"none of {', '.join(lines)} was computed{subject.missing(*lines)}"
    defined = {name: mean for name, mean in computed.items() if mean.n}
    if not defined:
        return "not applicable", "; ".join(subject.undefined(name) for name in computed)
    beyond = [
        name
        for name, mean in defined.items()
        if (mean.value > lines[name] if name == "average_sensitivity" else mean.value < lines[name])
    ]
    if beyond:
        words = {True: "at most", False: "at least"}
        return "issue", "; ".join(
            f"{name} {defined[name]}; {words[name == 'average_sensitivity']} {lines[name]:g} is "
            "expected"
            for name in beyond
        )
    return "passed", "; ".join(f"{name} {mean}" for name, mean in defined.items())


def _patients(subject: Subject) -> Verdict:
    n, needed = subject.n_patients(), subject.limits.n_patients
    if n >= needed:
        return "passed", f"{n} patients, at least {needed} are needed"
    judged = {code: CHECKS[code](subject) for code in BY_INTERVAL}
    codes = [code for code, (_, evidence) in judged.items() if evidence.startswith(_TOO_FEW)]
    told = f"; not judged: {', '.join(codes)}" if codes else ""
    return "issue", f"{n} patients, at least {needed} are needed{told}"


def _dead_maps(subject: Subject) -> Verdict:
    n, n_dead = subject.maps()
    if not n:
        return "skipped", "no original map was scored"
    evidence = f"{n_dead} of {n} maps are zero everywhere or have one value everywhere"
    if not n_dead:
        return "passed", evidence
    return "issue" if n_dead / n >= subject.limits.flagged_share else "tip", evidence


def _limit(metric: str, *, highest: bool) -> Callable[[Subject], Verdict]:
    return partial(_limited, metric=metric, highest=highest, limit=metric)


CHECKS: Mapping[str, Callable[[Subject], Verdict]] = MappingProxyType(
    {
        "VX201": _randomisation,
        "VX202": _trivial_maps,
        "VX203": _unstable,
        "VX204": _limit("energy_in_body", highest=False),
        "VX205": partial(_above_zero, metric="normalised_average_precision"),
        "VX206": _limit("fill_agreement", highest=False),
        "VX207": _patients,
        "VX208": _limit("leakage", highest=True),
        "VX209": partial(_above_zero, metric="faithfulness_correlation"),
        "VX210": _limit("completeness_gap", highest=True),
        "VX211": _dead_maps,
        "VX212": _repeatability,
    }
)
"""Every check of an assessment by its code."""
