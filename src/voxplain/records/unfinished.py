"""A folder of a run that is not finished: which plan its parts belong to, and its end."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voxplain.errors import OutputError, RecordError
from voxplain.records.archive import read_json, write_json

_FORM, _VERSION = "voxplain plan", 1
PLAN_FILE = "plan.json"


def plan_digest(folder: Path | None, plan: Mapping[str, Any], what: str) -> str:
    """Write down a plan, or see that the folder's is the same.

    Parameters
    ----------
    folder
        Made if it is missing; None writes nothing.
    plan
        Everything that decides the result, as plain values.
    what
        The parts in the error's words, e.g. ``lesions``.

    Returns
    -------
    str
        Hash of the plan.

    Raises
    ------
    OutputError
        If the folder holds parts of another plan.
    """
    wanted = json.loads(json.dumps(plan, default=_plain))
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
    if folder is None:
        return digest
    path = folder / PLAN_FILE
    if path.is_file():
        found = read_json(path, _FORM, _VERSION)["plan"]
        other = sorted(k for k in {*wanted, *found} if wanted.get(k) != found.get(k))
        if other:
            raise OutputError(
                f"{folder} holds {what} of an unfinished run with another {', '.join(other)}; give "
                "the same settings to go on, another --out, or --restart to throw them away"
            )
    else:
        write_json(path, {"format": _FORM, "version": _VERSION, "plan": wanted})
    return digest


def read_plan(folder: Path) -> dict[str, Any]:
    """Return the plan that a folder's parts belong to.

    Raises
    ------
    RecordError
        If there is none, or it is damaged.
    """
    found = read_json(folder / PLAN_FILE, _FORM, _VERSION)["plan"]
    if not isinstance(found, dict):
        raise RecordError(f"{folder / PLAN_FILE} is damaged: it holds no plan")
    return found


def remove_parts(folder: Path) -> None:
    """Delete the parts of a run that has ended, or is thrown away; nothing else."""
    if (folder / PLAN_FILE).is_file():
        # renamed first: a process that is killed meanwhile leaves no parts without their plan
        gone = folder.with_name(f".{folder.name}-removed-{os.getpid()}")
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _plain(value: Any) -> Any:
    """Return a number of numpy as JSON holds it; else the text."""
    return value.item() if hasattr(value, "item") else str(value)
