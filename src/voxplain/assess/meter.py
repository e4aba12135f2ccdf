"""One progress bar over all parts of an assessment."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from voxplain.attribution.question import Question
from voxplain.inference.pipeline import Passes

Progress = Callable[[int, int], None]
Finished = Callable[[int, int], None]
"""Called with parts that are finished, and parts in all."""


class Meter:
    """Passes of all parts for one progress bar; parts to come are taken to cost as the last."""

    def __init__(self, progress: Progress | None, n_parts: int) -> None:
        self._progress, self._left = progress, n_parts
        self._before, self._now, self._total = 0, 0, 0

    def skip(self) -> None:
        """Leave out a part that is finished."""
        self._left -= 1

    def start(self, question: Question, passes: Mapping[str, Passes]) -> None:
        """Follow a part whose cost is known."""
        pipeline = question.pipeline
        total = pipeline.passes.total + sum(one.total for one in passes.values())

        def report(_: int) -> None:
            self.inner(pipeline.passes.total, total)

        pipeline.on_pass = report

    def inner(self, done: int, total: int) -> None:
        """Report passes done and in all of this part."""
        self._now, self._total = done, max(total, done)
        if self._progress is not None:
            end = self._before + self._total * max(self._left, 1)
            self._progress(self._before + done, end)

    def finish(self) -> None:
        """End a part."""
        self._left -= 1
        self._before += self._now
        self._now = 0
