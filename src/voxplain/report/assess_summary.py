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
        means = {
            metric.name: own[own["metric"] == metric.name].set_index("method") for metric in metrics
        }
        rows = [
            {"label": said(label), "is_trivial": is_trivial(label),
             "cells": [_cell(means[m.name], label, m) for m in metrics]}
            for label in tables.labels if label in set(own["method"])
        ]  # fmt: skip
        rows = [row for row in rows if any(row["cells"])]
        if not rows:
            continue
        found.append(
            {
                "family": family,
                "question": question,
                "heads": [{"text": tables.head(m.name), "summary": m.summary} for m in metrics],
                "methods": [row for row in rows if not row["is_trivial"]],
                "trivial": [row for row in rows if row["is_trivial"]],
            }
        )
    return found


def _cell(rows: pd.DataFrame, label: str, metric: Metric) -> dict[str, Any] | None:
    if label not in rows.index:
        return None
    row = rows.loc[label]
    means = rows[[not is_trivial(str(one)) for one in rows.index]]["mean"].dropna()
    is_best = False
    if metric.direction != "none" and len(means) > 1 and not is_trivial(label):
        is_best = row["mean"] == (means.max() if metric.direction == "higher" else means.min())
    spread = "" if np.isnan(row["sd"]) else f" ± {number(float(row['sd']))}"
    ends = [f"n {int(row['n'])}"]
    if not np.isnan(row["low"]):
        ends.insert(0, f"{number(float(row['low']))} to {number(float(row['high']))}")
    if row["n_undefined"]:
        ends.append(f"{int(row['n_undefined'])} undefined")
    return {
        "mean": number(float(row["mean"])) + spread,
        "median": number(float(row["median"])),
        "ends": "; ".join(ends),
        "value": float(row["mean"]),
        "is_best": bool(is_best),
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
            known = part.set_index("metric")
            cells = [_cell_of_model(known, metric.name) for metric in metrics]
            if any(cells):
                rows.append({"model": model, "target": target, "cells": cells})
    return {"heads": [tables.head(metric.name) for metric in metrics], "rows": rows}


def _cell_of_model(rows: pd.DataFrame, metric: str) -> str:
    if metric not in rows.index:
        return ""
    row = rows.loc[metric]
    spread = "" if np.isnan(row["sd"]) else f" ± {number(float(row['sd']))}"
    return f"{number(float(row['mean']))}{spread} (n {int(row['n'])})"


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
