"""The tables of numbers on the page of an assessment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from voxplain.records.assessment import ALL_TARGETS, REPEAT, REPRODUCE
from voxplain.records.metric import Metric
from voxplain.report.assess_tables import FAMILIES, Tables, is_trivial, said
from voxplain.report.wording import number

N_ROWS = 1000
"""Rows of comparisons that are shown; the rest is counted."""


def summary_tables(tables: Tables, model: str, target: str = ALL_TARGETS) -> list[dict[str, Any]]:
    """Give a table for each family of metrics: methods, then trivial maps, against metrics.

    Parameters
    ----------
    tables, model, target
        What is told.

    Returns
    -------
    list of dict
        ``family``, ``question``, ``heads``, ``methods`` and ``trivial``: rows of a label and
        cells. A cell holds texts, its ``value``, and whether it ``is_best``: the best mean of
        the methods, where there are two or more and the metric has a direction.
    """
    own = tables.summary(model, target=target)
    found = []
    for family, question in FAMILIES.items():
        metrics = [m for m in tables.metrics(list(own["metric"])) if m.family == family]
        if not metrics:
            continue
        means = {m.name: keyed(own[own["metric"] == m.name], "method") for m in metrics}
        groups: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        for label in tables.labels:
            cells = [_cell(means[m.name], label, m) for m in metrics]
            if any(cells):
                groups[is_trivial(label)].append({"label": said(label), "cells": cells})
        found.append(
            {
                "family": family,
                "question": question,
                "heads": [{"text": tables.head(m.name), "summary": m.summary} for m in metrics],
                "methods": groups[False],
                "trivial": groups[True],
            }
        )
    return found


def keyed(rows: pd.DataFrame, column: str) -> dict[str, dict[Any, Any]]:
    """Give rows by what one column holds."""
    return {str(row[column]): row for row in rows.to_dict("records")}


def spread(row: dict[Any, Any]) -> str:
    """Write mean ± standard deviation of a row of the summary."""
    sd = float(row["sd"])
    return number(float(row["mean"])) + ("" if np.isnan(sd) else f" ± {number(sd)}")


def _cell(rows: dict[str, dict[Any, Any]], label: str, metric: Metric) -> dict[str, Any] | None:
    if label not in rows:
        return None
    row = rows[label]
    mean, low, high = (float(row[name]) for name in ("mean", "low", "high"))
    means = [float(one["mean"]) for name, one in rows.items() if not is_trivial(name)]
    means = [one for one in means if not np.isnan(one)]
    is_best = False
    if metric.direction != "none" and len(means) > 1 and not is_trivial(label):
        is_best = mean == (max(means) if metric.direction == "higher" else min(means))
    ends = [f"n {int(row['n'])}"]
    if not np.isnan(low):
        ends.insert(0, f"{number(low)} to {number(high)}")
    if row["n_undefined"]:
        ends.append(f"{int(row['n_undefined'])} undefined")
    return {
        "mean": spread(row),
        "median": number(float(row["median"])),
        "ends": "; ".join(ends),
        "value": mean,
        "is_best": is_best,
    }


def comparison_rows(tables: Tables, model: str) -> tuple[list[dict[str, Any]], int]:
    """Give the comparisons of a model's methods with trivial maps, and how many are left out.

    Notes
    -----
    ``verdict`` is read off the interval of the difference and the metric's direction.
    """
    rows = tables.assessment.comparisons
    rows = rows[rows["model"] == model]
    shown = rows.head(N_ROWS).to_dict("records")
    return [_comparison(tables, row) for row in shown], len(rows) - len(shown)


def _comparison(tables: Tables, row: dict[Any, Any]) -> dict[str, Any]:
    metric = next((m for m in tables.assessment.metrics if m.name == row["metric"]), None)
    low, high = float(row["low"]), float(row["high"])
    sign = -1 if metric is not None and metric.direction == "lower" else 1
    if np.isnan(low) or np.isnan(high):
        verdict = "no interval"
    elif low > 0 or high < 0:
        verdict = "better" if sign * low > 0 else "worse"
    else:
        verdict = "not told apart"
    note = row.get("note")
    return {
        "method": row["method"], "rival": said(str(row["rival"])),
        "metric": tables.head(str(row["metric"])), "verdict": verdict,
        "style": {"better": "passed", "worse": "issue"}.get(verdict, "open"),
        "sign": {"better": "▲", "worse": "▼", "not told apart": "="}.get(verdict, "–"),
        "n": int(row["n"]), "n_patients": int(row["n_patients"]),
        "difference": float(row["difference"]), "effect": float(row["effect"]),
        "p": float(row["p"]), "p_holm": float(row["p_holm"]),
        "interval": "–" if np.isnan(low) else f"{number(low)} to {number(high)}",
        "note": note if isinstance(note, str) else "",
    }  # fmt: skip


def performance_table(tables: Tables) -> dict[str, Any] | None:
    """Give how good the models are themselves, a row a model and target; None if not known."""
    own = tables.of_model()
    metrics = tables.metrics(list(own["metric"]))
    if not metrics:
        return None
    targets = [ALL_TARGETS, *tables.targets] if len(tables.targets) > 1 else [ALL_TARGETS]
    rows = []
    for model in tables.models:
        for target in targets:
            part = own[(own["model"] == model) & (own["target"] == target)]
            known = keyed(part, "metric")
            cells = [
                f"{spread(known[m.name])} (n {int(known[m.name]['n'])})" if m.name in known else ""
                for m in metrics
            ]
            if any(cells):
                rows.append({"model": model, "target": target, "cells": cells})
    return {"heads": [tables.head(metric.name) for metric in metrics], "rows": rows}


def agreement_rows(tables: Tables) -> list[dict[str, Any]]:
    """Give how far the predictions of every two models agree: the mean over cases and targets."""
    scores = tables.assessment.scores
    rows = scores[scores["stage"].isin([REPEAT, REPRODUCE]) & (scores["method"] == "")]
    return [
        {"model": model, "against": against, "stage": stage, "metric": tables.head(str(metric)),
         "mean": number(float(part["value"].mean())), "n": part["case"].nunique()}
        for (stage, model, against, metric), part in rows.groupby(
            ["stage", "model", "against", "metric"], sort=False
        )
    ]  # fmt: skip


def meanings(tables: Tables) -> list[dict[str, str]]:
    """Give what each metric means."""
    return [
        {"name": tables.head(m.name), "family": m.family, "summary": m.summary.rstrip("."),
         "policy": m.policy.rstrip("."), "source": m.source}
        for m in tables.assessment.metrics
    ]  # fmt: skip
