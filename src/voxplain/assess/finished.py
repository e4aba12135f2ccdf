"""A folder with a finished assessment: the one that is asked for, or another one."""

from __future__ import annotations

from pathlib import Path

from voxplain.assess.asked import Asked
from voxplain.errors import OutputError, RecordError
from voxplain.records.archive import INDEX
from voxplain.records.assessment import Assessment
from voxplain.records.provenance import Provenance
from voxplain.records.unfinished import PLAN_FILE

DIGEST = "asked_sha256"
"""Name of the parameter that tells in provenance what was asked, see `Asked.digest`."""

_WAYS = "give another --out, or --restart to measure anew and replace it"


def finished_assessment(asked: Asked, folder: Path, unfinished: Path) -> Assessment | None:
    """Return what a folder holds if it is what is asked for; None if there is work to do.

    Parameters
    ----------
    asked
        What is wanted.
    folder
        Of results; need not be there.
    unfinished
        Of parts. If it holds some, the folder is of no account: that run goes on, or is refused
        when its parts are opened.

    Raises
    ------
    OutputError
        If the folder holds another finished assessment.
    RecordError
        If it holds a damaged one.
    """
    if (unfinished / PLAN_FILE).is_file():
        return None
    if not ((folder / INDEX).is_file() and (folder / "scores.parquet").is_file()):
        return None
    try:
        found = Assessment.load(folder)
    except RecordError as error:
        raise RecordError(f"{error}; {_WAYS}") from error
    known = found.provenance.parameters
    if known.get(DIGEST) == asked.digest():
        return found
    wanted = Provenance("", "", "", "", "", asked.plan()).parameters
    other = sorted(name for name, value in wanted.items() if known.get(name) != value)
    what = ", ".join(other) or "state of the cases' files, boxes or given maps"
    raise OutputError(f"{folder} holds a finished assessment with another {what}; {_WAYS}")
