"""What ``voxplain data check`` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxplain.data import DataCheck
from voxplain.data.check import metadata_columns, n_cases_of_split
from voxplain.data.fault import Fault


def print_check(result: DataCheck, path: Path) -> None:
    """Print what a cohort holds, then its faults, then remarks.

    Parameters
    ----------
    result
        What was found.
    path
        The data, as the user named them.
    """
    console = Console(highlight=False)
    table = Table.grid(padding=(0, 2))
    for name, value in summary_of(result).items():
        table.add_row(Text(name), Text(value))
    console.print(Text(str(path)))
    console.print(table)
    for word, faults in (("fault", result.faults), ("remark", result.remarks)):
        _print_list(console, word, faults)
    if not result.faults:
        console.print(Text("no fault found"))


def summary_of(result: DataCheck) -> dict[str, str]:
    """Tell in a few lines what a cohort holds; nothing of patients but case names."""
    cohort = result.cohort
    grids = [e.grid for e in result.examined if e.grid is not None]
    spacings = [tuple(round(s, 3) for s in grid.spacing) for grid in grids]
    metadata = metadata_columns(cohort)
    return {
        "layout": cohort.layout,
        "cases": f"{len(cohort)} ({_counted(n_cases_of_split(cohort))})",
        "channels": ", ".join(cohort.channels) or "not named",
        "classes": _classes(result),
        "labelled": f"{sum(bool(case.label_files) for case in cohort)} cases",
        "shapes": _range([grid.shape for grid in grids]),
        "spacings": _range(spacings, " mm"),
        "orientation": _counted(Counter(grid.orientation for grid in grids)) or "not read",
        "metadata": ", ".join(metadata) or "none",
        "looked at": "every voxel" if result.level == "full" else "headers (--full: every voxel)",
    }


def _classes(result: DataCheck) -> str:
    """Names of the classes, with the cases that each occurs in where they were counted."""
    counted = result.n_cases_of_class
    regions = ", ".join(result.cohort.regions)
    tail = f"; regions: {regions}" if regions else ""
    if counted is not None:
        return (", ".join(f"{name} in {n}" for name, n in counted.items()) or "none") + tail
    named = [f"{label} {name}" for label, name in result.cohort.classes.items() if label]
    return (", ".join(named) or "not declared") + tail


def _range(values: Sequence[tuple[float, ...]], unit: str = "") -> str:
    """One value, or the least and greatest along each axis."""
    words = []
    for rank in (2, 3):
        own = [value for value in values if len(value) == rank]
        if own:
            low, high = (tuple(map(pick, zip(*own, strict=True))) for pick in (min, max))
            words.append(f"{_tuple(low)}{unit}" + (f" to {_tuple(high)}{unit}" * (low != high)))
    return ", ".join(words) or "not read"


def _tuple(values: Iterable[float]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())


def _print_list(console: Console, word: str, faults: tuple[Fault, ...]) -> None:
    if faults:
        console.print(Text(f"\n{len(faults)} {word}{'s' * (len(faults) > 1)}"))
    for fault in faults:
        console.print(Text(f"  - {fault}"), soft_wrap=True)
