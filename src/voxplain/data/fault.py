"""What is wrong with data, or worth a look, in words that say what to do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from voxplain.errors import LabelError, VoxplainError

Kind = Literal["fault", "remark"]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a cohort, or (a remark) that only deserves a look.

    Parameters
    ----------
    what
        What is there, and what was expected.
    advice
        What to do.
    case
        Name of the case, as its files name it; None: of the whole cohort.
    file
        The file, relative to the cohort's root.
    kind
        ``fault``: must be mended before the data is used; ``remark``: may be as it is meant.
    """

    what: str
    advice: str
    case: str | None = None
    file: str | None = None
    kind: Kind = "fault"

    def __str__(self) -> str:
        """One sentence, led by where it is."""
        where = ", ".join(part for part in (self.case, self.file) if part)
        return f"{where}: {self.what}; {self.advice}" if where else f"{self.what}; {self.advice}"

    def to_json(self) -> dict[str, Any]:
        """Fields as a JSON object."""
        return {
            "kind": self.kind,
            "case": self.case,
            "file": self.file,
            "what": self.what,
            "advice": self.advice,
        }


def fault_of(error: VoxplainError, path: Path, root: Path, case: str | None = None) -> Fault:
    """Turn an error about one file into a fault; what follows its last ``;`` is the advice."""
    message = str(error).removeprefix(f"{path}: ").replace(str(path), path.name)
    what, _, advice = message.rpartition("; ")
    if not what or isinstance(error, LabelError):  # whose second half tells what came
        what, advice = message, "correct or replace the file"
    return Fault(what, advice, case, shown(path, root))


def shown(path: Path, root: Path) -> str:
    """Path relative to the root with forward slashes; whole where it lies elsewhere."""
    here, top = Path(os.path.normpath(path)), Path(os.path.normpath(root))
    return here.relative_to(top).as_posix() if here.is_relative_to(top) else here.as_posix()
