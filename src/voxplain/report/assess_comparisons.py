"""Methods compared with trivial maps, metric by metric."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from voxplain.report.assess_tables import Tables, count, said
from voxplain.report.wording import number

N_ROWS = 1000
"""Rows of comparisons that are shown; the rest is counted."""

LEVEL = 0.05
"""p from which on a test says nothing."""

_SIGNS = {"better": "▲", "worse": "▼", "not told apart": "=", "no interval": "–"}
_STYLES = {"better": "passed", "worse": "issue"}


def comparison_rows(tables: Tables, model: str) -> tuple[list[dict[str, Any]], int]:
    """Give the comparisons of a model's methods with trivial maps, and how many are left out.

    Notes
    -----
    ``verdict`` is read off the interval of the difference and the metric's direction, not off p.
    """
    rows = tables.assessment.comparisons
    rows = rows[rows["model"] == model]
    shown = rows.head(N_ROWS).to_dict("records")
    return [_comparison(tables, row) for row in shown], len(rows) - len(shown)


def comparison_groups(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Group rows of `comparison_rows` by metric, in the order in which metrics first occur.

    Returns
    -------
    list of dict
        ``metric``; ``rows``; ``counts`` of each verdict and ``power``, what p can be reached, in
        words.
    """
    found = []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        own = [row for row in rows if row["metric"] == metric]
        verdicts = [row["verdict"] for row in own]
        counts = [f"{verdicts.count(one)} {one}" for one in _SIGNS if one in verdicts]
        found.append(
            {"metric": metric, "rows": own, "counts": ", ".join(counts), "power": _power(own)}
        )
    return found


def least_p(n_patients: int, n_rows: int) -> tuple[float, float, int]:
    """Return the smallest p that a number of patients and of comparisons allows.

    Parameters
    ----------
    n_patients
        n, at least 1: pairs of the signed-rank test.
    n_rows
        m, at least 1: tests that Holm's correction is over.

    Returns
    -------
    tuple
        p = 2 · ½ⁿ, where all differences have one sign; the smallest corrected p, min(1, m p);
        and the least n for which that is at most `LEVEL`.
    """
    p = 2.0 ** (1 - n_patients)
    return p, min(1.0, n_rows * p), math.ceil(1 + math.log2(n_rows / LEVEL))


def _power(rows: list[dict[str, Any]]) -> str:
    """Say what p the comparisons of one model and metric can reach; empty if none was tested."""
    tested = [row["n_patients"] for row in rows if not np.isnan(row["p"])]
    if not tested:
        return ""
    p, p_holm, needed = least_p(max(tested), len(tested))
    told = (
        f"{count(max(tested), 'patient')} and {count(len(tested), 'comparison')}: the smallest "
        f"p that can come out is {number(p, 2)}, the smallest corrected one {number(p_holm, 2)}."
    )
    if p_holm <= LEVEL:
        return told
    return (
        f"{told} So none can be below {LEVEL} after correction, however clear the difference; "
        f"that needs {needed} patients."
    )


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
        "style": _STYLES.get(verdict, "open"), "sign": _SIGNS[verdict],
        "n": int(row["n"]), "n_patients": int(row["n_patients"]),
        "difference": float(row["difference"]), "effect": float(row["effect"]),
        "p": float(row["p"]), "p_holm": float(row["p_holm"]),
        "interval": "–" if np.isnan(low) else f"{number(low)} to {number(high)}",
        "note": note if isinstance(note, str) else "",
    }  # fmt: skip
