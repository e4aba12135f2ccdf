"""Parts of an assessment on stderr: how many were taken up, and plain lines without a terminal."""

from __future__ import annotations

import sys
import time

import typer

_EVERY_SECONDS = 30.0


class PartLines:
    """Tell what was taken up; where no terminal shows a bar, tell what is finished, too.

    Parameters
    ----------
    is_quiet
        Say nothing.

    Notes
    -----
    A line at most every 30 s, after a part.
    """

    def __init__(self, *, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self._is_first = True
        self._last = time.monotonic()

    def __call__(self, n_finished: int, n_parts: int) -> None:
        """Take parts that are finished, those of an earlier run first, and parts in all."""
        is_first, self._is_first = self._is_first, False
        if self._is_quiet:
            return
        if is_first:
            if n_finished:
                typer.echo(f"going on: {n_finished} of {n_parts} parts were finished", err=True)
            return
        now = time.monotonic()
        if not sys.stderr.isatty() and now - self._last >= _EVERY_SECONDS:
            typer.echo(f"{n_finished} of {n_parts} parts finished", err=True)
            self._last = now
