"""What `voxplain counterfactual evaluate` tells: tables, some slices to look at, provenance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import RecordError
from voxplain.records.archive import file_sha256, read_json, write_json
from voxplain.records.lesion_tables import check_columns
from voxplain.space.write import atomic_folder

_OVERLAPS = tuple(
    f"{metric}{mean}_{{0}}{end}"
    for metric in ("iou", "dice")
    for mean in ("", "_mean")
    for end in ("", "_low", "_high")
)

SHARES = ("auroc", "accuracy", "sensitivity", "specificity")
"""How good a classifier is."""

METHODS = (
    "method", "kind", "n_slices", "n_patients",
    "threshold_tuned", *(name.format("tuned") for name in _OVERLAPS),
    "threshold_fixed", *(name.format("fixed") for name in _OVERLAPS),
    "iou_validation", "seconds", "n_forward", "n_backward", "asked_as", "note",
)  # fmt: skip
"""One row a method, over abnormal test slices whose lesion is known. ``iou_tuned``: pooled over
pixels; ``iou_mean_tuned``: mean over slices; ``…_low``, ``…_high``: interval by patients.
``threshold_tuned`` has the largest pooled IoU of the validation slices, ``iou_validation``.
``kind``: of `KINDS`. ``n_forward``: passes of one slice. ``asked_as``: what to write in
``evaluation.methods`` for it, of attribution methods. ``note``: why values are missing."""

CURVES = ("method", "part", "threshold", "iou", "dice")
"""Pooled, after the post filter. ``part``: test or validation."""

CLASSIFIERS = (
    "by", "n_slices", "n_abnormal", "n_patients",
    *(f"{name}{end}" for name in SHARES for end in ("", "_low", "_high")), "note",
)  # fmt: skip
"""One row a classifier, over *all* test slices. ``by``: `CLASSIFIER` or `JUDGE`. ``accuracy``,
``sensitivity``, ``specificity``: abnormal is called what has a probability above 0.5;
``…_low``, ``…_high``: interval by patients."""

VALIDITY = (
    "method", "by", "tau", "n_slices", "n_above", "validity", "low", "high", "n_abnormal",
    "flipped", "note",
)  # fmt: skip
"""``by``: `CLASSIFIER` or `JUDGE`. ``validity``: of the ``n_above`` slices with p(x) > tau, the
share with |p(x) − p(x′)| > tau. ``flipped``: of the ``n_abnormal`` slices with p(x) > .5, the
share with p(x′) < .5."""

REPAIRS = (
    "method", "n_abnormal", "n_normal", "change_inside", "change_outside", "change_normal",
    "marked_normal", "still_normal", "psnr", "psnr_inside", "psnr_outside", "psnr_input",
    "psnr_input_inside", "n_exact", "ssim", "fid_normal", "fid_pairs", "features", "note",
)  # fmt: skip
"""``change_…``: mean of |x − x′|/2 inside and outside of the truth of abnormal slices, and on
normal ones; ``marked_normal``: share of the pixels of normal slices above the tuned threshold;
``still_normal``: of normal slices that the classifier calls normal, the share it still does.
``psnr…``: dB of x′ (``psnr_input``: of x) against the clean picture, mean over slices where it is
finite; ``n_exact``: slices where it is not. ``fid_normal``: Fréchet distance of ``features`` from
normal slices to repaired abnormal ones; ``fid_pairs``: of all slices to their repairs, as in the
paper, which normal slices flatter."""

DIFFERENCES = ("method", "rival", "metric", "difference", "low", "high")
"""``metric`` of the method less that of the rival, paired: the same slices, the same draws of
patients. The method is the generator with the largest pooled IoU on the validation slices."""

SLICES = (
    "method", "slice", "case", "patient", "index", "label", "iou", "dice", "change",
    "probability_before", "probability_after", "judge_before", "judge_after",
)  # fmt: skip
"""One row a method and slice. ``slice`` counts the evaluated ones: abnormal, then normal. ``iou``,
``dice``: at the tuned threshold, else the fixed one. ``…_after``: of generators."""

POOLED = ("method", "kind", "metric", "n_runs", "mean", "sd", "low", "high", "runs")
"""Over runs with different seeds; ``low``, ``high``: smallest and largest; ``runs``: RUN=VALUE."""

KINDS = ("counterfactual", "attribution", "intensity")
CLASSIFIER, JUDGE = "classifier", "judge"
TEST, VALIDATION = "test", "validation"

TABLES: Mapping[str, tuple[str, ...]] = {
    "methods": METHODS,
    "curves": CURVES,
    "classifiers": CLASSIFIERS,
    "validity": VALIDITY,
    "repairs": REPAIRS,
    "differences": DIFFERENCES,
    "slices": SLICES,
}
_FORM, _VERSION = "voxplain counterfactual evaluation", 1
INDEX = "evaluation.json"
PICTURES = "pictures.npz"
_TEXTS = ("method", "kind", "part", "by", "rival", "metric", "case", "features",
    "asked_as", "note",
)  # fmt: skip
_METRICS = ("iou", "iou_mean", "dice", "dice_mean")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Methods compared on the same frozen slices.

    Parameters
    ----------
    tables
        By name, with the columns of `TABLES`.
    pictures
        Some abnormal test slices, n first everywhere: ``image`` (n, rows, columns) in [−1, 1],
        ``truth``, ``organ``, ``inside`` truth values, ``clean`` where it is known, ``slice`` (n,)
        their number in the table slices; and of each method ``map/METHOD`` as it is thresholded,
        ``mask/METHOD`` at the tuned threshold (else the fixed one), ``repair/METHOD`` of
        generators.
    provenance
        Plain values: seed, versions, settings, hashes, seconds, notes.

    Raises
    ------
    LabelError
        If a table lacks a column.
    RecordError
        If a table is missing.
    """

    tables: Mapping[str, pd.DataFrame]
    pictures: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if set(self.tables) != set(TABLES):
            raise RecordError(f"an evaluation has tables {', '.join(TABLES)}; got {[*self.tables]}")
        for name, columns in TABLES.items():
            check_columns(self.tables[name], columns, name)


def write_evaluation(evaluation: Evaluation, folder: Path | str) -> None:
    """Write a CSV a table, ``pictures.npz`` and ``evaluation.json``, all or nothing.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with atomic_folder(folder) as place:
        files = []
        for name, table in evaluation.tables.items():
            table.to_csv(place / f"{name}.csv", index=False)
            files.append(place / f"{name}.csv")
        with (place / PICTURES).open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **dict(evaluation.pictures))
        files.append(place / PICTURES)
        values = {
            "format": _FORM,
            "version": _VERSION,
            "provenance": dict(evaluation.provenance),
            "files": {file.name: file_sha256(file) for file in files},
        }
        write_json(place / INDEX, values)


def read_evaluation(folder: Path | str) -> Evaluation:
    """Read what `write_evaluation` wrote.

    Raises
    ------
    RecordError
        If a file is missing, was changed since, or holds something else.
    """
    folder = Path(folder)
    known = read_json(folder / INDEX, _FORM, _VERSION)
    try:
        for name, expected in known["files"].items():
            if file_sha256(folder / name) != expected:
                raise RecordError(f"{folder / name} was changed since it was saved")
        with np.load(folder / PICTURES, allow_pickle=False) as stored:
            pictures = {name: stored[name] for name in stored.files}
        tables = {name: _table(folder / f"{name}.csv", TABLES[name]) for name in TABLES}
        return Evaluation(tables, pictures, known["provenance"])
    except (KeyError, OSError, ValueError) as error:
        raise RecordError(f"{folder / INDEX} is incomplete: {error!r}") from error


def pooled(evaluations: Mapping[str, Evaluation]) -> pd.DataFrame:
    """Overlap and validity of each method over several runs, e.g. seeds; columns `POOLED`.

    Parameters
    ----------
    evaluations
        By the name of the run.

    Returns
    -------
    pandas.DataFrame
        One row a method and metric: the overlaps of `METHODS`, and ``validity BY tau``. Runs in
        which a metric has no value are left out; sd (n − 1) of one run is NaN.
    """
    rows: dict[tuple[str, str, str], dict[str, float]] = {}
    for run, evaluation in evaluations.items():
        methods = evaluation.tables["methods"]
        for row in methods.to_dict("records"):
            for metric in _METRICS:
                for part in ("tuned", "fixed"):
                    key = (row["method"], row["kind"], f"{metric}_{part}")
                    rows.setdefault(key, {})[run] = float(row[f"{metric}_{part}"])
        for row in evaluation.tables["validity"].to_dict("records"):
            key = (row["method"], KINDS[0], f"validity {row['by']} {row['tau']:g}")
            rows.setdefault(key, {})[run] = float(row["validity"])
    found = []
    for (method, kind, metric), values in rows.items():
        known = {run: value for run, value in values.items() if math.isfinite(value)}
        numbers = np.array([*known.values()], np.float64)
        n = len(numbers)
        found.append({
            "method": method, "kind": kind, "metric": metric, "n_runs": n,
            "mean": numbers.mean() if n else np.nan,
            "sd": numbers.std(ddof=1) if n > 1 else np.nan,
            "low": numbers.min() if n else np.nan,
            "high": numbers.max() if n else np.nan,
            "runs": "; ".join(f"{run}={value:.4g}" for run, value in known.items()),
        })  # fmt: skip
    return pd.DataFrame(found, columns=list(POOLED))


def _table(file: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read a table; texts stay texts, also empty ones and such as look like numbers."""
    texts = {name: str for name in columns if name in _TEXTS}
    blanks = {name: [""] for name in columns if name not in _TEXTS}
    return pd.read_csv(file, dtype=texts, keep_default_na=False, na_values=blanks)
