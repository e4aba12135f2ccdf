"""The tables of numbers on the page of an assessment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from voxplain.records.assessment import ALL_TARGETS, REPEAT, REPRODUCE
from voxplain.records.metric import Metric
from voxplain.report.assess_tables import FAMILIES, Tables, is_rival, is_trivial, said
from voxplain.report.wording import number

N_COLUMNS = 6
"""Metrics side by side; a family of more is told in several tables."""


def summary_tables(tables: Tables, model: str, target: str = ALL_TARGETS) -> list[dict[str, Any]]:
    """Give tables for each family of metrics: methods, then trivial maps, against metrics.

    Parameters
    ----------
    tables, model, target
        What is told.

    Returns
    -------
    list of dict
        One for at most `N_COLUMNS` metrics: ``family``, ``question`` (empty from the second of
        a family on), ``heads``, ``methods`` and ``trivial``: rows of a label and cells. A cell
        holds texts, its ``value``, whether it ``is_best``: the best mean of the methods, where
        there are two or more and the metric has a direction, and ``beaten_by``: the trivial map
        of the best mean, if that is better than the best method's, else empty.
    """
    own = tables.summary(model, target=target)
    found = []
    for family, question in FAMILIES.items():
        metrics = [m for m in tables.metrics(list(own["metric"])) if m.family == family]
        if not metrics:
            continue
        for i, block in enumerate(_blocks(metrics)):
            table = _family_table(tables, own, block)
            found.append({"family": family, "question": "" if i else question, **table})
    return found


def _blocks(metrics: Sequence[Metric]) -> list[Sequence[Metric]]:
    """Split metrics into runs of nearly equal length, none longer than a table is wide."""
    n_blocks = -(-len(metrics) // N_COLUMNS)
    size = -(-len(metrics) // n_blocks)
    return [metrics[at : at + size] for at in range(0, len(metrics), size)]


def _family_table(tables: Tables, own: pd.DataFrame, metrics: Sequence[Metric]) -> dict[str, Any]:
    means = {m.name: keyed(own[own["metric"] == m.name], "method") for m in metrics}
    groups: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for label in tables.labels:
        cells = [_cell(means[m.name], label, m) for m in metrics]
        if any(cells):
            groups[is_trivial(label)].append({"label": said(label), "cells": cells})
    return {
        "heads": [{"text": tables.head(m.name), "summary": m.summary} for m in metrics],
        "methods": groups[False],
        "trivial": groups[True],
    }


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
    is_best, beaten_by = _rank(rows, label, metric)
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
        "beaten_by": beaten_by,
    }


def _rank(rows: dict[str, dict[Any, Any]], label: str, metric: Metric) -> tuple[bool, str]:
    """Whether a method has the best mean of the methods, and the trivial map that beats it."""
    means = {name: float(row["mean"]) for name, row in rows.items()}
    means = {name: mean for name, mean in means.items() if not np.isnan(mean)}
    methods = [mean for name, mean in means.items() if not is_trivial(name)]
    if metric.direction == "none" or is_trivial(label) or len(methods) < 2:
        return False, ""
    sign = 1 if metric.direction == "higher" else -1
    if means.get(label) != sign * max(sign * mean for mean in methods):
        return False, ""
    rivals = {name: sign * mean for name, mean in means.items() if is_rival(name)}
    first = max(rivals, key=rivals.__getitem__, default="")
    return True, said(first) if first and rivals[first] > sign * means[label] else ""


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
