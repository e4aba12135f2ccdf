"""What is printed at the end of a run, and what a run will cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxplain.attribution import Estimate
from voxplain.records import ClassScore, Explanation, Finding
from voxplain.report.focus import is_divided
from voxplain.report.games import strongest, with_error
from voxplain.report.wording import number, percent, seconds, storage

N_TARGETS = 10
N_REGIONS = 3
N_CLASSES = 5
_OUTCOMES = ("issue", "tip", "not applicable")


def print_summary(explanation: Explanation, folder: Path, files: Sequence[str]) -> None:
    """Print the strongest regions of the first targets, the findings and where the files are.

    Parameters
    ----------
    explanation
        What was written.
    folder
        Where, as the user named it.
    files
        Names of the files in it that this run wrote.
    """
    console = Console(highlight=False, soft_wrap=False)
    reached = [target for target in explanation.targets if target.n_windows > 0]
    title = Text(f"{explanation.provenance.case}, {explanation.method}")
    table = Table(title=title, min_width=title.cell_len + 2)
    table.add_column("target")
    table.add_column(Text("score"), justify="right")
    divided = is_divided(explanation)
    if divided:
        table.add_column(Text("regions with the largest shares of the map"))
    for target in reached[:N_TARGETS]:
        if not divided:
            table.add_row(Text(target.name), number(target.score))
            continue
        rows = explanation.table.top(target.name, N_REGIONS)
        shares = ", ".join(f"{name} {tight_percent(row.share)}" for name, row in rows.iterrows())
        table.add_row(Text(target.name), number(target.score), Text(shares))
    if explanation.classes:
        console.print(Text(_verdict(explanation.classes)), soft_wrap=True)
    if reached:
        console.print(table)
    if len(reached) > N_TARGETS:
        console.print(Text(f"and {len(reached) - N_TARGETS} more targets in regions.csv"))
    if line := _players(explanation, [target.name for target in reached]):
        console.print(Text(line), soft_wrap=True)
    for line in finding_lines(explanation.findings):
        console.print(Text(line), soft_wrap=True)
    cost = explanation.provenance.cost
    console.print(
        Text(
            f"{cost.n_forward} passes forward, {cost.n_backward} backward, "
            f"{seconds(cost.seconds)}, {storage(cost.peak_memory_bytes)} at most"
        ),
        soft_wrap=True,
    )
    console.print(Text(f"in {folder}: {', '.join(sorted(files))}"), soft_wrap=True)


def _verdict(classes: Sequence[ClassScore]) -> str:
    """Say what a classifier says: the likeliest classes, or the largest outputs."""
    first = sorted(classes, key=lambda score: -score.logit)[:N_CLASSES]
    said = ", ".join(
        f"{s.name} {number(s.logit) if s.probability is None else tight_percent(s.probability)}"
        for s in first
    )
    rest = len(classes) - len(first)
    return f"the model says: {said}" + (f" and {rest} more" if rest else "")


def _players(explanation: Explanation, reached: Sequence[str]) -> str:
    """Say what the strongest players of the first target are worth; empty without a game."""
    if explanation.players is None:
        return ""
    played = set(explanation.players.frame["target"])
    first = next((name for name in reached if name in played), None)
    if first is None:
        return ""
    rows = strongest(explanation.players, first)
    said = ", ".join(
        f"{row['player']} {with_error(row['value'], row['error'])}"
        for row in rows.head(N_REGIONS).to_dict("records")
    )
    rest = len(rows) - N_REGIONS
    more = f" and {rest} more" if rest > 0 else ""
    return f"players of {first}: {said}{more} in players.csv"


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """One line for each code and outcome; a code of one target with its evidence."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        if finding.outcome in _OUTCOMES:
            groups.setdefault((finding.code, finding.outcome), []).append(finding)
    lines = []
    for (code, outcome), group in groups.items():
        targets = ", ".join(f.target for f in group if f.target is not None)
        words = f"{code} {outcome}: {group[0].title}" + (f" ({targets})" if targets else "")
        lines.append(words + (f": {group[0].evidence}" if len(group) == 1 else ""))
    return lines


def print_estimate(estimate: Estimate, n_targets: int) -> None:
    """Print what a run will cost; say so where it is an upper bound."""
    most = "at most " if estimate.is_upper_bound else ""
    console = Console(highlight=False)
    for line in (
        f"targets   {n_targets}",
        f"windows   {estimate.n_windows}",
        f"passes    {most}{estimate.n_forward} forward, {most}{estimate.n_backward} backward",
        f"memory    about {storage(estimate.memory_bytes)} beside the program itself",
        f"time      {most}about {seconds(estimate.seconds)}",
    ):
        console.print(Text(line), soft_wrap=True)
    if estimate.is_upper_bound:
        console.print(
            Text(
                "upper bound: the predicted masks are not known yet; windows that no target "
                "reaches will not be run"
            ),
            soft_wrap=True,
        )
    console.print(Text("dry run: nothing was written"))


def tight_percent(share: float) -> str:
    """Share in percent, without the space where a line could break."""
    return percent(share).replace(" ", "")
