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

ABOUT = {
    "VX201": (
        "Passed if the map on the random network is less like the original than maps of different "
        "cases are, with the whole interval below 0; else an issue.",
        "Do not read the map as what the model learned; choose a method that passes.",
    ),
    "VX202": (
        "Passed if the method is better than every trivial map, with every whole interval; else "
        "an issue.",
        "See which trivial map wins, and read the map for what that one does not tell.",
    ),
    "VX203": (
        "Issue if the average sensitivity is above 1, or a stability below 0.5.",
        "Average over noisy copies (SmoothGrad), or choose a smoother method.",
    ),
    "VX204": (
        "Issue if less than 0.5 of the map is in the body.",
        "Look for a bright spot outside, fill the outside, and see whether the score moves.",
    ),
    "VX205": (
        "Passed if the normalised average precision is above 0 with its whole interval; else an "
        "issue.",
        "Ask first whether the model is right on these cases; then see VX201 and VX209.",
    ),
    "VX206": (
        "Issue if two fills agree by less than 0.5.",
        "Choose the fill by what absence means in the image, name it, and report both.",
    ),
    "VX207": (
        "Issue if there are fewer than 6 patients; checks by an interval are skipped then.",
        "Add patients; more images of the same ones do not count.",
    ),
    "VX208": (
        "Issue if the off-target leakage is above 0.5.",
        "Explain the margin between the classes instead of one logit.",
    ),
    "VX209": (
        "Passed if the faithfulness correlation is above 0 with its whole interval; else an issue.",
        "Look at the correlation over regions and at the deletion curve; try contributions.",
    ),
    "VX210": (
        "Issue if the contributions miss the score's change by more than 0.05 of it.",
        "More points or samples of the method; see VX102.",
    ),
    "VX211": (
        "Issue if one map in twenty or more is zero or constant, a tip if fewer are.",
        "Look for a saturated score, a rectifier that removes everything, a dead layer.",
    ),
    "VX212": (
        "Passed if maps of two trainings are more alike than maps of different cases, with the "
        "whole interval above 0; else an issue.",
        "Compare the models' answers first; if these agree, average the maps of several trainings.",
    ),
}
"""Where each check draws its line, and what to do; more in ``docs/checks``."""


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
                "title": _title(code),
                "about": _about(code),
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


def about_codes(tables: Tables) -> list[dict[str, str]]:
    """Give the codes of all findings: title, where the line is drawn, what to do."""
    codes = sorted({finding.code for finding in tables.assessment.findings})
    return [
        {"code": code, "title": _title(code), "threshold": threshold, "advice": advice}
        for code in codes
        for threshold, advice in [ABOUT.get(code, ("", ""))]
    ]


def _title(code: str) -> str:
    return CODES[code].title if code in CODES else ""


def _about(code: str) -> str:
    return " ".join((f"{code}: {_title(code)}.", *ABOUT.get(code, ()))).strip()


def _words(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code, "title": finding.title, "outcome": finding.outcome,
        "sign": SIGNS[finding.outcome], "evidence": finding.evidence,
        "style": _style(finding.outcome), "about": _about(finding.code),
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
