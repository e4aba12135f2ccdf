"""One self-contained page about a study of lesions: what was studied, figures, tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from voxplain.records.lesion_tables import check_columns
from voxplain.records.provenance import Provenance
from voxplain.report.drawing import Drawing
from voxplain.report.html import plain, provenance_rows, write_page
from voxplain.report.lesion_figure import figure_of, table_of
from voxplain.report.lesion_types import in_order
from voxplain.report.study_plots import FEATURES, detector_curves, feature_boxes
from voxplain.report.wording import percent
from voxplain.study.feature_values import NO_MAP, VALUES

N_ROWS = 2000
"""Rows of a table that are shown; the rest is counted."""

_CONTROL = "TN"
_GROUP = ["model", "method"]
_CURVE = (*_GROUP, "predictor", "threshold")
_ROC, _PR = (*_CURVE, "false_alarm_rate", "hit_rate"), (*_CURVE, "recall", "precision")
_EFFECTS = (*_GROUP, "channel", "feature", "type_a", "type_b", "cliffs_delta", "low", "high",
            "p_holm", "level")  # fmt: skip
_DETECTOR = (*_GROUP, "predictor", "n_fp", "n_tp", "auroc", "auroc_low", "auroc_high",
             "precision_average", "precision_low", "precision_high", "prevalence", "level",
             "note")  # fmt: skip
_BOX_WORDS = (
    "Box: quartiles and median; whiskers: the outermost lesion within 1.5 times the box; points: "
    "lesions of all patients, their number below the type."
)


def write_study_report(
    tables: Mapping[str, pd.DataFrame],
    path: Path | str,
    provenance: Provenance,
    *,
    values: pd.DataFrame | None = None,
    roc: pd.DataFrame | None = None,
    pr: pd.DataFrame | None = None,
) -> Path:
    """Write a page with the figures of a study and its tables, to be sorted by any column.

    Parameters
    ----------
    tables
        By title, in the order of the page, e.g. ``detector``, ``effects``, ``distributions``.
        ``effects`` and ``detector``, where they are there, are also written into the figures.
    path
        File to write; replaced whole or not at all.
    provenance
        How they were made.
    values
        Columns `voxplain.study.feature_values.VALUES`; None: no box plots, and the page does
        not say how many lesions were studied.
    roc, pr
        Curves of ``tables["detector"]``: columns `ROC` and `PR` of
        `voxplain.study.error_detector`; None: they are not drawn.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    LabelError
        If a table of a figure lacks a column.
    OutputError
        If the file cannot be written.
    """
    effects, detector = tables.get("effects"), tables.get("detector")
    if values is not None:
        check_columns(values, VALUES, "feature_values")
        if effects is not None:
            check_columns(effects, _EFFECTS, "effects")
    if detector is not None and roc is not None and pr is not None:
        for table, names, title in (
            (roc, _ROC, "roc"), (pr, _PR, "pr"), (detector, _DETECTOR, "detector"),
        ):  # fmt: skip
            check_columns(table, names, title)
    page = {
        "template": "lesions_study.html.j2",
        "styles": ("lesions.css",),
        "case": provenance.case,
        "model": provenance.model,
        "studied": [] if values is None else _studied(values),
        "features": [] if values is None else _features(values, effects),
        "box_words": "" if values is None else _box_words(effects),
        "has_values": values is not None,
        "detectors": _detectors(roc, pr, detector),
        "tables": [_table(name, table) for name, table in tables.items()],
        "provenance": provenance_rows(provenance),
        "version": provenance.versions.get("voxplain", ""),
    }
    return write_page(plain(page, ("page.js",)), path)


def _studied(values: pd.DataFrame) -> list[str]:
    """Sentences that say what was studied."""
    if values.empty:
        return ["No lesion was studied."]
    methods = [str(m) for m in dict.fromkeys(values["method"]) if m != NO_MAP]
    n_models = values["model"].nunique()
    said = [
        f"{_count(values['patient'].nunique(), 'patient')}, "
        f"{_count(values['case'].nunique(), 'case')}, {_count(n_models, 'model')}, "
        f"{_count(len(methods), 'method')}{': ' if methods else ''}{', '.join(methods)}."
    ]
    said += [f"{m}: {_counts(part)}." for m, part in values.groupby("model", sort=False)]
    return said


def _counts(values: pd.DataFrame) -> str:
    """Lesions by type, of one model."""
    counts = values.drop_duplicates(["case", "instance"])["type"].value_counts()
    n_controls = int(counts.get(_CONTROL, 0))
    kinds = ", ".join(f"{counts[t]} {t}" for t in in_order(counts.index) if t != _CONTROL)
    controls = f" and {_count(n_controls, 'healthy control region')}" if n_controls else ""
    n = int(counts.sum()) - n_controls
    return f"{_count(n, 'lesion')}{f' ({kinds})' if kinds else ''}{controls}"


def _count(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def _box_words(effects: pd.DataFrame | None) -> str:
    if effects is None or effects.empty:
        return _BOX_WORDS
    return (
        f"{_BOX_WORDS} δ: Cliff's delta, the chance that a TP lies above an FP less the chance "
        f"that it lies below, with its {_level(effects)} interval by patient; p: Mann–Whitney, "
        "Holm-corrected over all pairs of types, channels and features of the method; it takes "
        "lesions for independent."
    )


def _features(values: pd.DataFrame, effects: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Give a figure for each model and method."""
    figures = []
    for names, part in values[values["feature"].isin(FEATURES)].groupby(_GROUP, sort=False):
        model, method = map(str, names)
        own = None
        if effects is not None:
            own = effects[(effects["model"] == model) & (effects["method"] == method)]
        words = f"{_count(part['patient'].nunique(), 'patient')}, {_counts(part)}."
        figures.append(figure_of(f"{model}, {method}", words, feature_boxes(part, own)))
    return figures


def _detectors(
    roc: pd.DataFrame | None, pr: pd.DataFrame | None, detector: pd.DataFrame | None
) -> list[dict[str, Any]]:
    """Give for each model and method its curves, and why some are missing."""
    if roc is None or pr is None or detector is None:
        return []
    parts = []
    for names, own in detector.groupby(_GROUP, sort=False):
        points, steps = (
            table[(table["model"] == names[0]) & (table["method"] == names[1])]
            for table in (roc, pr)
        )
        title = f"{names[0]!s}, {names[1]!s}"
        figure = None
        if own["auroc"].notna().any():
            drawing = detector_curves(points, steps, own)
            rest = max(0, len(drawing.table) - N_ROWS)
            drawing = Drawing(drawing.figure, drawing.table.head(N_ROWS))
            first = own.iloc[0]
            words = (
                f"{_count(int(first['n_fp']), 'false positive')}, the class to be found, among "
                f"{_count(int(first['n_tp']), 'true positive')}. In brackets: {_level(own)} "
                "interval by patient. Dashes: chance. Recall is the hit rate."
                + (f" {rest} more thresholds: see roc.csv and pr.csv." if rest else "")
            )
            figure = figure_of(title, words, drawing)
        missing = own[own["auroc"].isna()]
        reasons = [f"{r['predictor']}: {r['note']}" for r in missing.to_dict("records")]
        if figure is None and missing["note"].nunique() == 1:
            reasons = [str(missing["note"].iloc[0])]
        parts.append({"title": title, "figure": figure, "reasons": reasons})
    return parts


def _level(table: pd.DataFrame) -> str:
    return percent(float(table["level"].iloc[0])).replace(".0 %", " %")


def _table(name: str, table: pd.DataFrame) -> dict[str, Any]:
    ordered, reasons = _with_reasons(table)
    shown = table_of(ordered.head(N_ROWS))
    left = [not pd.api.types.is_numeric_dtype(kind) for kind in ordered.dtypes]
    rest = len(table) - len(shown["rows"])
    counts = [str(column).startswith("n_") or column == "n" for column in ordered.columns]
    return {
        "name": name.replace("_", " ").capitalize(),
        "heads": list(zip(shown["columns"], left, strict=True)),
        "rows": [
            [
                (_whole(value, text) if is_count else text, value, is_text)
                for text, value, is_text, is_count in zip(texts, values, left, counts, strict=True)
            ]
            for texts, values in zip(shown["rows"], shown["values"], strict=True)
        ],
        "rest": f"and {rest} more rows: see {name}.csv" if rest else "",
        "reasons": reasons,
    }


def _whole(value: object, text: str) -> str:
    """Write a count: a column with a missing one holds floats."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else text


def _with_reasons(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Put notes before the numbers, where they are seen, and count them; no notes, no column."""
    if "note" not in table.columns:
        return table, []
    notes = table["note"].fillna("").astype(str)
    others = [column for column in table.columns if column != "note"]
    if not (notes != "").any():
        return table[others], []
    is_number = [pd.api.types.is_numeric_dtype(table[column]) for column in others]
    at = is_number.index(True) if any(is_number) else len(others)
    counts = notes[notes != ""].value_counts(sort=False)
    reasons = [f"{note} ({_count(int(n), 'row')} of {len(table)})" for note, n in counts.items()]
    return table.assign(note=notes)[[*others[:at], "note", *others[at:]]], reasons
