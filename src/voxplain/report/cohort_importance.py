"""Sections of a cohort's page about what targets draw on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from voxplain.report.cohort_blocks import (
    figure,
    figure_block,
    figures_block,
    table_block,
    words_block,
)
from voxplain.report.cohort_boxes import box_numbers, target_boxes
from voxplain.report.cohort_clusters import cluster_figure
from voxplain.report.cohort_graph import contributor_figure
from voxplain.report.cohort_histograms import MOST, histogram_numbers, share_histograms
from voxplain.report.cohort_matrix import cohort_matrix, difference_matrix
from voxplain.report.cohort_rows import Column
from voxplain.study.anatomy import by_group
from voxplain.study.clustering import Clusters, cluster
from voxplain.study.contributor_graph import edges_of
from voxplain.study.importance import importance_matrix
from voxplain.study.summary import StudySummary

N_BOXES = 20
"""Targets whose shares are drawn as boxes; the matrix has them all."""

FIRST_SHARE = 0.35
"""Of what a target draws on, told region by region in the second graph, as in Agg²Exp."""

_INTERVAL = {"low": "low", "high": "high"}
_CONTEXTUAL = (
    Column("target", kind="text"), Column("mean", "share on itself", "share", **_INTERVAL),
    Column("n_cases", "cases", "count"), Column("n_patients", "patients", "count"),
    Column("note", kind="text"),
)  # fmt: skip
_EXTRA = (
    Column("target", kind="text"), Column("region", "extra region", "text"),
    Column("mean", "mean share", "share", **_INTERVAL),
    Column("median", "median", "share", "median_low", "median_high"),
    Column("n_cases", "cases", "count"), Column("note", kind="text"),
)  # fmt: skip
_COPHENETIC = (
    Column("linkage", kind="text"), Column("cophenetic_r", "cophenetic correlation"),
    Column("is_chosen", "drawn", "flag"), Column("note", kind="text"),
)  # fmt: skip


def importance_blocks(summary: StudySummary, clusters: Clusters | None) -> list[dict[str, Any]]:
    """Matrix, how contextual, positive and negative parts, extra regions."""
    table = summary.table
    extra = table.extra_regions
    matrix = importance_matrix(summary.importance)
    order = clusters.order if clusters else None
    words = "Rows in the order of the tree below. " if clusters else ""
    if extra:
        words += "Extra regions overlap the others and come on top of 100 %."
    found = [
        figure_block(
            "Global importance", words.strip(),
            cohort_matrix(matrix, order=order, extra_regions=extra),
        )
    ]  # fmt: skip
    if len(summary.contextual):
        words = (
            "The less of a target's importance lies on the region of its own name, the more the "
            "model needs its surroundings. In small print: intervals, patients drawn anew."
        )
        found.append(table_block("How contextual", words, summary.contextual, _CONTEXTUAL))
    if len(summary.signed) == 2:
        found.append(_signed(summary, order))
    if extra:
        rows = summary.importance[summary.importance["region"].isin(extra)]
        rows = rows.sort_values("mean", ascending=False, kind="stable")
        words = "Masks that were given beside the model's own regions."
        found.append(table_block("Extra regions", words, rows, _EXTRA))
    return found


def boxes_blocks(summary: StudySummary) -> list[dict[str, Any]]:
    """Box plots of every target, the first one unfolded."""
    table = summary.table
    found: list[dict[str, Any]] = []
    for target in table.targets[:N_BOXES]:
        numbers = box_numbers(table.of_target(target))
        if not (numbers["n_cases"] > 0).any():
            continue
        drawing = target_boxes(numbers, target, extra_regions=table.extra_regions)
        found.append(figure("", "" if found else _BOX_WORDS, drawing))
    if not found:
        return [words_block("", "No case has a map of any target.")]
    first = {"kind": "figure", "figure": found[0]}
    others = [figures_block(f"Box plots of the other targets ({len(found) - 1})", found[1:])]
    hidden = max(0, len(table.targets) - N_BOXES)
    note = [words_block("", f"{hidden} more targets are only in the matrix.")] if hidden else []
    return [first, *(others if len(found) > 1 else []), *note]


_BOX_WORDS = (
    "Box: quartiles and median; diamond: mean; whiskers: the outermost case within 1.5 times the "
    "box; points: the outermost of the other cases."
)


def relation_blocks(summary: StudySummary, clusters: Clusters | None) -> list[dict[str, Any]]:
    """Graph, tree and histograms: which targets and regions go together."""
    parts = _parts_matrix(summary)
    edges = edges_of(parts, n=3 if len(parts) > 6 else 5, min_weight=0.01)
    found = []
    if len(edges):
        words = "The strongest contributors of every target; arrows of less than 1 % are left out."
        found.append(figure_block("Who draws on whom", words, contributor_figure(edges)))
        first = edges_of(parts, "cumulated", share=FIRST_SHARE, without_self=True)
        words = f"The regions that make up the first {FIRST_SHARE:.0%} of what a target draws on "
        words += "beside itself."
        found.append(figure_block("The first contributors", words, contributor_figure(first)))
    if clusters is not None:
        words = "Targets that draw on the same regions are joined early. Distances of √share."
        found.append(figure_block("Targets that are alike", words, cluster_figure(clusters)))
        found.append(table_block(
            "How well each linkage keeps the distances", "", clusters.cophenetic, _COPHENETIC
        ))  # fmt: skip
    related = [names[:MOST] for names in by_group(_both(summary)).values() if len(names) > 1]
    for names in related:
        drawing = share_histograms(histogram_numbers(summary.table, names, names))
        words = "Rows are targets, columns regions; a bar counts cases; line: median."
        found.append(figure_block(f"Related: {', '.join(names)}", words, drawing))
    return found


def clusters_of(summary: StudySummary) -> Clusters | None:
    """Tree of the targets; None if there are too few with numbers."""
    matrix = _parts_matrix(summary)
    return cluster(matrix) if matrix.notna().all(axis=1).sum() > 1 else None


def _both(summary: StudySummary) -> list[str]:
    """Names that are targets and regions and occur in a case."""
    known = set(summary.importance.dropna(subset=["mean"])["target"])
    return [t for t in summary.table.targets if t in summary.table.parts and t in known]


def _parts_matrix(summary: StudySummary) -> pd.DataFrame:
    matrix = importance_matrix(summary.importance)
    return matrix[[r for r in matrix.columns if r in summary.table.parts]]


def _signed(summary: StudySummary, order: tuple[str, ...] | None) -> dict[str, Any]:
    positive, negative = (summary.signed[name] for name in ("positive", "negative"))
    long = pd.DataFrame(
        {
            "target": np.repeat(positive.index.to_numpy(), positive.shape[1]),
            "region": np.tile(positive.columns.to_numpy(), len(positive)),
            "difference": (positive - negative).to_numpy().ravel(),
            "q": np.nan,
        }
    )
    extra = summary.table.extra_regions
    drawing = difference_matrix(
        long, ("the positive part", "the negative part"), order=order, extra_regions=extra
    )
    drawing.table["positive"] = positive.stack(future_stack=True).reindex(
        pd.MultiIndex.from_frame(drawing.table[["target", "region"]])
    ).to_numpy()  # fmt: skip
    drawing.table["negative"] = drawing.table["positive"] - drawing.table["difference"]
    words = (
        "Orange: what speaks for a target outweighs what speaks against it in this region; blue: "
        "the other way round. Shares of all that is attributed in the image; nothing is tested "
        "here, so no cell is framed."
    )
    kept = type(drawing)(drawing.figure, drawing.table.drop(columns=["q", "is_marked"]))
    return figure_block("Positive and negative parts", words, kept)
