"""What ``voxplain assess`` prints: verdicts at the end, passes before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxplain.assess.asked import Asked
from voxplain.assess.case_scores import SHARED
from voxplain.assess.price import prices_of
from voxplain.records.assessment import Assessment
from voxplain.report.wording import seconds

_SIGNS = {
    "issue": "✗", "tip": "!", "passed": "✓", "not applicable": "–", "skipped": "·", "ignored": "·",
}  # fmt: skip


def print_assessment(result: Assessment, folder: Path, files: Sequence[str]) -> None:
    """Print a table of verdicts, the issues in words, and where the files are.

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
    cost = result.provenance.cost
    passes = f"{cost.n_forward + cost.n_backward:,}".replace(",", " ")
    console.print(
        Text(f"{result.provenance.case}, {passes} passes, {seconds(cost.seconds)}"), soft_wrap=True
    )
    subjects = list(dict.fromkeys(str(one.target) for one in result.findings))
    codes = {one.code: one.title for one in result.findings}
    title = "✗ issue  ! tip  ✓ passed  – not applicable  · skipped"
    table = Table(title=title, box=SIMPLE_HEAD, padding=0, collapse_padding=True)
    table.add_column("model · method", overflow="fold")
    for code in codes:
        table.add_column(code.removeprefix("VX"), justify="center", min_width=3)
    told = {(one.code, str(one.target)): one for one in result.findings}
    for subject in subjects:
        signs = [_SIGNS[told[code, subject].outcome] for code in codes]
        table.add_row(Text(subject), *signs)
    if subjects:
        console.print(table)
    issues: dict[tuple[str, str], list[str]] = {}
    for one in result.findings:
        if one.outcome == "issue":
            issues.setdefault((one.code, one.evidence), []).append(str(one.target))
    for (code, evidence), about in sorted(issues.items()):
        who = about[0] if len(about) == 1 else f"{len(about)} of {len(subjects)} rows"
        console.print(Text(f"{code} {codes[code]}: {who}: {evidence}"), soft_wrap=True)
    console.print(Text(f"{folder}: {', '.join(files)}"), soft_wrap=True)


def print_passes(asked: Asked) -> None:
    """Print the passes of each part of the first case, what sharing saves, and the time."""
    console = Console(highlight=False)
    n = len(asked.cases)
    total, duration = 0, 0.0
    for model, price in prices_of(asked).items():
        parts = price.parts
        table = Table(title=Text(f"{model}: passes of a window for one case"))
        for name in ("part", "forward", "backward"):
            table.add_column(name, justify="left" if name == "part" else "right")
        for name, passes in parts.items():
            table.add_row(Text(name), str(passes.n_forward), str(passes.n_backward))
        console.print(table)
        every = price.passes(n, asked.settings.n_pictures)
        total += every.total
        duration += price.seconds(every)
        shared = sum(passes.total for name, passes in parts.items() if SHARED in name)
        n_single = (len(asked.methods) + len(asked.settings.baselines)) * len(asked.targets)
        if shared:
            console.print(
                Text(
                    f"perturbed predictions: {shared} passes serve {n_single} maps; one by one "
                    f"they would take {shared * n_single}"
                ),
                soft_wrap=True,
            )  # fmt: skip
    cases = "1 case" if n == 1 else f"{n} cases like the first"
    told = f"{total:,}".replace(",", " ")
    is_most = asked.settings.has("curves") or asked.settings.has("road")
    is_most |= any(method.is_adaptive for method in asked.methods.values())
    console.print(
        Text(
            f"{cases}: {'at most ' if is_most else ''}{told} passes, about {seconds(duration)} on "
            "this device by the time that the prediction took, beside what the metrics take "
            "themselves; nothing was written"
        ),
        soft_wrap=True,
    )
