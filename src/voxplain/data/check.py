"""`check`: every fault of a cohort at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from voxplain.data.cohort import Cohort
from voxplain.data.compare import compare
from voxplain.data.examine import Examined, Level, examine
from voxplain.data.fault import Fault


@dataclass(frozen=True)
class DataCheck:
    """What was found in a cohort.

    Parameters
    ----------
    cohort
        The cases.
    level
        ``quick`` or ``full``.
    examined
        What was found in each case.
    found
        Faults and remarks, those of lists first, then by case, then between cases.
    """

    cohort: Cohort
    level: Level
    examined: tuple[Examined, ...]
    found: tuple[Fault, ...]

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What must be mended."""
        return tuple(fault for fault in self.found if fault.kind == "fault")

    @property
    def remarks(self) -> tuple[Fault, ...]:
        """What deserves a look."""
        return tuple(fault for fault in self.found if fault.kind == "remark")

    @property
    def n_cases_of_class(self) -> dict[str, int] | None:
        """In how many cases each class occurs, in the order of labels; None if not counted."""
        if self.level != "full":
            return None
        n = Counter(name for e in self.examined for name in e.labels or ())
        named = [name for label, name in self.cohort.classes.items() if label]
        return {name: n[name] for name in [*named, *sorted(set(n) - set(named))]}

    def to_json(self) -> dict[str, Any]:
        """Summary, faults and remarks as a JSON object; no patient and no metadata values."""
        cohort = self.cohort
        return {
            "layout": cohort.layout,
            "level": self.level,
            "n_cases": len(cohort),
            "splits": n_cases_of_split(cohort),
            "channels": list(cohort.channels),
            "classes": {str(label): name for label, name in cohort.classes.items()},
            "regions": {name: list(labels) for name, labels in cohort.regions.items()},
            "n_cases_of_class": self.n_cases_of_class,
            "metadata": metadata_columns(cohort),
            "cases": [
                {
                    "case": e.case.name,
                    "split": e.case.split,
                    "shape": None if e.grid is None else list(e.grid.shape),
                    "spacing_mm": None if e.grid is None else list(e.grid.spacing),
                    "orientation": None if e.grid is None else e.grid.orientation,
                    "n_channels": e.n_channels,
                    "classes": None if e.labels is None else sorted(e.labels),
                }
                for e in self.examined
            ],
            "faults": [fault.to_json() for fault in self.faults],
            "remarks": [fault.to_json() for fault in self.remarks],
        }


def check(
    cohort: Cohort,
    level: Level = "quick",
    progress: Callable[[int, int], None] | None = None,
) -> DataCheck:
    """Find every fault of a cohort; none hides another.

    Parameters
    ----------
    cohort
        From `read_data`, best with ``is_strict=False``.
    level
        ``quick``: lists, files and headers (of a DICOM series: only that it is there).
        ``full``: also every voxel.
    progress
        Called with the files done and the files in all.

    Returns
    -------
    DataCheck
        Faults, remarks and what the files hold.

    Notes
    -----
    One file is in memory at a time.
    """
    total = sum(len(case.images) + len(case.label_files) for case in cohort)
    done = 0

    def tell() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    examined = tuple(examine(case, cohort, level, tell) for case in cohort)
    own = [fault for e in examined for fault in e.faults]
    found = (*cohort.faults, *own, *compare(cohort, examined))
    return DataCheck(cohort, level, examined, found)


def n_cases_of_split(cohort: Cohort) -> dict[str, int]:
    """Count the cases of each split; those in none under ``no split``."""
    return dict(Counter(case.split or "no split" for case in cohort))


def metadata_columns(cohort: Cohort) -> list[str]:
    """Names of the metadata that any case has, in order of appearance."""
    return list(dict.fromkeys(key for case in cohort for key in case.metadata))
