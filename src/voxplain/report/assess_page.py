"""One self-contained page about an assessment: verdicts, tables, figures, maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from voxplain.records.assessment import Assessment
from voxplain.report import assess_cascades, assess_pairs
from voxplain.report.assess_comparisons import comparison_groups, comparison_rows
from voxplain.report.assess_grids import N_TARGETS, Grids
from voxplain.report.assess_plots import family_boxes, pair_boxes
from voxplain.report.assess_summary import (
    agreement_rows,
    meanings,
    performance_table,
    summary_tables,
)
from voxplain.report.assess_tables import FAMILIES, Tables, count
from voxplain.report.assess_verdicts import about_codes, other_findings, verdicts
from voxplain.report.drawing import Drawing
from voxplain.report.html import plain, provenance_rows, write_page
from voxplain.report.lesion_figure import figure_of
from voxplain.report.wording import number, seconds

N_ROWS = 400
"""Rows of a figure's table that are shown; the rest is counted."""


def write_assess_report(assessment: Assessment, path: Path) -> Path:
    """Write a page that opens from disk, without network, in any browser.

    It shows, for one model at a time, the verdicts with their evidence, summaries, box plots,
    randomisation, map grids and comparisons with trivial maps, and for all models together how
    good they are and how alike their maps. What was not measured does not appear.

    Parameters
    ----------
    assessment
        What was measured; loaded from disk it serves as well.
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
    tables = Tables(assessment)
    record = assessment.provenance
    grids = Grids(tables)
    models = [_model(tables, grids, model, place) for place, model in enumerate(tables.models)]
    page: dict[str, Any] = {
        "template": "assess.html.j2",
        "styles": ("lesions.css", "assess.css"),
        "facts": _facts(tables),
        "models": models,
        "methods": tables.methods,
        "other": other_findings(tables),
        "codes": about_codes(tables),
        "performance": performance_table(tables),
        "agreements": agreement_rows(tables),
        "by_agreement": _by_agreement(tables),
        "pairs": _pairs(tables),
        "metrics": meanings(tables),
        "shown": {
            name: any(model[name] for model in models)
            for name in ("verdicts", "summary", "boxes", "cascades", "cases", "comparisons")
        },
        "n_hidden_targets": max(0, len(tables.targets) - N_TARGETS),
        "provenance": provenance_rows(record),
        "version": record.versions.get("voxplain", ""),
    }
    return write_page(plain(page, ("page.js", "assess.js")), path)


def _by_agreement(tables: Tables) -> list[dict[str, str]]:
    """Rows of similarity where models agree and where they differ; none if all do the one."""
    found = assess_pairs.by_agreement(tables.assessment.scores)
    if not len(found) or not found["n_agree"].any() or not found["n_differ"].any():
        return []
    return [
        {
            "method": row["method"], "stage": row["stage"], "metric": row["metric"],
            **{f"n_{side}": str(row[f"n_{side}"]) for side in ("agree", "differ")},
            **{
                side: number(row[side]) if row[f"n_{side}"] else "–"
                for side in ("agree", "differ")
            },
        }
        for row in found.to_dict(orient="records")
    ]  # fmt: skip


def _facts(tables: Tables) -> list[tuple[str, str, str]]:
    """Give what was assessed: a word, how many, and which."""
    scores, cost = tables.assessment.scores, tables.assessment.provenance.cost
    n_patients = scores[["case", "patient"]].drop_duplicates()["patient"]
    known = n_patients[n_patients.astype(str) != ""].nunique()
    passes = cost.n_forward + cost.n_backward
    return [
        ("models", str(len(tables.models)), ", ".join(tables.models)),
        ("methods", str(len(tables.methods)), ", ".join(tables.methods)),
        ("cases", str(len(tables.cases)), count(known, "patient") if known else ""),
        ("targets", str(len(tables.targets)), ", ".join(tables.targets)),
        ("time", seconds(cost.seconds), ""),
        ("passes", _spaced(passes),
         f"{_spaced(cost.n_forward)} forward, {_spaced(cost.n_backward)} backward"),
    ]  # fmt: skip


def _spaced(n: int) -> str:
    return f"{n:,}".replace(",", "\u202f")


def _model(tables: Tables, grids: Grids, model: str, place: int) -> dict[str, Any]:
    """Everything that is shown of one model."""
    comparisons, rest = comparison_rows(tables, model)
    whole = summary_tables(tables, model)
    targets = tables.targets if len(tables.targets) > 1 else []
    by_target = [
        {"target": target, "families": families}
        for target in targets
        if (families := summary_tables(tables, model, target))
    ]
    return {
        "name": model,
        "place": place,
        "verdicts": verdicts(tables, model, place),
        "summary": whole,
        "by_target": by_target,
        "boxes": _boxes(tables, model),
        "cascades": [
            _cascade(tables, model, order) for order in assess_cascades.orders(tables, model)
        ],
        "cases": grids.of_cases(model),
        "stages": grids.of_cascades(model),
        "comparisons": comparison_groups(comparisons),
        "n_more": rest,
    }


def _boxes(tables: Tables, model: str) -> list[dict[str, Any]]:
    figures = []
    for family, question in FAMILIES.items():
        drawing = family_boxes(tables, model, family)
        if drawing is not None:
            figures.append(_figure(question, "", drawing))
    return figures


def _cascade(tables: Tables, model: str, order: str) -> dict[str, Any]:
    figures = [
        _figure(
            f"{order.replace('_', ' ')}, {metric.replace('_', ' ')}",
            assess_cascades.reading(tables, metric),
            assess_cascades.cascade_curves(tables, model, order, metric),
        )
        for metric in assess_cascades.drawn_similarities(tables, model, order)
    ]  # fmt: skip
    output = assess_cascades.output_curves(tables, model, order)
    if output is not None:
        words = (
            "What randomising did to the model itself; a model that did not change tells nothing."
        )
        figures.append(_figure(f"{order.replace('_', ' ')}, the model’s output", words, output))
    return {
        "order": order.replace("_", " "),
        "figures": figures,
        "steps": assess_cascades.steps(tables, model, order),
        "areas": assess_cascades.areas(tables, model, order),
    }


def _pairs(tables: Tables) -> list[dict[str, Any]]:
    """Figures of how alike the maps of different models are."""
    makers: tuple[tuple[str, Callable[[Tables, str], Drawing | None]], ...] = (
        ("by method", pair_boxes), ("by model, mean over cases", assess_pairs.model_matrix),
    )  # fmt: skip
    return [
        _figure(f"{metric.replace('_', ' ')}, {title}", "", drawing)
        for metric in assess_pairs.drawn_similarities(tables)
        for title, make in makers
        if (drawing := make(tables, metric)) is not None
    ]


def _figure(title: str, words: str, drawing: Drawing) -> dict[str, Any]:
    """Figure and table, of which only so many rows are shown."""
    table: pd.DataFrame = drawing.table
    rest = max(0, len(table) - N_ROWS)
    return {
        **figure_of(title, words, Drawing(drawing.figure, table.head(N_ROWS))),
        "rest": f"and {rest} more rows: see scores.csv" if rest else "",
    }
