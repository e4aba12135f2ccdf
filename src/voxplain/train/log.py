"""The log of a training: one row an epoch."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from voxplain.space import atomic_file

LOG = "log.csv"


def write_log(
    folder: Path, rows: Sequence[Mapping[str, float | int | None]], class_names: Sequence[str]
) -> None:
    """Write ``log.csv``: epoch, loss, learning rate, Dice, its classes, seconds.

    Dice is empty for epochs without validation and for classes that no validation case has.
    """
    columns = ["epoch", "loss", "learning_rate", "dice", *(f"dice_{n}" for n in class_names[1:])]
    with (
        atomic_file(folder / LOG) as path,
        path.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, [*columns, "seconds"], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
