"""What ``voxplain counterfactual evaluate`` prints: a row a method, and the verdicts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxplain.records.counterfactual_evaluation import CLASSIFIER, JUDGE, Evaluation
from voxplain.report.cohort_rows import counted
from voxplain.report.counterfactual_verdicts import (
    quality_of,
    quality_words,
    validity_of,
    verdicts,
)
from voxplain.report.wording import percent

_HEADS = (
    "method",
    "IoU tuned",
    "at",
    "IoU\nfixed",
    "Dice\ntuned",
    "CV clas-\nsifier",
    "CV\njudge",
)


def print_evaluation(evaluation: Evaluation, out: Path, *, quiet: bool = False) -> None:
    """Print overlap and validity of every method, the best first, the classifiers, and verdicts.

    Parameters
    ----------
    evaluation
        What was written.
    out
        Where, as the user named it.
    quiet
        Print nothing.
    """
    if quiet:
        return
    console = Console(highlight=False)
    methods = evaluation.tables["methods"].sort_values("iou_tuned", ascending=False, kind="stable")
    n_slices, n_patients = (int(methods[name].max()) for name in ("n_slices", "n_patients"))
    title = (
        f"{counted(n_slices, 'abnormal test slice')} of {counted(n_patients, 'patient')} "
        "with a known lesion"
        if n_slices
        else "no abnormal test slice has a known lesion"
    )
    table = Table(title=title, box=SIMPLE_HEAD, padding=0, collapse_padding=True)
    for head in _HEADS:
        is_text = head == "method"
        table.add_column(
            head, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text
        )
    for row in methods.to_dict("records"):
        told = [_validity(evaluation, str(row["method"]), by) for by in (CLASSIFIER, JUDGE)]
        table.add_row(
            Text(str(row["method"])), _interval(row, "iou_tuned"),
            _decimal(row["threshold_tuned"]), _decimal(row["iou_fixed"]),
            _decimal(row["dice_tuned"]), *told,
        )  # fmt: skip
    console.print(table)
    for by in (CLASSIFIER, JUDGE):
        if quality := quality_of(evaluation, by):
            console.print(Text(f"{by}: {quality_words(quality)}"), soft_wrap=True)
    for one in verdicts(evaluation):
        text = f"{one['outcome']}: {one['subject']}: {one['text']}"
        console.print(Text(text), soft_wrap=True)
    console.print(Text(str(out)), soft_wrap=True)


def _interval(row: dict[Any, Any], name: str) -> str:
    """Write a value with its interval, 0.61 [0.55, 0.66]."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    told = _decimal(row[name])
    is_known = not (math.isnan(low) or math.isnan(high))
    return f"{told} \\[{_decimal(low)}, {_decimal(high)}]" if is_known else told


def _decimal(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _validity(evaluation: Evaluation, method: str, by: str) -> str:
    row = validity_of(evaluation.tables["validity"], method, by)
    return "–" if row is None else percent(float(row["validity"]))
