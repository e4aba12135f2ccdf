"""What `voxplain assess` tells: one tidy table of scores, and what was concluded of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import RecordError
from voxplain.records.archive import INDEX, file_sha256, read_json, write_json
from voxplain.records.finding import Finding
from voxplain.records.lesion_tables import check_columns, load_table, save_table
from voxplain.records.metric import Metric
from voxplain.records.provenance import Provenance
from voxplain.space.write import atomic_file

SCORES = (
    "case", "patient", "model", "seed", "stage", "method", "target", "metric", "value", "flags",
    "against",
)  # fmt: skip
"""One row a number. All but ``value`` together are the key: no two rows share it.

``stage``: `ORIGINAL`, or ``ORDER:K`` after step K of a cascade (K = 0: the trained network);
`REPEAT`, `REPRODUCE` or `RANDOM_PAIRS` for two maps compared. ``seed``: of the randomisation,
else of the run. ``method``: its label, or ``baseline:NAME``. ``flags``: of
`voxplain.records.metric.FLAGS`, joined by ``; ``. ``against``: what the map was compared with
(a model, a case), else empty."""

SUMMARY = (
    "model", "stage", "method", "target", "metric", "n", "n_patients", "n_undefined", "mean", "sd",
    "median", "low", "high",
)  # fmt: skip
"""Over cases, patients drawn together. ``low``, ``high``: interval of the mean. Target
`ALL_TARGETS`: first the mean over a case's targets."""

COMPARISONS = (
    "model", "method", "rival", "metric", "n", "n_patients", "difference", "low", "high", "p",
    "p_holm", "effect", "note",
)  # fmt: skip
"""Method less rival, paired by case and target. effect: matched-pairs rank-biserial correlation.
note: why there is no p, else empty."""

STAGES = ("model", "order", "number", "layers", "n_parameters")
"""What step ``number`` of a cascade randomised, its own layers joined by ``; ``."""

PICTURES = (
    "case",
    "model",
    "seed",
    "stage",
    "method",
    "target",
    "axis",
    "index",
    "low",
    "high",
    "file",
)
"""One plane of a map (or of the image: method empty); values low … high are 0 … 255 in ``file``."""

ORIGINAL = "original"
REPEAT, REPRODUCE, RANDOM_PAIRS = "repeatability", "reproducibility", "random pairs"
ALL_TARGETS = "all targets"
BASELINE = "baseline:"

_FORM, _VERSION = "voxplain assessment", 1
_TABLES = {
    "scores": SCORES, "summary": SUMMARY, "comparisons": COMPARISONS, "stages": STAGES,
    "pictures": PICTURES,
}  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class Assessment:
    """Scores of explanations, their summary and the verdicts.

    Parameters
    ----------
    scores, summary, comparisons, stages, pictures
        Tables with the columns `SCORES`, `SUMMARY`, `COMPARISONS`, `STAGES`, `PICTURES`.
    metrics
        Meaning of every metric in the table.
    findings
        Coded verdicts; ``target`` says which model and method they are about.
    provenance
        How it was made; case and image of it say how many there were.
    planes
        Pixels (uint8) of each row of `pictures`, by its ``file``.

    Raises
    ------
    LabelError
        If a table lacks a column.
    RecordError
        If two scores have one key.
    """

    scores: pd.DataFrame
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    stages: pd.DataFrame
    pictures: pd.DataFrame
    metrics: tuple[Metric, ...]
    provenance: Provenance
    findings: tuple[Finding, ...] = ()
    planes: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, columns in _TABLES.items():
            check_columns(getattr(self, name), columns, name)
        key = [column for column in SCORES if column != "value"]
        twice = self.scores[self.scores.duplicated(key)]
        if len(twice):
            told = {name: twice.iloc[0][name] for name in key if name != "patient"}
            raise RecordError(f"two scores have one key: {told}")

    def metric(self, name: str) -> Metric:
        """Return the meaning of a metric.

        Raises
        ------
        RecordError
            If there is none of this name.
        """
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise RecordError(f"no metric {name!r} in this assessment")

    def save(self, folder: Path | str) -> list[Path]:
        """Write the tables (.csv, .parquet), ``planes.npz`` and ``provenance.json``.

        Parameters
        ----------
        folder
            Existing.

        Returns
        -------
        list of Path
            What was written, ``provenance.json`` with every file's SHA-256 last.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        folder = Path(folder)
        files = [file for name in _TABLES for file in save_table(getattr(self, name), folder, name)]
        with atomic_file(folder / "planes.npz") as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **dict(self.planes))
        files.append(folder / "planes.npz")
        write_json(
            folder / INDEX,
            {
                "format": _FORM,
                "version": _VERSION,
                "metrics": [_plain(metric) for metric in self.metrics],
                "findings": [vars(finding) for finding in self.findings],
                "provenance": self.provenance.to_dict(),
                "files": {file.name: file_sha256(file) for file in files},
            },
        )
        return [*files, folder / INDEX]

    @classmethod
    def load(cls, folder: Path | str) -> Assessment:
        """Read what `save` wrote.

        Raises
        ------
        RecordError
            If a file is missing, was changed since it was saved, or holds something else.
        """
        folder = Path(folder)
        known = read_json(folder / INDEX, _FORM, _VERSION)
        try:
            for name, expected in known["files"].items():
                if file_sha256(folder / name) != expected:
                    raise RecordError(f"{folder / name} was changed since it was saved")
            with np.load(folder / "planes.npz", allow_pickle=False) as planes:
                pixels = {name: planes[name] for name in planes.files}
            return cls(
                **{name: load_table(folder, name) for name in _TABLES},
                metrics=tuple(_metric(one) for one in known["metrics"]),
                findings=tuple(Finding(**one) for one in known["findings"]),
                provenance=Provenance.from_dict(known["provenance"]),
                planes=pixels,
            )
        except (KeyError, TypeError) as error:
            raise RecordError(f"{folder / INDEX} is incomplete: {error!r}") from error


def frame_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Tabulate rows, also none, under these columns."""
    return pd.DataFrame(list(rows), columns=list(columns))


def _plain(metric: Metric) -> dict[str, Any]:
    """Metric for JSON, which has no infinity."""
    values = asdict(metric)
    return {k: str(v) if k in ("low", "high") else v for k, v in values.items()}


def _metric(values: Mapping[str, Any]) -> Metric:
    return Metric(**{**values, "low": float(values["low"]), "high": float(values["high"])})
