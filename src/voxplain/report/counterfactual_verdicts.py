"""What an evaluation of counterfactuals says in a few sentences."""

from __future__ import annotations

import math
from typing import Any, Literal

import pandas as pd

from voxplain.records.counterfactual_evaluation import CLASSIFIER, JUDGE, KINDS, Evaluation
from voxplain.report.cohort_rows import counted
from voxplain.report.wording import percent

TRICK = 0.2
"""A generator tricks the classifier if the judge's validity is lower by more than this."""
VALID = 0.5
"""Least validity of a generator that turns the classifier at all."""

COUNTERFACTUAL, ATTRIBUTION, INTENSITY = KINDS
_KIND_WORDS = {ATTRIBUTION: "the best attribution method, ", INTENSITY: "plain "}
_DIFFERENCE = ("difference", "low", "high")

Style = Literal["passed", "tip", "issue", ""]
Row = dict[Any, Any]


def verdicts(evaluation: Evaluation) -> list[dict[str, str]]:
    """Say how good the best generator is against maps, and whether repairs are repairs.

    Returns
    -------
    list of dict
        ``style, outcome, subject, text``: the overlap with the truth first, then a row a
        generator.
    """
    generators = of_kind(evaluation.tables["methods"], COUNTERFACTUAL)
    return [_overlap(evaluation), *(_repair(evaluation, str(row["method"])) for row in generators)]


def best_generator(evaluation: Evaluation) -> Row | None:
    """Return the row of the generator with the largest IoU on validation slices, if known."""
    rows = of_kind(evaluation.tables["methods"], COUNTERFACTUAL)
    return _largest(rows, "iou_validation")


def of_kind(methods: pd.DataFrame, kind: str) -> list[Row]:
    """Return the rows of one kind of method."""
    return methods[methods["kind"] == kind].to_dict("records")


def validity_of(validity: pd.DataFrame, method: str, by: str) -> Row | None:
    """Return the row of a generator and classifier at the first τ; None if there is none."""
    rows = validity[(validity["method"] == method) & (validity["by"] == by)]
    return None if rows.empty else dict(rows.iloc[0])


def _largest(rows: list[Row], column: str) -> Row | None:
    known = [row for row in rows if not math.isnan(row[column])]
    return max(known, key=lambda row: row[column], default=None)


def _told(row: Row) -> str:
    values = (float(row[f"iou_tuned{end}"]) for end in ("", "_low", "_high"))
    return f"{row['method']} {_interval(*values)}"


def _interval(value: float, low: float, high: float) -> str:
    """Write a value with its interval, 0.62 (0.59 to 0.65)."""
    is_known = not (math.isnan(low) or math.isnan(high))
    ends = f" ({low:.2f} to {high:.2f})" if is_known else " (no interval)"
    return f"{value:.2f}{ends}".replace("-", "−")


def _overlap(evaluation: Evaluation) -> dict[str, str]:
    methods = evaluation.tables["methods"]
    best = best_generator(evaluation)
    if best is None or math.isnan(best["iou_tuned"]):
        text = (
            "Masks are judged where lesions are known, in the test and in the validation slices, "
            "and they are not; below stands whether the classifiers are turned."
        )
        return _verdict("", "not known", "overlap", text)
    rivals = [_largest(of_kind(methods, kind), "iou_tuned") for kind in (ATTRIBUTION, INTENSITY)]
    known = [row for row in rivals if row is not None]
    text = f"IoU with the true lesions, thresholds tuned on validation slices: {_told(best)}"
    text += "".join(
        f"; {_KIND_WORDS[row['kind']]}{_told(row)}" for row in known
    ) + "."  # fmt: skip
    leads = [_lead(evaluation.tables["differences"], best, row) for row in known]
    if leads:
        told = [
            f"{row['method']} by {_interval(*lead)}" for row, lead in zip(known, leads, strict=True)
        ]
        text += f" Paired, {best['method']} leads {' and '.join(told)}."
    if not leads:
        return _verdict("", "alone", "overlap", text)
    if any(high < 0 for _, _, high in leads):
        return _verdict("issue", "worse", "overlap", text)
    if all(low > 0 for _, low, _ in leads):
        return _verdict("passed", "better", "overlap", text)
    return _verdict("tip", "not told apart", "overlap", text)


def _lead(differences: pd.DataFrame, best: Row, other: Row) -> tuple[float, float, float]:
    """Return IoU of the best generator less another method's, with its paired interval."""
    of_iou = differences[differences["metric"] == "iou_tuned"]
    for first, second, sign in ((best, other, 1), (other, best, -1)):
        rows = of_iou[(of_iou["method"] == first["method"]) & (of_iou["rival"] == second["method"])]
        if len(rows):
            value, *ends = (sign * float(rows[name].iloc[0]) for name in _DIFFERENCE)
            low, high = ends[::sign]
            return value, low, high
    return float(best["iou_tuned"] - other["iou_tuned"]), math.nan, math.nan


def _repair(evaluation: Evaluation, method: str) -> dict[str, str]:
    validity = evaluation.tables["validity"]
    own, other = (validity_of(validity, method, by) for by in (CLASSIFIER, JUDGE))
    if own is None or math.isnan(own["validity"]):
        why = own["note"] if own is not None and own["note"] else "nothing was measured"
        return _verdict("", "not known", method, f"Validity is not known: {why}.")
    text = (
        f"Turns the classifier in {percent(own['validity'])} of "
        f"{counted(int(own['n_above']), 'slice')} (probability falls by more than {own['tau']:g})"
    )
    if own["validity"] < VALID:
        return _verdict("issue", "fails", method, f"{text}: what it changes does not explain it.")
    if other is None or math.isnan(other["validity"]):
        text += ". No judge tells whether this is a repair or a trick."
        return _verdict("tip", "not judged", method, text)
    text += f", the judge in {percent(other['validity'])} of {int(other['n_above'])}: "
    if own["validity"] - other["validity"] > TRICK:
        return _verdict("issue", "trick", method, text + "other classifiers still see the lesion.")
    return _verdict(
        "passed", "repair", method, text + "a classifier that it never met agrees that it is gone."
    )


def _verdict(style: Style, outcome: str, subject: str, text: str) -> dict[str, str]:
    return {"style": style, "outcome": outcome, "subject": subject, "text": text}
