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

GOOD = 0.8
"""Least AUROC of a classifier whose answers tell repairs from tricks."""

MOST_ROWS = 5
"""Generators that have a row each."""

_MEANINGS = {
    "repair": "A classifier that they never met agrees that the lesion is gone",
    "trick": "Other classifiers still see the lesion",
    "redrawn": "They redraw the picture: it is further from the clean one than with its anomaly",
    "not judged": "No good judge tells whether these are repairs or tricks",
    "fails": "What they change does not explain the classifier",
    "not known": "No validity could be measured",
}

COUNTERFACTUAL, ATTRIBUTION, INTENSITY = KINDS
_KIND_WORDS = {ATTRIBUTION: "the best attribution method, ", INTENSITY: "plain "}
_AMONG = ("leads", "is not told apart from", "is behind")
_DIFFERENCE = ("difference", "low", "high")

Style = Literal["passed", "tip", "issue", ""]
_PASSED: Style = "passed"
_ISSUE: Style = "issue"
Row = dict[Any, Any]


def verdicts(evaluation: Evaluation) -> list[dict[str, str]]:
    """Say how good the best generator is against maps, and whether repairs are repairs.

    Returns
    -------
    list of dict
        ``style, outcome, subject, text``: the overlap with the truth first, then classifiers
        that are not good, then a row a generator, the best on validation slices first; of more
        than `MOST_ROWS` generators a row an outcome.
    """
    generators = ordered(of_kind(evaluation.tables["methods"], COUNTERFACTUAL))
    repairs = [_repair(evaluation, str(row["method"])) for row in generators]
    if len(repairs) > MOST_ROWS:
        repairs = _grouped(evaluation, repairs)
    return [_overlap(evaluation), *_weak(evaluation), *repairs]


def ordered(rows: list[Row]) -> list[Row]:
    """Return rows by falling IoU on validation slices; as they were where it is not known."""
    return sorted(rows, key=lambda row: -_known(row["iou_validation"]))


def best_generator(evaluation: Evaluation) -> Row | None:
    """Return the row of the generator with the largest IoU on validation slices, if known."""
    rows = of_kind(evaluation.tables["methods"], COUNTERFACTUAL)
    return _largest(rows, "iou_validation")


def of_kind(methods: pd.DataFrame, kind: str) -> list[Row]:
    """Return the rows of one kind of method."""
    return methods[methods["kind"] == kind].to_dict("records")


def quality_of(evaluation: Evaluation, by: str) -> Row | None:
    """Return how good the classifier or the judge is; None if it was not asked."""
    rows = evaluation.tables["classifiers"]
    rows = rows[rows["by"] == by]
    return None if rows.empty else dict(rows.iloc[0])


def is_good(quality: Row | None) -> bool:
    """Whether an AUROC is known and at least `GOOD`."""
    return quality is not None and float(quality["auroc"]) >= GOOD


def quality_words(quality: Row) -> str:
    """Write how good a classifier is: AUROC with its interval, sensitivity, specificity."""
    values = (float(quality[f"auroc{end}"]) for end in ("", "_low", "_high"))
    auroc = "AUROC –" if math.isnan(quality["auroc"]) else f"AUROC {_interval(*values)}"
    return (
        f"{auroc}, sensitivity {percent(quality['sensitivity'])}, specificity "
        f"{percent(quality['specificity'])} of {counted(int(quality['n_slices']), 'test slice')}"
    )


def validity_of(validity: pd.DataFrame, method: str, by: str) -> Row | None:
    """Return the row of a generator and classifier at the first τ; None if there is none."""
    rows = validity[(validity["method"] == method) & (validity["by"] == by)]
    return None if rows.empty else dict(rows.iloc[0])


def _known(value: float) -> float:
    return -math.inf if math.isnan(value) else value


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


def _weak(evaluation: Evaluation) -> list[dict[str, str]]:
    """Name classifiers whose answers tell little."""
    found = []
    for by, what in (
        (CLASSIFIER, "What turns it need not be a lesion."),
        (JUDGE, "It cannot tell a repair from a trick."),
    ):
        quality = quality_of(evaluation, by)
        if quality is None or is_good(quality):
            continue
        outcome = "not known" if math.isnan(quality["auroc"]) else "weak"
        why = f" ({quality['note']})" if quality["note"] else ""
        text = f"{quality_words(quality)}{why}; {GOOD:g} or more is expected. {what}"
        found.append(_verdict("tip" if outcome == "not known" else "issue", outcome, by, text))
    return found


def _overlap(evaluation: Evaluation) -> dict[str, str]:
    methods = evaluation.tables["methods"]
    best = best_generator(evaluation)
    if best is None or math.isnan(best["iou_tuned"]):
        text = (
            "Masks are judged only where the true lesions are known, both in test and in "
            "validation slices. Here they are missing, so only this is judged: whether the "
            "repairs turn the classifiers."
        )
        return _verdict("", "not known", "overlap", text)
    rivals = [_largest(of_kind(methods, kind), "iou_tuned") for kind in (ATTRIBUTION, INTENSITY)]
    known = [row for row in rivals if row is not None]
    text = f"IoU with the true lesions, thresholds tuned on validation slices: {_told(best)}"
    rest = "".join(f"; {_KIND_WORDS[row['kind']]}{_told(row)}" for row in known)
    text += f"{rest}.{_among(evaluation, best)}"
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


def _among(evaluation: Evaluation, best: Row) -> str:
    """Say how the chosen generator does against the other generators on test slices."""
    generators = of_kind(evaluation.tables["methods"], COUNTERFACTUAL)
    names: dict[str, list[str]] = {word: [] for word in _AMONG}
    for row in ordered(generators):
        if row["method"] == best["method"] or math.isnan(row["iou_tuned"]):
            continue
        _, low, high = _lead(evaluation.tables["differences"], best, row)
        where = "leads" if low > 0 else "is behind" if high < 0 else "is not told apart from"
        names[where].append(str(row["method"]))
    told = [f"{word} {', '.join(found)}" for word, found in names.items() if found]
    return f" Of the generators {best['method']} {'; '.join(told)}." if told else ""


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
    quality = quality_of(evaluation, JUDGE)
    if not is_good(quality):
        value = math.nan if quality is None else float(quality["auroc"])
        what = "is not known" if math.isnan(value) else f"is {value:.2f}"
        text += (
            f", the judge in {percent(other['validity'])}; but the judge's AUROC {what}, so it "
            "does not tell whether this is a repair or a trick."
        )
        return _verdict("tip", "not judged", method, text)
    text += f", the judge in {percent(other['validity'])} of {int(other['n_above'])}: "
    if own["validity"] - other["validity"] > TRICK:
        return _verdict("issue", "trick", method, text + "other classifiers still see the lesion.")
    redrawn = _redrawn(evaluation, method)
    outcome, style = ("redrawn", _ISSUE) if redrawn else ("repair", _PASSED)
    text += redrawn or "a classifier that it never met agrees that it is gone."
    return _verdict(style, outcome, method, text)


def _redrawn(evaluation: Evaluation, method: str) -> str:
    """Say so where a repair is further from the clean picture than the anomaly had been."""
    table = evaluation.tables["repairs"]
    for row in table[table["method"] == method].to_dict("records"):
        after, before = float(row["psnr"]), float(row["psnr_input"])
        if after < before:  # false where either is not known
            return (
                f"but x′ is further from the clean picture ({after:.1f} dB) than the anomaly was "
                f"({before:.1f} dB); it redraws more than it repairs."
            )
    return ""


def _grouped(evaluation: Evaluation, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Make a row an outcome of rows of generators; in it the two validities of each."""
    table, found = evaluation.tables["validity"], []
    for outcome in dict.fromkeys(row["outcome"] for row in rows):
        own = [row for row in rows if row["outcome"] == outcome]
        told = []
        for name in (row["subject"] for row in own):
            pair = [validity_of(table, name, by) for by in (CLASSIFIER, JUDGE)]
            shares = [percent(row["validity"]) for row in pair if row is not None]
            numbers = ", ".join(shares).replace(" %", "\u00a0%")  # not across two lines
            told.append(f"{name} {numbers}" if shares else name)
        whom = "the classifier" + (", the judge" if (table["by"] == JUDGE).any() else "")
        text = f"{_MEANINGS[outcome]}. Slices that turn {whom}: {'; '.join(told)}."
        style, subject = own[0]["style"], counted(len(own), "generator")
        found.append({"style": style, "outcome": outcome, "subject": subject, "text": text})
    return found


def _verdict(style: Style, outcome: str, subject: str, text: str) -> dict[str, str]:
    return {"style": style, "outcome": outcome, "subject": subject, "text": text}
