"""Rows of the table of scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from voxplain.assess.parts import Row
from voxplain.assess.subject import Subject
from voxplain.records.assessment import ORIGINAL
from voxplain.records.metric import Measured


@dataclass(frozen=True)
class ListedCase:
    """A case by name; its files are read when it is its turn.

    Parameters
    ----------
    name, patient
        As in tables.
    read
        Gives the image and what is known of it.
    stamp
        What tells its files from changed ones, e.g. their sizes and times; a run that goes on
        measures a changed case again.
    """

    name: str
    patient: str
    read: Callable[[], Subject]
    stamp: str = ""


@dataclass(frozen=True)
class RowMaker:
    """What the rows of one part share.

    Parameters
    ----------
    case
        Whose name and patient stand in them.
    model, seed, stage, against
        As in `voxplain.records.assessment.SCORES`.
    """

    case: ListedCase
    model: str
    seed: int
    stage: str = ORIGINAL
    against: str = ""

    def row(
        self, method: str, target: str, metric: str, one: Measured, *, stage: str | None = None
    ) -> Row:
        """Make one row."""
        return {
            "case": self.case.name, "patient": self.case.patient, "model": self.model,
            "seed": self.seed, "stage": stage or self.stage, "method": method, "target": target,
            "metric": metric, "value": float(one.value), "flags": "; ".join(one.flags),
            "against": self.against,
        }  # fmt: skip
