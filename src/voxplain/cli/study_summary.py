"""What ``voxplain study`` prints: a bar, how far it is, what failed, what it will cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from voxplain.engine.capacity import StudyEstimate
from voxplain.engine.run import State
from voxplain.report.wording import seconds, storage
from voxplain.study.store import DONE, FAILED, Store

N_REASONS = 8
N_RECENT = 50
"""So many of the last results tell the speed."""
PAUSE = 20
"""A gap of so many times a case's seconds is a pause, which tells nothing of the speed."""


@contextmanager
def tasks_bar(is_quiet: bool) -> Iterator[Callable[[State], None]]:
    """Show cases while they run; nothing stays on the screen afterwards."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("gone,"),
        TimeRemainingColumn(elapsed_when_finished=False),
        TextColumn("left"),
        console=console,
        transient=True,
        disable=is_quiet or not console.is_terminal,
    ) as bar:
        task = bar.add_task("reading", total=None)
        before: list[int] = []

        def show(state: State) -> None:
            ended = state.n_done + state.n_failed
            before.append(ended) if not before else None
            failed = f", {state.n_failed} failed" if state.n_failed else ""
            bar.update(
                task,
                completed=ended - before[0],  # what was there tells nothing of the speed
                total=state.n_tasks - before[0],
                description=f"{state.n_done} of {state.n_tasks} done{failed}",
            )

        yield show


def print_end(state: State, store: Store) -> None:
    """Print how a run ended, and what failed."""
    console = Console(highlight=False)
    told = f"{state.n_done} of {state.n_tasks} done, {state.n_failed} failed"
    console.print(Text(told), soft_wrap=True)
    _print_failures(console, store)
    console.print(Text(f"next: voxplain study report {store.folder}"), soft_wrap=True)


def print_status(store: Store) -> None:
    """Print done, failed, left, speed and time left of each model and method."""
    console = Console(highlight=False)
    runs = store.runs()
    n_cases = len(store.cases())
    table = Table(title=f"{n_cases} cases")
    for column in ("model", "method", "done", "failed", "left", "seconds a case", "passes a case"):
        table.add_column(column, justify="left" if column in ("model", "method") else "right")
    n_left = 0
    for model in store.plan.get("models", {}):
        for method in store.plan.get("methods", {}):
            own = runs[(runs["model"] == model) & (runs["method"] == method)]
            done, failed = (own[own["status"] == status] for status in (DONE, FAILED))
            left = n_cases - len(done) - len(failed)
            n_left += left
            passes = (done["n_forward"] + done["n_backward"]).mean()
            table.add_row(
                Text(model), Text(method), str(len(done)), str(len(failed)), str(left),
                "–" if done.empty else f"{done['seconds'].median():.1f}",
                "–" if done.empty else f"{passes:.0f}",
            )  # fmt: skip
    console.print(table)
    rate = _rate(runs)
    if n_left and np.isfinite(rate) and rate > 0:
        console.print(
            Text(
                f"speed: {rate * 3600:,.0f} cases an hour; about {seconds(n_left / rate)} left at "
                "it"
            ),
            soft_wrap=True,
        )
    _print_failures(console, store)


def print_estimate(estimate: StudyEstimate) -> None:
    """Print what a study will cost."""
    console = Console(highlight=False)
    most = "at most " if estimate.is_upper_bound else ""
    passes = estimate.n_forward + estimate.n_backward
    table = Table(show_header=False)
    for name, told in (
        ("tasks (case × model × method)", f"{estimate.n_tasks}"),
        (
            "passes of a window",
            f"{most}{passes:.0f} a task, {passes * estimate.n_tasks:,.0f} in all",
        ),
        ("time of a task", seconds(estimate.seconds)),
        ("work in all", seconds(estimate.worker_s)),
        (f"time in all, {estimate.n_workers} at once", seconds(estimate.total_s)),
        ("storage", storage(round(estimate.total_bytes))),
        ("memory of a process", f"{storage(estimate.memory_bytes)} beside the program itself"),
    ):
        table.add_row(name, told)
    console.print(table)


def _rate(runs: pd.DataFrame) -> float:
    """Cases a second over the last results since the last pause; NaN for fewer than two."""
    known = runs[runs["created"] != ""]
    times = pd.to_datetime(known["created"]).sort_values().iloc[-N_RECENT:]
    gaps = times.diff().dt.total_seconds().to_numpy()
    pauses = np.flatnonzero(gaps > PAUSE * max(1.0, known["seconds"].median()))
    last = times.iloc[pauses[-1] :] if len(pauses) else times
    if len(last) < 2:
        return float("nan")
    span = (last.iloc[-1] - last.iloc[0]).total_seconds()
    return (len(last) - 1) / span if span > 0 else float("nan")


def _print_failures(console: Console, store: Store) -> None:
    """Print reasons, the most frequent first, with cases that have them."""
    runs = store.runs()
    failed = runs[runs["status"] == FAILED]
    if failed.empty:
        return
    groups = sorted(failed.groupby("reason"), key=lambda pair: -len(pair[1]))
    for reason, rows in groups[:N_REASONS]:
        cases = list(dict.fromkeys(rows["case"]))
        named = ", ".join(cases[:3]) + (f" and {len(cases) - 3} more" if len(cases) > 3 else "")
        console.print(Text(f"failed: {named}: {reason}"), soft_wrap=True)
    if len(groups) > N_REASONS:
        console.print(Text(f"… and {len(groups) - N_REASONS} other reasons; see runs/"))
    console.print(
        Text(f"mend the files, then: voxplain study retry {store.folder}"), soft_wrap=True
    )
