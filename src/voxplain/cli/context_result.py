"""What ``voxplain context`` writes and prints at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxplain.errors import MethodError
from voxplain.inference.compute import peak_memory_bytes
from voxplain.lesions.case import LesionCase
from voxplain.records.archive import INDEX, file_sha256, write_json
from voxplain.records.lesion_tables import save_table
from voxplain.records.provenance import Cost, Provenance
from voxplain.report.wording import seconds


def model_labels(texts: Sequence[str], names: Sequence[str]) -> list[str]:
    """Names of the models in the tables; models of one name are told apart by their folders."""
    labels = [
        name if names.count(name) == 1 else f"{name} ({text})"
        for name, text in zip(names, texts, strict=True)
    ]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise MethodError(f"--model {twice} is given twice; every model is asked once")
    return labels


def context_provenance(
    case: LesionCase, label: str, asked: dict[str, Any], seed: int, took: float
) -> Provenance:
    """Say how the rows of one model were made; `took` in seconds."""
    pipeline = case.pipeline
    return Provenance(
        model=label, model_sha256=pipeline.info.sha256, case=case.image.name,
        image_sha256=case.image.sha256(), method="context",
        parameters={
            **asked,
            **asdict(case.settings),
            "class_name": case.class_name,
            **{f"window_{key}": value for key, value in asdict(pipeline.plan.settings).items()},
            "n_windows": len(pipeline.plan),
            "n_views": pipeline.model.n_views,
            "preprocessing": pipeline.model.describe_preparation(),
            **pipeline.compute.to_dict(),
            "model_grid": case.grid.describe(),
        },
        seed=seed,
        cost=Cost(
            pipeline.passes.n_forward, pipeline.passes.n_backward, took,
            peak_memory_bytes(pipeline.device),
        ),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip


def save_context(
    folder: Path, tables: Mapping[str, pd.DataFrame], provenance: Sequence[Provenance]
) -> None:
    """Write every table as .csv and .parquet, and provenance.json with their hashes.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    files = [file for name, table in tables.items() for file in save_table(table, folder, name)]
    write_json(
        folder / INDEX,
        {
            "format": "voxplain context",
            "version": 1,
            "provenance": [one.to_dict() for one in provenance],
            "files": {file.name: file_sha256(file) for file in files},
        },
    )


def print_context(
    name: str, tables: Mapping[str, pd.DataFrame], provenance: Sequence[Provenance], folder: Path,
    files: Sequence[str],
) -> None:  # fmt: skip
    """Print each model's median need, what it cost and where the files are."""
    console = Console(highlight=False)
    medians = tables["context_medians"]
    if len(medians):
        table = Table(title=Text(f"{name}: millimetres of surroundings, median over lesions"))
        for title in ("model", "mode", "type", "lesions", "reached", "median mm"):
            table.add_column(title, overflow="fold")
        for row in medians.to_dict("records"):
            cells = (
                row["model"], row["mode"], row["type"], row["n_lesions"], row["n_reached"],
                f"{row['median_mm']:.1f}",
            )  # fmt: skip
            table.add_row(*(Text(str(cell)) for cell in cells))
        console.print(table)
    else:
        console.print(Text(f"{name}: no lesion was found"), soft_wrap=True)
    n_forward = sum(one.cost.n_forward for one in provenance)
    took = seconds(sum(one.cost.seconds for one in provenance))
    console.print(Text(f"{n_forward} passes forward, {took}"), soft_wrap=True)
    console.print(Text(f"in {folder}: {', '.join(files)}"), soft_wrap=True)
