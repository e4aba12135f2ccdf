"""What ``voxplain instances-study`` writes and prints at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxplain.records.archive import file_sha256
from voxplain.records.provenance import Provenance
from voxplain.report.wording import number
from voxplain.study.feature_values import NO_MAP
from voxplain.study.gather import result_folders

_N_ROWS = 12
_INPUTS = ("instances.parquet", "saliency.parquet", "shells.parquet")


def study_provenance(
    instances: pd.DataFrame, folders: Sequence[Path], asked: Mapping[str, Any], seed: int
) -> Provenance:
    """Say what went into a study: every input file with its SHA-256, settings and seed."""
    inputs = {
        str(place / name): file_sha256(place / name)
        for place in result_folders(folders)
        for name in _INPUTS
    }
    n_cases, n_patients = instances["case"].nunique(), instances["patient"].nunique()
    return Provenance(
        model=", ".join(dict.fromkeys(instances["model"])), model_sha256="",
        case=f"{n_cases} cases of {n_patients} patients", image_sha256="",
        method="instances-study", parameters={**asked, "inputs": inputs}, seed=seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip


def print_study(
    instances: pd.DataFrame, tables: Mapping[str, pd.DataFrame], folder: Path, files: Sequence[str]
) -> None:
    """Print counts, the largest effects, the detector and where the files are."""
    console = Console(highlight=False)
    for names, part in instances.groupby(["model"], sort=False):
        counts = part["type"].value_counts(sort=False)
        said = ", ".join(f"{n} {kind!s}" for kind, n in counts.items())
        n_cases, n_patients = part["case"].nunique(), part["patient"].nunique()
        line = f"{names[0]!s}: {n_cases} cases of {n_patients} patients: {said}"
        console.print(Text(line), soft_wrap=True)
    effects = tables["effects"]
    if len(effects):
        console.print(_effects(effects))
    else:
        console.print(Text("one type of lesion only: nothing to compare"), soft_wrap=True)
    for note, part in tables["detector"].groupby("note", sort=False):
        if note:
            which = ", ".join(dict.fromkeys(part["method"] + " " + part["predictor"]))
            console.print(Text(f"detector, {which}: {note!s}"), soft_wrap=True)
    known = tables["detector"][tables["detector"]["auroc"].notna()]
    if len(known):
        console.print(_detector(known))
    console.print(Text(f"in {folder}: {', '.join(files)}"), soft_wrap=True)


def _effects(effects: pd.DataFrame) -> Table:
    of_maps = effects[effects["method"] != NO_MAP]
    chosen = effects if of_maps.empty else of_maps
    order = chosen["cliffs_delta"].abs().sort_values(ascending=False, kind="stable").index
    names = ["model"] if effects["model"].nunique() > 1 else []
    names += ["method", "channel", "feature"]
    table = Table(title="Largest differences between types (Cliff's delta, interval by patient)")
    for title in (*names, "types"):
        table.add_column(title, overflow="fold")
    for title in ("delta", "interval", "p (Holm)"):
        table.add_column(title, justify="right")
    for row in chosen.loc[order[:_N_ROWS]].to_dict("records"):
        cells = (
            *(row[name] for name in names), f"{row['type_a']} – {row['type_b']}",
            f"{row['cliffs_delta']:.2f}", _interval(row["low"], row["high"]),
            number(row["p_holm"], 2),
        )  # fmt: skip
        table.add_row(*(Text(str(cell)) for cell in cells))
    return table


def _detector(detector: pd.DataFrame) -> Table:
    names = ["model"] if detector["model"].nunique() > 1 else []
    names += ["method", "predictor"]
    table = Table(title="False positives told from true ones, in patients not trained on")
    for title in names:
        table.add_column(title, overflow="fold")
    for title in ("AUROC", "interval", "over probability", "interval"):
        table.add_column(title, justify="right")
    for row in detector.to_dict("records"):
        gain = "–" if pd.isna(row["auroc_gain"]) else f"{row['auroc_gain']:+.2f}"
        cells = (
            *(row[name] for name in names), f"{row['auroc']:.2f}",
            _interval(row["auroc_low"], row["auroc_high"]), gain,
            _interval(row["auroc_gain_low"], row["auroc_gain_high"]),
        )  # fmt: skip
        table.add_row(*(Text(str(cell)) for cell in cells))
    return table


def _interval(low: float, high: float) -> str:
    return "–" if pd.isna(low) else f"{low:.2f} to {high:.2f}"
