"""The progress bar: what is done, of how much, and the time left; on stderr, in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextmanager
def timed_bar(is_quiet: bool, *columns: ProgressColumn) -> Iterator[Progress]:
    """Show a description, a bar, some columns, and the time gone and left.

    Parameters
    ----------
    is_quiet
        Show nothing.
    columns
        Between the bar and the time.

    Yields
    ------
    rich.progress.Progress
        Without a task; nothing stays on the screen afterwards.
    """
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeElapsedColumn(),
        TextColumn("gone,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
        disable=is_quiet or not console.is_terminal,
    ) as bar:
        yield bar


@contextmanager
def passes_bar(is_quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show passes while they run; nothing stays on the screen afterwards.

    Parameters
    ----------
    is_quiet
        Show nothing.

    Yields
    ------
    Callable
        To be called with the passes done and the passes in all.
    """
    with timed_bar(is_quiet, MofNCompleteColumn(), TextColumn("passes,")) as bar:
        task = bar.add_task("explaining", total=None)

        def show(done: int, total: int) -> None:
            words = "writing" if done >= total else "explaining"
            bar.update(task, completed=done, total=total, description=words)

        yield show
