"""What is printed at the end of ``voxplain instances``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxplain.cli.summary import finding_lines, tight_percent
from voxplain.records.lesion_tables import LesionResult
from voxplain.report.wording import number, seconds, storage

_N_ROWS = 15


def print_instances(result: LesionResult, folder: Path, files: Sequence[str]) -> None:
    """Print the first lesions with their peaks, the findings and where the files are.

    Parameters
    ----------
    result
        What was written.
    folder
        Where, as the user named it.
    files
        Names of the files in it that this run wrote.
    """
    console = Console(highlight=False)
    frame = result.instances
    counts = frame["type"].value_counts(sort=False)
    said = ", ".join(f"{n} {kind}" for kind, n in counts.items()) or "no lesion was found"
    console.print(Text(f"{result.provenance.case}: {said}"), soft_wrap=True)
    if len(frame):
        console.print(_table(result))
    if len(frame) > _N_ROWS:
        console.print(Text(f"and {len(frame) - _N_ROWS} more in instances.csv"))
    for line in finding_lines(result.findings):
        console.print(Text(line), soft_wrap=True)
    cost = result.provenance.cost
    console.print(
        Text(
            f"{cost.n_forward} passes forward, {cost.n_backward} backward, "
            f"{seconds(cost.seconds)}, {storage(cost.peak_memory_bytes)} at most"
        ),
        soft_wrap=True,
    )
    console.print(Text(f"in {folder}: {', '.join(sorted(files))}"), soft_wrap=True)


def _table(result: LesionResult) -> Table:
    saliency = result.saliency
    method = saliency["method"].iloc[0]
    first = saliency[saliency["method"] == method].set_index(["instance", "channel"])
    channels = list(dict.fromkeys(first.index.get_level_values("channel")))
    unit = saliency["unit"].iloc[0]
    table = Table(title=Text(f"{method}, {unit}: strongest values and share of each channel"))
    for title in ("lesion", "type"):
        table.add_column(title)
    heads = [f"{channel} {what}" for channel in channels for what in ("+", "−", "share")]
    for title in ("mm³", "probability", *heads):
        table.add_column(Text(title), justify="right")
    for row in result.instances.head(_N_ROWS).to_dict("records"):
        cells = [number(row["volume_mm3"]), tight_percent(row["probability_mean"])]
        for channel in channels:
            one = first.loc[(row["instance"], channel)]
            cells += [number(one["peak_positive"]), number(one["peak_negative"])]
            cells.append(tight_percent(one["share"]))
        table.add_row(Text(row["instance"]), row["type"], *map(Text, cells))
    return table
