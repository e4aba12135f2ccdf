"""Several processes of one training, started from one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import ProcessException, spawn

from voxplain.errors import TrainingError, VoxplainError
from voxplain.train.loop import Moment, Progress

Fixed = TypeVar("Fixed")
Meeting = tuple[int, int, str]
_POLL_S = 0.2


def run_processes(
    work: Callable[[Fixed, Meeting | None, Progress | None], Any],
    fixed: Fixed,
    n: int,
    progress: Progress | None = None,
) -> None:
    """Call a function in `n` new processes and wait for all of them.

    Parameters
    ----------
    work
        Takes `fixed`, the process's place (its number, `n`, where they meet), and what to tell
        progress to; both it and `fixed` can be pickled.
    fixed
        The same for all.
    n
        Number of processes.
    progress
        Called in this process with what the first one tells.

    Raises
    ------
    TrainingError
        With the message of the first `VoxplainError` of a process; if a process ends without
        one, its traceback.
    """
    told = get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="voxplain-") as folder:
        meeting = f"file://{Path(folder) / 'meeting'}"
        running = spawn(  # type: ignore[no-untyped-call]
            _enter, (work, fixed, n, meeting, told), nprocs=n, join=False
        )
        faults: list[str] = []
        is_over = False
        try:
            while not is_over:
                is_over = running.join(timeout=_POLL_S)
                faults += _heard(told, progress)
        except ProcessException as error:
            faults += _heard(told, progress)
            raise TrainingError(faults[0] if faults else str(error)) from None
        finally:
            for process in running.processes:
                if process.is_alive():
                    process.terminate()
                process.join()


def _heard(told: Any, progress: Progress | None) -> list[str]:
    """Pass on what processes told; the faults among it."""
    faults = []
    while not told.empty():
        word = told.get()
        if isinstance(word, Moment):
            if progress is not None:
                progress(word)
        else:
            faults.append(str(word))
    return faults


def _enter(index: int, work: Any, fixed: Any, n: int, meeting: str, told: Any) -> None:
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // n))
    try:
        work(fixed, (index, n, meeting), told.put if index == 0 else None)
    except VoxplainError as error:
        told.put(str(error))
        raise
