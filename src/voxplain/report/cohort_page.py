"""One self-contained page about a study: what a model relies on over a cohort."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import RecordError
from voxplain.records.provenance import package_versions
from voxplain.report.cohort_anomalies import anomaly_blocks, local_blocks
from voxplain.report.cohort_findings import standouts
from voxplain.report.cohort_groups import bias_blocks, comparison_blocks
from voxplain.report.cohort_importance import (
    boxes_blocks,
    clusters_of,
    importance_blocks,
    relation_blocks,
)
from voxplain.report.cohort_rows import Column, counted, rows_table, spaced
from voxplain.report.html import plain, write_page
from voxplain.report.page import flat_rows
from voxplain.report.wording import seconds
from voxplain.study.store import DONE, FAILED
from voxplain.study.summary import Comparison, StudySummary

_FOLDERS = (
    # from the root, blanks inside of names too
    re.compile(r"""(?<![\w.])(?:[A-Za-z]:|~)?[\\/](?:[^\\/:;,'"<>\s][^\\/:;,'"<>\n]*[\\/])+"""),
    # relative, before a file's name with an ending
    re.compile(r"(?:[\w.~-]+[\\/])+(?=[\w.-]+\.[A-Za-z])"),
)
_N_NAMED = 5  # cases of one reason of failure

_SECTIONS = (
    ("importance", "What targets rely on",
     "Share of all that is attributed (|a|) that lies in a region, mean over patients."),
    ("spread", "How it varies from case to case", ""),
    ("relations", "What goes together", ""),
    ("anomalies", "Patients handled unlike the others", ""),
    ("local", "Single cases against the cohort", "The strangest cases, in their strangest "
     "targets."),
    ("bias", "Groups of patients", "Whether importance, or being an outlier, goes with what is "
     "known of the patients. One value a patient."),
)  # fmt: skip


def _no_planes(model: str, method: str, case: str) -> Mapping[str, NDArray[Any]]:
    del model, method, case
    return {}


@dataclass(frozen=True, eq=False)
class CohortReport:
    """What the page of a study is made from.

    Parameters
    ----------
    name
        Of the study, e.g. its folder's.
    summaries
        One for each model and method with a result, in the order of the page; at least one.
    runs
        Columns `voxplain.study.store.RUN_COLUMNS`; empty where nothing is known.
    n_cases, n_patients
        Listed in the study, done or not.
    comparisons
        Of models, methods or cohorts.
    planes
        Pictures of a case, by model, method and case; see `voxplain.study.store.Store.planes`.
    plan
        What decided the results.
    versions
        Of Python and packages.

    Raises
    ------
    RecordError
        If there is no summary.
    """

    name: str
    summaries: Sequence[StudySummary]
    runs: pd.DataFrame
    n_cases: int
    n_patients: int
    comparisons: Sequence[Comparison] = ()
    planes: Callable[[str, str, str], Mapping[str, NDArray[Any]]] = _no_planes
    plan: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=package_versions)

    def __post_init__(self) -> None:
        if not self.summaries:
            raise RecordError(
                "a report of a study needs a model and a method with a finished case; see "
                "voxplain study status for the reasons of failure"
            )


def write_cohort_report(report: CohortReport, path: Path | str) -> Path:
    """Write a page that opens from disk, without network, in any browser.

    It tells what stands out, then for each model and method the global importance, strange
    patients and groups, and how models or cohorts differ. Patients' identifiers are not on it;
    names of cases are.

    Parameters
    ----------
    report
        What was computed.
    path
        File to write; replaced whole or not at all.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    trees = [clusters_of(summary) for summary in report.summaries]
    parts = [_part(report, summary, tree) for summary, tree in zip(report.summaries, trees,
                                                                  strict=True)]  # fmt: skip
    first = report.summaries[0]
    page: dict[str, Any] = {
        "template": "cohort.html.j2",
        "styles": ("lesions.css", "cohort.css"),
        "name": report.name,
        "facts": _facts(report),
        "standouts": standouts(report.summaries, report.comparisons),
        "failures": _failures(report.runs),
        "parts": parts,
        "sections": [
            {"id": name, "head": head, "words": words, "shown": any(p[name] for p in parts)}
            for name, head, words in _SECTIONS
        ],
        "comparisons": [
            {
                "title": f"{pair.labels[0]} against {pair.labels[1]}, {pair.of}",
                "blocks": comparison_blocks(
                    pair, trees[0].order if trees[0] else None, first.table.extra_regions
                ),
            }
            for pair in report.comparisons
        ],
        "provenance": _provenance(report),
        "version": report.versions.get("voxplain", ""),
    }
    return write_page(plain(page, ("page.js",)), path) or path


def without_folders(text: str) -> str:
    """Shorten each path in a text to the name of its last part."""
    for folders in _FOLDERS:
        text = folders.sub("…/", text)
    return text


def _part(report: CohortReport, summary: StudySummary, tree: Any) -> dict[str, Any]:
    """Everything of one model and method, by section."""
    return {
        "title": summary.title,
        "importance": importance_blocks(summary, tree),
        "spread": boxes_blocks(summary),
        "relations": relation_blocks(summary, tree),
        "anomalies": anomaly_blocks(summary, report.planes),
        "local": local_blocks(summary),
        "bias": bias_blocks(summary),
    }


def _facts(report: CohortReport) -> list[tuple[str, str, str]]:
    """Give what was studied: a word, how many, and which."""
    runs = report.runs
    models, methods = ([*dict.fromkeys(getattr(s.table, name) for s in report.summaries)]
                       for name in ("model", "method"))  # fmt: skip
    targets = [*dict.fromkeys(t for s in report.summaries for t in s.table.targets)]
    found = [
        ("models", str(len(models)), ", ".join(models)),
        ("methods", str(len(methods)), ", ".join(methods)),
        ("cases", spaced(report.n_cases), counted(report.n_patients, "patient")),
        ("targets", str(len(targets)), _first(targets)),
    ]
    if len(runs):
        done, failed = ((runs["status"] == word).sum() for word in (DONE, FAILED))
        left = report.n_cases * len(report.summaries) - done - failed
        told = [f"{spaced(int(failed))} failed"] if failed else []
        told += [f"{spaced(int(left))} not yet run"] if left > 0 else []
        found.append(("done", spaced(int(done)), ", ".join(told) or "none failed"))
        n = int(runs["n_forward"].sum()), int(runs["n_backward"].sum())
        words = f"{spaced(n[0])} forward, {spaced(n[1])} backward passes" if any(n) else ""
        found.append(("time, all cases", seconds(float(runs["seconds"].sum())), words))
    return found


def _first(names: Sequence[str], most: int = 6) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _failures(runs: pd.DataFrame) -> dict[str, Any]:
    """Reasons of failure, the most frequent first."""
    failed = runs[runs["status"] == FAILED] if len(runs) else runs
    rows = []
    if len(failed):
        reasons = failed["reason"].astype(str).map(without_folders)
        for names, own in failed.groupby(["model", "method", reasons.rename("_why")], sort=False):
            model, method, why = names
            cases = _first([*own["case"].astype(str)], _N_NAMED)
            rows.append((f"{model} · {method}", why, len(own), cases))
    frame = pd.DataFrame(rows, columns=["of", "reason", "n", "cases"])
    return rows_table(
        frame.sort_values("n", ascending=False, kind="stable"),
        (Column("reason", kind="text"), Column("n", "cases", "count"),
         Column("cases", "which", "text"), Column("of", "model and method", "text")),
    )  # fmt: skip


def _provenance(report: CohortReport) -> list[tuple[str, str]]:
    settings = report.summaries[0].settings
    told = {
        "study": report.name,
        "plan": dict(report.plan),
        "statistics": {
            "level of intervals": settings.level, "q of findings": settings.alpha,
            "draws of patients": settings.n_boot, "seed": settings.seed,
            "anomalies": vars(settings.anomalies), "smallest group": settings.min_group,
        },
        "versions": dict(report.versions),
    }  # fmt: skip
    plain_values = json.loads(json.dumps(told, default=str))
    return [(name, without_folders(value)) for name, value in flat_rows(plain_values)]
