"""The progress bar shows what is done in a terminal, and nothing elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from voxplain.cli.counterfactual_job import steps_bar
from voxplain.cli.progress import passes_bar
from voxplain.counterfactual.generator_training import Moment


@pytest.mark.parametrize(
    ("is_terminal", "is_quiet", "is_shown"),
    [(True, False, True), (True, True, False), (False, False, False)],
)
def test_passes_done_and_in_all(monkeypatch, is_terminal, is_quiet, is_shown):
    screen = io.StringIO()

    def console(stderr: bool) -> Console:
        assert stderr
        return Console(file=screen, force_terminal=is_terminal, width=120, color_system=None)

    monkeypatch.delenv("TERM", raising=False)
    monkeypatch.setattr("voxplain.cli.progress.Console", console)
    with passes_bar(is_quiet) as progress:
        progress(3, 8)
    assert ("3/8" in screen.getvalue()) == is_shown
    assert ("left" in screen.getvalue()) == is_shown
    assert ("explaining" in screen.getvalue()) == is_shown


def test_each_part_of_a_run_has_its_own_line(monkeypatch):
    screen = io.StringIO()
    monkeypatch.delenv("TERM", raising=False)
    monkeypatch.setattr(
        "voxplain.cli.progress.Console",
        lambda stderr: Console(file=screen, force_terminal=stderr, width=120, color_system=None),
    )
    with steps_bar(is_quiet=False) as progress:
        progress(Moment("classifier", 40, 40, {"total": 0.125}))
        progress(Moment("coin", 3, 80, {}))
    last = screen.getvalue().rpartition("coin")[2]
    assert "3/80" in last
    assert "classifier" not in last
