"""Sections of a cohort's page about single patients: who is strange, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from voxplain.report.cohort_blocks import figure_block, figures_block, table_block, words_block
from voxplain.report.cohort_boxes import box_numbers
from voxplain.report.cohort_local import local_bars
from voxplain.report.cohort_patients import outline_colours, panels
from voxplain.report.cohort_rows import Column, counted, probability
from voxplain.report.wording import number, percent
from voxplain.study.anomalies import ALL_TARGETS
from voxplain.study.summary import StudySummary

Planes = Callable[[str, str, str], Mapping[str, NDArray[Any]]]

N_LOCAL = 3
"""Targets of one case that are drawn against the cohort."""

N_DRIVERS = 3
"""Regions that are named behind a score."""

_CASES = (
    Column("case", kind="text"), Column("score"), Column("p", kind="p"),
    Column("p_tail", "p with tail", "p"), Column("q", kind="p"),
    Column("is_outlier", "outlier", "flag"), Column("strangest", "strangest target", "text"),
    Column("mean_dice", "mean Dice"), Column("note", kind="text"),
)  # fmt: skip
_BY_TARGET = (
    Column("case", kind="text"), Column("target", kind="text"), Column("score"),
    Column("p", kind="p"), Column("p_tail", "p with tail", "p"), Column("q", kind="p"),
    Column("note", kind="text"),
)  # fmt: skip
_P_WORDS = (
    "p: share of the other patients that are at least as strange (conformal); with tail: beyond "
    "the largest of their scores, by the shape of the highest ones. q: "
    "corrected over the cases, in single targets over cases and targets together."
)
_DETECTORS = {
    "mahalanobis": "Mahalanobis distance with a shrunk covariance",
    "isolation_forest": "isolation forest", "lof": "local outlier factor",
}  # fmt: skip
_FEATURES = {"clr": "centred log-ratios of the shares", "share": "raw shares"}


def anomaly_blocks(summary: StudySummary, planes: Planes) -> list[dict[str, Any]]:
    """Scores of the cases, the strangest and most ordinary ones in planes, agreement with Dice."""
    scores = summary.scores
    if scores.empty:
        return [words_block("", f"{summary.notes['anomalies']}.")]
    settings = summary.settings.anomalies
    cases = cases_by_score(summary)
    outliers = int(cases["is_outlier"].sum())
    fitted = (
        "learnt from another cohort" if summary.has_reference
        else "each case scored by what was learnt from other patients"
    )  # fmt: skip
    words = (
        f"{_DETECTORS[settings.detector].capitalize()} on {_FEATURES[settings.features]}, "
        f"{fitted}. A score is high where the shares of a case are unlike those of the "
        "others; it does not tell why, nor that the model is wrong. "
        f"{counted(outliers, 'outlier')} of {counted(len(cases), 'case')}."
    )
    found = [words_block("", words), *_cards(summary, cases, planes)]
    found.append(table_block("Cases by score, over all targets", _P_WORDS, cases, _CASES))
    single = scores[scores["is_outlier"].astype(bool) & (scores["target"] != ALL_TARGETS)]
    single = single.sort_values(["q", "score"], ascending=[True, False], kind="stable")
    found.append(table_block(
        "Outliers in single targets", "", single, _BY_TARGET, "No case is an outlier in a target."
    ))  # fmt: skip
    if summary.notes.get("dice"):
        found.append(words_block("Scores against Dice", f"{summary.notes['dice']}."))
    if len(summary.against_dice):
        words = "Spearman's rank correlation: below 0, stranger cases are segmented worse."
        columns = AGAINST_DICE
        found.append(table_block("Scores against Dice", words, summary.against_dice, columns))
    if len(summary.detection):
        words = "AUROC: how often a case of low Dice has a higher score than another one."
        found.append(table_block("Finding cases of low Dice", words, summary.detection, DETECTION))
    return found


AGAINST_DICE = (
    Column("target", kind="text"), Column("rho", "Spearman's ρ", "number", "low", "high"),
    Column("p", kind="p"), Column("q", kind="p"), Column("n", "cases", "count"),
    Column("n_patients", "patients", "count"), Column("note", kind="text"),
)  # fmt: skip
DETECTION = (
    Column("target", kind="text"), Column("auroc", "AUROC", "number", "low", "high"),
    Column("threshold", "Dice below"), Column("n_low", "cases below", "count"),
    Column("n_rest", "others", "count"), Column("note", kind="text"),
)  # fmt: skip


def local_blocks(summary: StudySummary) -> list[dict[str, Any]]:
    """Shares of the strangest cases over the quartiles of the cohort."""
    found = []
    for case, frame in summary.local.items():
        figures = []
        for target in _strangest(summary, case)[:N_LOCAL]:
            if not frame.loc[frame["target"] == target, "value"].notna().any():
                continue
            boxes = box_numbers(summary.table.of_target(target))
            drawing = local_bars(
                frame, target, boxes, title=case, extra_regions=summary.table.extra_regions
            )
            figures.append(figure_block("", "", drawing))
        found += figures[:1]
        if figures[1:]:
            others = [one["figure"] for one in figures[1:]]
            found.append(figures_block(f"{case}: {counted(len(others), 'more target')}", others))
    return found


def cases_by_score(summary: StudySummary) -> pd.DataFrame:
    """Rows of scores over all targets, strangest first, with ``strangest`` and ``mean_dice``."""
    scores = summary.scores
    is_whole = scores["target"] == ALL_TARGETS
    cases = scores[is_whole].sort_values("score", ascending=False, kind="stable")
    single = scores[~is_whole & scores["p_tail"].notna()]
    if single.empty:
        single = scores[~is_whole & scores["score"].notna()].assign(p_tail=lambda s: -s["score"])
    least = single.sort_values("p_tail", kind="stable").drop_duplicates("case")
    strangest = least.set_index("case")["target"]
    cases = cases.assign(strangest=cases["case"].map(strangest))
    dice = summary.table.dice
    means = dice.mean(axis=1) if len(dice.columns) else pd.Series(dtype=float)
    return cases.assign(mean_dice=cases["case"].map(means).astype(float))


def _strangest(summary: StudySummary, case: str) -> list[str]:
    """Targets of a case, the strangest first."""
    rows = summary.scores
    own = rows[(rows["case"] == case) & (rows["target"] != ALL_TARGETS) & rows["score"].notna()]
    own = own.sort_values(["p_tail", "score"], ascending=[True, False], kind="stable")
    return [str(target) for target in own["target"]]


def _cards(summary: StudySummary, cases: pd.DataFrame, planes: Planes) -> list[dict[str, Any]]:
    rows = {str(row["case"]): row for row in cases.to_dict("records")}
    pictures = {
        case: planes(summary.table.model, summary.table.method, case)
        for case in dict.fromkeys([*summary.extremes[0], *summary.extremes[1]])
    }
    names = next((one["names"] for one in pictures.values() if "names" in one), ())
    colours = outline_colours([str(name) for name in names])
    found = []
    lines = "Lines: what the model predicts."
    for title, words, chosen in (
        ("Strangest cases", f"{lines} Thick: regions that drive the score.", summary.extremes[0]),
        ("Most ordinary cases", lines, summary.extremes[1]),
    ):
        if not chosen:
            continue
        cards = [_card(summary, rows[case], pictures[case], colours) for case in chosen]
        shown = {label for card in cards for panel in card["panels"] for label in panel["labels"]}
        found.append({
            "kind": "patients", "title": title, "cards": cards,
            "words": words if shown else "",
            "legend": [(name, colour) for name, colour in colours.items() if name in shown],
        })  # fmt: skip
    return found


def _card(
    summary: StudySummary,
    row: Mapping[Any, Any],
    pictures: Mapping[str, NDArray[Any]],
    colours: Mapping[str, str],
) -> dict[str, Any]:
    case = str(row["case"])
    drivers = summary.drivers.get(case, pd.DataFrame())
    named, sentences = [], []
    if len(drivers):
        ranked = drivers.dropna(subset=["contribution"])
        ranked = ranked.sort_values("contribution", ascending=False, kind="stable")
        top = ranked[ranked["contribution"] > 0].head(N_DRIVERS)
        named = [str(region) for region in top["region"]]
        told = ", ".join(
            f"{one['region']} {percent(one['share'])} (expected {percent(one['expected'])})"
            for one in top.to_dict("records")
        )
        if told:
            sentences.append(f"In {summary.driver_targets[case]}, what drives it: {told}.")
    facts = [("score", number(row["score"])), ("p", probability(row["p_tail"])),
             ("q", probability(row["q"]))]  # fmt: skip
    if len(summary.table.dice.columns):
        facts.append(("mean Dice", number(row["mean_dice"])))
    if isinstance(row["strangest"], str):
        facts.append(("strangest in", row["strangest"]))
    return {
        "case": case, "facts": facts, "sentences": sentences,
        "panels": panels(pictures, colours, named),
    }  # fmt: skip
