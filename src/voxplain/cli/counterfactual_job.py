"""Training and evaluation of counterfactuals as the command line asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from voxplain.counterfactual.config import Config
from voxplain.counterfactual.evaluated_runs import evaluate_runs
from voxplain.counterfactual.training import train_run
from voxplain.data import Cohort
from voxplain.errors import TrainingError

if TYPE_CHECKING:
    from voxplain.counterfactual.generator_training import Moment


def train_job(
    config: Config, cohort: Cohort, out: Path, *, resume: bool, device: str, is_quiet: bool
) -> None:
    """Train a run with a progress bar, and tell what was learned from."""
    try:
        with steps_bar(is_quiet) as progress:
            run = train_run(config, cohort, out, resume=resume, device=device, progress=progress)
    except KeyboardInterrupt:
        raise TrainingError(
            "interrupted; the same command continues from the last saved state"
        ) from None
    if is_quiet:
        return
    from voxplain.report.cohort_rows import counted

    for part, counts in run.about_data["parts"].items():
        abnormal = (
            "anomalies are drawn anew for every step"
            if part == "train" and config.data.abnormal.synthetic is not None
            else f"{counts['abnormal']} abnormal"
        )
        typer.echo(
            f"  {part:<11} {counted(counts['slices'], 'slice')} of "
            f"{counted(counts['patients'], 'patient')}, {abnormal}"
        )
    for note in run.notes:
        typer.echo(f"  note: {note}")
    typer.echo(f"wrote {out}: classifiers, {', '.join(run.names)}")


def evaluate_job(
    runs: Sequence[Path], out: Path, changes: Sequence[str], *, device: str, is_quiet: bool
) -> None:
    """Evaluate runs, write tables and the page, and print the main table."""
    from voxplain.cli.counterfactual_summary import print_evaluation

    with steps_bar(is_quiet) as progress:
        evaluations = evaluate_runs(runs, out, changes, device=device, progress=progress)
    for name, evaluation in evaluations.items():
        print_evaluation(evaluation, out if len(runs) == 1 else out / name, quiet=is_quiet)
    if not is_quiet:
        typer.echo(f"open {out / 'report.html'}")


@contextmanager
def steps_bar(is_quiet: bool) -> Iterator[Callable[[Moment], None]]:
    """Show what is trained or scored, its steps, its loss, and the time left."""
    from rich.progress import MofNCompleteColumn, TextColumn

    from voxplain.cli.progress import timed_bar

    with timed_bar(is_quiet, MofNCompleteColumn(), TextColumn("{task.fields[numbers]}")) as bar:
        tasks: dict[str, Any] = {}

        def show(now: Moment) -> None:
            if now.what not in tasks:  # each part has its own line and its own clock
                for task in tasks.values():
                    bar.update(task, visible=False)
                tasks[now.what] = bar.add_task(
                    now.what, total=now.n_steps, completed=now.step, numbers=""
                )
            total = now.terms.get("total")
            words = "" if total is None else f"loss {total:.3f}"
            bar.update(
                tasks[now.what], completed=now.step, total=now.n_steps, numbers=words, visible=True
            )

        yield show
