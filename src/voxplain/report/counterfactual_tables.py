"""Tables of an evaluation of counterfactuals, each with how it is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from voxplain.records.counterfactual_evaluation import CLASSIFIER, JUDGE, SHARES, Evaluation
from voxplain.report.cohort_blocks import table_block, words_block
from voxplain.report.cohort_rows import Column, counted
from voxplain.report.counterfactual_verdicts import GOOD

_NAME = Column("method", kind="text")
_NOTE = Column("note", kind="text")

_OVERLAPS = {
    "iou": "IoU, pooled",
    "iou_mean": "IoU, per slice",
    "dice": "Dice, pooled",
    "dice_mean": "Dice, per slice",
}

_OVERLAP_WORDS = {
    "tuned": (
        "Overlap at tuned thresholds",
        "The threshold of each method is the one with the largest pooled IoU on the validation "
        "slices. Pooled: all pixels of all abnormal test slices together, where large lesions "
        "weigh more; per slice: the mean over slices, where an empty mask counts 0. Small: "
        "interval, patients drawn with replacement.",
    ),
    "fixed": (
        "Overlap at the fixed thresholds",
        "The thresholds of the publication, the same for all methods of a kind. Where these "
        "numbers are far below the tuned ones, the threshold fails and not the map.",
    ),
}

_CHANGES = (
    _NAME,
    Column("change_inside", "inside the lesion"),
    Column("change_outside", "outside"),
    Column("change_normal", "normal slices"),
    Column("marked_normal", "marked in normal", "share"),
    Column("still_normal", "stay normal", "share"),
    Column("n_abnormal", "n abnormal", "count"),
    Column("n_normal", "n normal", "count"),
)
_TRUTH = (
    _NAME,
    Column("psnr", "PSNR of x′, dB"),
    Column("psnr_inside", "inside the lesion, dB"),
    Column("psnr_outside", "outside, dB"),
    Column("psnr_input", "PSNR of x, dB"),
    Column("psnr_input_inside", "of x inside, dB"),
    Column("ssim", "SSIM of x′"),
    Column("n_exact", "equal slices", "count"),
)
_DISTANCE = (
    _NAME,
    Column("fid_normal", "FID to normal slices"),
    Column("fid_pairs", "FID of pairs (paper)"),
    Column("features", "features", "text"),
    _NOTE,
)


def overlap_blocks(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Give tables of IoU and Dice, tuned and fixed, and of paired differences, where known."""
    methods = evaluation.tables["methods"]
    blocks = []
    for part, (title, words) in _OVERLAP_WORDS.items():
        if methods[f"iou_{part}"].isna().all():
            continue
        ordered = methods.sort_values(f"iou_{part}", ascending=False, kind="stable")
        columns = (
            _NAME,
            Column("kind", kind="text"),
            Column(f"threshold_{part}", "threshold"),
            *(_interval(f"{name}_{part}", head) for name, head in _OVERLAPS.items()),
        )
        blocks.append(_in_decimals(table_block(title, words, ordered, columns), ordered, columns))
    if len(evaluation.tables["differences"]):
        blocks.append(_differences(evaluation.tables["differences"]))
    if reasons := _reasons(methods, "method"):
        blocks.append(words_block("Why values are missing", ". ".join(reasons) + "."))
    return blocks


def classifier_block(evaluation: Evaluation) -> dict[str, Any]:
    """Give the table of how good classifier and judge are."""
    columns = (
        Column("by", "network", "text"),
        _interval("auroc", "AUROC"),
        *(Column(f, kind="share", low=f"{f}_low", high=f"{f}_high") for f in SHARES[1:]),
        Column("n_slices", "slices", "count"), Column("n_abnormal", "abnormal", "count"),
        Column("n_patients", "patients", "count"), _NOTE,
    )  # fmt: skip
    words = (
        "On all test slices; abnormal is called what has a probability above 0.5. Small: "
        "interval, patients drawn with replacement. A counterfactual shows what the classifier "
        f"needs, which is a lesion only if the classifier is good; a judge with an AUROC below "
        f"{GOOD:g} judges no repair."
    )
    table = evaluation.tables["classifiers"]
    block = table_block("Classifier and judge", words, table, columns)
    return _in_decimals(block, table, columns[:2])


def validity_blocks(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Give tables of how good classifiers are, and of validity, a row a generator and τ."""
    table = evaluation.tables["validity"]
    key = ["method", "tau"]
    shown = table.drop_duplicates(key)[key]
    for by in (CLASSIFIER, JUDGE):
        own = table[table["by"] == by].drop(columns=["by", "n_slices"])
        names = {name: f"{name}_{by}" for name in own.columns if name not in key}
        shown = shown.merge(own.rename(columns=names), on=key, how="left")
    shown = shown.assign(tau=[f"{tau:g}" for tau in shown["tau"]])
    columns = [_NAME, Column("tau", "τ", "text")]
    for by in (CLASSIFIER, JUDGE):
        columns += [
            Column(f"validity_{by}", f"CV(τ), {by}", "share", f"low_{by}", f"high_{by}"),
            Column(f"n_above_{by}", "of slices", "count"),
            Column(f"flipped_{by}", f"turned normal, {by}", "share"),
        ]
    columns += [Column(f"note_{by}", f"note, {by}", "text") for by in (CLASSIFIER, JUDGE)]
    words = (
        "CV(τ): of the slices that the classifier gives a probability above τ, the share whose "
        "probability changes by more than τ; turned normal: of those above 0.5, the share that "
        "falls below it. No generator was trained against the judge: high by the classifier and "
        "low by the judge is a trick, not a repair."
    )
    validity = table_block("Validity", words, shown, columns, "No generator was evaluated.")
    return [classifier_block(evaluation), validity]


def repair_blocks(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Give tables of what was changed where, and how near repairs come to normal slices."""
    table = evaluation.tables["repairs"]
    blocks = [
        table_block(
            "What was changed",
            "Mean of |x − x′|/2, 0 to 1. A good repair changes the lesion, little around it and "
            "nothing in normal slices. Marked in normal: pixels above the threshold; stay normal: "
            "of normal slices that the classifier calls normal.",
            table, _CHANGES, "No generator was evaluated.",
        )
    ]  # fmt: skip
    if table["psnr"].notna().any() or table["psnr_input"].notna().any():
        words = (
            "Against the image before its anomaly was put in; PSNR (higher is nearer) is the mean "
            "over slices where it is finite. Inside the lesion a repair should be above what x "
            "has; outside nothing can be gained."
        )
        blocks.append(table_block("Nearness to the clean image", words, table, _TRUTH))
    words = (
        "Fréchet distance, lower is nearer. To normal slices: of repaired abnormal slices; of "
        "pairs: all slices against their own repairs, which unchanged normal slices flatter. "
        "Features of the named network, so no comparison with values elsewhere."
    )
    empty = "No generator was evaluated."
    table = table.assign(note=[_with_heads(note) for note in table["note"].fillna("").astype(str)])
    return [*blocks, table_block("Distance to normal slices", words, table, _DISTANCE, empty)]


def _with_heads(note: str) -> str:
    """Name columns as the heads of the table do."""
    for column in _DISTANCE[1:3]:
        note = note.replace(column.name, column.head)
    return note


def cost_block(evaluation: Evaluation) -> dict[str, Any]:
    """Give the table of seconds and passes."""
    columns = (
        _NAME, Column("seconds", "seconds, all slices"),
        Column("n_forward", "forward passes of a slice", "count"),
        Column("n_backward", "backward passes", "count"),
        Column("asked_as", "asked for as", "text"),
    )  # fmt: skip
    words = "Of the evaluated slices, validation and test; the training of generators is apart."
    return table_block("What it costs", words, evaluation.tables["methods"], columns)


def pooled_blocks(pooled: pd.DataFrame) -> list[dict[str, Any]]:
    """Give tables over runs: tuned IoU, validity, then the other overlaps.

    Parameters
    ----------
    pooled
        Columns `voxplain.records.counterfactual_evaluation.POOLED`.
    """
    words = (
        "Mean and standard deviation over runs, which differ in seed: weights, draws, and what "
        "else the seed decides. Small: the smallest and the largest run."
    )
    tail = (
        Column("mean", "mean", low="low", high="high"), Column("sd", "standard deviation"),
        Column("n_runs", "runs", "count"), Column("runs", "each run", "text"),
    )  # fmt: skip
    which = (_NAME, Column("metric", kind="text"))
    shown = pooled[pooled["mean"].notna()].sort_values("mean", ascending=False, kind="stable")
    is_first, is_validity = shown["metric"] == "iou_tuned", shown["metric"].str.match("validity")
    blocks = []
    for title, sentence, own, head in (
        (_metric("iou_tuned"), words, shown[is_first], (_NAME, Column("kind", kind="text"))),
        ("Validity", "", shown[is_validity], which),
        ("Other overlaps", "", shown[~is_first & ~is_validity], which),
    ):
        if len(own):
            rows, columns = _metric_words(own), (*head, *tail)
            blocks.append(_in_decimals(table_block(title, sentence, rows, columns), rows, columns))
    return blocks


def _differences(table: pd.DataFrame) -> dict[str, Any]:
    """Give a row a pair, a column a metric."""
    words = (
        "The overlap of the first method less that of the second at tuned thresholds, on the same "
        "slices and with the same patients drawn for both; an interval without 0 tells them apart. "
        "The generator was chosen on validation slices."
    )
    key = ["method", "rival"]
    shown = table.drop_duplicates(key)[key]
    for name in _OVERLAPS:
        own = table[table["metric"] == f"{name}_tuned"].drop(columns="metric")
        names = {"difference": name, "low": f"{name}_low", "high": f"{name}_high"}
        shown = shown.merge(own.rename(columns=names), on=key, how="left")
    columns = (
        _NAME, Column("rival", "less", "text"),
        *(_interval(name, head) for name, head in _OVERLAPS.items()),
    )  # fmt: skip
    block = table_block("Differences", words, shown, columns)
    return _in_decimals(block, shown, columns)


def _interval(name: str, head: str) -> Column:
    return Column(name, head, "number", f"{name}_low", f"{name}_high")


def _in_decimals(
    block: dict[str, Any], frame: pd.DataFrame, columns: Sequence[Column]
) -> dict[str, Any]:
    """Write values with an interval with three decimals, so that they compare down a column."""
    by_head = {column.head: column for column in columns if column.low}
    table = block["table"]
    for row, values in zip(table["rows"], frame.to_dict("records"), strict=False):
        for at, (head, _) in enumerate(table["heads"]):
            column = by_head.get(head)
            if column is None or math.isnan(values[column.name]):
                continue
            low, high = float(values[column.low]), float(values[column.high])
            is_known = not (math.isnan(low) or math.isnan(high))
            ends = f"{_decimal(low)} to {_decimal(high)}" if is_known else ""
            row[at] = (_decimal(values[column.name]), ends, values[column.name], False)
    return block


def _decimal(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _metric_words(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(metric=[_metric(str(name)) for name in table["metric"]])


def _metric(name: str) -> str:
    """Write ``iou_mean_tuned`` as IoU, per slice, tuned; ``validity BY TAU`` as CV(TAU), BY."""
    overlap, _, part = name.rpartition("_")
    if overlap in _OVERLAPS:
        return f"{_OVERLAPS[overlap]}, {part}"
    _, by, tau = name.split(" ")
    return f"CV({tau}), {by}"


def _reasons(table: pd.DataFrame, by: str) -> list[str]:
    notes = table["note"].fillna("").astype(str)
    found: list[str] = []
    for note in dict.fromkeys(notes[notes != ""]):
        names: Sequence[str] = [str(name) for name in table[by][notes == note]]
        which = "all methods" if len(names) == len(table) else ", ".join(names[:4])
        more = f" and {counted(len(names) - 4, 'more method')}" if len(names) > 4 else ""
        found.append(f"{which}{'' if which == 'all methods' else more}: {note}")
    return found
