"""The verdicts of an assessment: a matrix of checks and methods, and the evidence of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from voxplain.records.finding import CODES, Finding
from voxplain.report.assess_tables import Tables
from voxplain.report.html import sorted_findings
from voxplain.report.page import WORST_FIRST

SIGNS = {
    "issue": "✕", "tip": "!", "passed": "✓", "not applicable": "–", "skipped": "○", "ignored": "·",
}  # fmt: skip
"""What stands before the word of an outcome, so that no colour is needed to tell them apart."""


def verdicts(tables: Tables, model: str, place: int) -> dict[str, Any] | None:
    """Give what the page shows of a model's verdicts; None if there are none.

    Parameters
    ----------
    tables
        Of the assessment.
    model
        Its label.
    place
        Number of the model on the page, for addresses.

    Returns
    -------
    dict
        ``heads``: methods. ``rows``: a check each, most issues first; its cells lead to
        ``evidence``, the worst first. ``counts``: how often each outcome was found.
    """
    found = {
        (finding.code, method): finding
        for finding in tables.assessment.findings
        for method in tables.labels
        if finding.target == f"{model} · {method}"
    }
    if not found:
        return None
    heads = [m for m in tables.labels if any(method == m for _, method in found)]
    codes = sorted({code for code, _ in found}, key=lambda code: (*_badness(found, code), code))
    evidence = [
        {
            **_words(finding),
            "method": method,
            "id": _address(place, heads.index(method), code),
            "is_open": finding.outcome in ("issue", "tip"),
        }
        for finding in sorted_findings(found.values())
        for code, method in [_key(found, finding)]
    ]
    outcomes: list[str] = [one.outcome for one in found.values()]
    return {
        "heads": heads,
        "rows": [
            {
                "code": code,
                "title": CODES[code].title if code in CODES else "",
                "cells": [
                    {**_words(found[code, m]), "href": f"#{_address(place, i, code)}"}
                    if (code, m) in found
                    else None
                    for i, m in enumerate(heads)
                ],
            }
            for code in codes
        ],
        "evidence": evidence,
        "counts": [
            {"n": outcomes.count(o), "outcome": o, "sign": SIGNS[o], "style": _style(o)}
            for o in WORST_FIRST
            if o in outcomes
        ],
    }


def other_findings(tables: Tables) -> list[dict[str, Any]]:
    """Give the findings that are about no model and method of the tables, worst first."""
    known = {f"{model} · {method}" for model in tables.models for method in tables.labels}
    rest = [one for one in tables.assessment.findings if one.target not in known]
    return [{**_words(one), "target": one.target} for one in sorted_findings(rest)]


def _words(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code, "title": finding.title, "outcome": finding.outcome,
        "sign": SIGNS[finding.outcome], "evidence": finding.evidence,
        "style": _style(finding.outcome),
    }  # fmt: skip


def _style(outcome: str) -> str:
    return outcome.replace(" ", "-")


def _badness(found: dict[tuple[str, str], Finding], code: str) -> Sequence[int]:
    """How often a check ended in each outcome, negative, the worst outcome first."""
    own: list[str] = [finding.outcome for (one, _), finding in found.items() if one == code]
    return [-own.count(outcome) for outcome in WORST_FIRST]


def _key(found: dict[tuple[str, str], Finding], finding: Finding) -> tuple[str, str]:
    return next(key for key, one in found.items() if one is finding)


def _address(place: int, method: int, code: str) -> str:
    return f"verdict-{place}-{method}-{code.lower()}"
