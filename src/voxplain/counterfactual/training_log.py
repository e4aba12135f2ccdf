"""The log of a generator's training: one row every so many steps, in CSV and in TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from voxplain.errors import MissingExtraError, TrainingError
from voxplain.report.drawing import Drawing
from voxplain.space.write import atomic_file

LOG = "log.csv"
TENSORBOARD = "tensorboard"
VALIDATION = "val_"
"""Before the name of each term that was measured on validation slices."""


def require_tensorboard() -> None:
    """Raise MissingExtraError if TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        raise MissingExtraError(
            "events for TensorBoard need the package: pip install tensorboard; log.csv holds "
            "the same numbers without it"
        )


class TrainingLog:
    """Rows that are written, and what has come since the last one.

    A row is the mean of each term over the steps since the row before that have the term; terms
    of validation slices begin with `VALIDATION`; seconds are wall time since the row before.

    Parameters
    ----------
    folder
        Of ``log.csv``.
    rows, since
        What `rows` and `since` were when the state was saved.
    tensorboard
        Also write events for TensorBoard into ``tensorboard``.

    Raises
    ------
    MissingExtraError
        If TensorBoard is asked for and not installed.
    """

    def __init__(
        self,
        folder: Path,
        rows: Sequence[Mapping[str, float | int | None]] = (),
        since: Mapping[str, Any] | None = None,
        *,
        tensorboard: bool = False,
    ) -> None:
        if tensorboard:
            require_tensorboard()
        self.folder = folder
        self.rows = tuple(rows)
        since = since or {}
        self._sums = {name: tuple(pair) for name, pair in since.get("sums", {}).items()}
        self._seconds = float(since.get("seconds", 0.0))
        self._writer: Any = None
        if tensorboard:
            last = int(self.rows[-1]["step"] or 0) if self.rows else 0
            events = import_module("torch.utils.tensorboard")
            # what an interrupted training logged after its last state is written again
            self._writer = events.SummaryWriter(str(folder / TENSORBOARD), purge_step=last + 1)

    @property
    def since(self) -> dict[str, Any]:
        """Sums of terms and seconds since the last row, as plain values."""
        return {"sums": dict(self._sums), "seconds": self._seconds}

    def add(self, terms: Mapping[str, float]) -> None:
        """Add the terms of a step."""
        for name, value in terms.items():
            total, n = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, n + 1)

    def spend(self, seconds: float) -> None:
        """Add wall time."""
        self._seconds += seconds

    def end_row(self, step: int, validation: Mapping[str, float]) -> None:
        """Write the row of a step (so many are done) and begin the next."""
        row: dict[str, float | int | None] = {"step": step}
        row |= {name: total / n for name, (total, n) in self._sums.items()}
        row |= {f"{VALIDATION}{name}": value for name, value in validation.items()}
        row["seconds"] = round(self._seconds, 3)
        self.rows = (*self.rows, row)
        self._sums, self._seconds = {}, 0.0
        self.write()
        if self._writer is not None:
            for name, value in row.items():
                if name != "step":
                    self._writer.add_scalar(name, value, step)

    def show(self, step: int, drawing: Drawing) -> None:
        """Show a drawing in TensorBoard, if it is written."""
        if self._writer is not None:
            canvas: Any = drawing.figure.canvas
            canvas.draw()
            pixels = np.asarray(canvas.buffer_rgba())[..., :3]
            self._writer.add_image("samples", pixels, step, dataformats="HWC")

    def write(self) -> None:
        """Write ``log.csv`` anew, whole or not at all."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        inner = [name for name in names if name not in ("step", "seconds")]
        inner.sort(key=lambda name: name.startswith(VALIDATION))
        with (
            atomic_file(self.folder / LOG) as path,
            path.open("w", encoding="utf-8", newline="") as file,
        ):
            columns = ["step", *inner, "seconds"]
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    def close(self) -> None:
        """Close the events of TensorBoard, if they are written."""
        if self._writer is not None:
            self._writer.close()


def read_log(folder: Path) -> pd.DataFrame:
    """Read ``log.csv``: step, each term, terms of validation, seconds; NaN where a row has none.

    Raises
    ------
    TrainingError
        If it is missing or torn.
    """
    try:
        table = pd.read_csv(folder / LOG)
        return table.astype({"step": int, "seconds": float})
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).split("\n")[0]
        raise TrainingError(
            f"{folder / LOG}: cannot be read as the log of a training ({reason}); --fresh begins "
            "anew"
        ) from None
