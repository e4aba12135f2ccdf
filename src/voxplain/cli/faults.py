"""What a user sees when something is wrong: one line, no traceback, a fitting exit code."""

from __future__ import annotations

import os
import signal
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from voxplain.errors import VoxplainError

USER_MISTAKE = 2


class PlainFaults(TyperGroup):
    """Verbs whose errors, warnings and interruptions are told in plain lines on stderr.

    A `VoxplainError`, Ctrl-C and SIGTERM end with exit code 2, after the ``with`` blocks that
    are open have taken half-written output away. Any other exception is a defect of the program
    and keeps its traceback. What is left behind by an interruption is told as `going_on` says.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            with _plain_warnings(), _orderly_termination():
                return super().invoke(ctx)
        except VoxplainError as error:
            if os.environ.get("VOXPLAIN_TRACEBACK") == "1":
                traceback.print_exc()
            typer.echo(f"voxplain: {error}", err=True)
            raise typer.Exit(USER_MISTAKE) from None
        except KeyboardInterrupt as stop:
            typer.echo(f"voxplain: interrupted; {_left(stop)}", err=True)
            raise typer.Exit(USER_MISTAKE) from None
        except Terminated as stop:
            typer.echo(f"voxplain: terminated; {_left(stop)}", err=True)
            raise typer.Exit(USER_MISTAKE) from None


class Terminated(SystemExit):
    """SIGTERM came."""


@contextmanager
def going_on(words: str) -> Iterator[None]:
    """Tell these words where the verb is interrupted inside, in place of "no result was written".

    Parameters
    ----------
    words
        What is kept, and how to go on.
    """
    try:
        yield
    except (KeyboardInterrupt, Terminated) as stop:
        stop.add_note(words)
        raise


def _left(stop: BaseException) -> str:
    return "; ".join(getattr(stop, "__notes__", [])) or "no result was written"


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print each warning as one line; voxplain's own always, others as Python's filters say."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=RuntimeWarning, module=r"voxplain\.")
        warnings.showwarning = _warn
        yield


def _warn(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    file: TextIO | None = None, line: str | None = None,
) -> None:  # fmt: skip
    del category, filename, lineno, file, line
    typer.echo(f"voxplain: warning: {' '.join(str(message).split())}", err=True)


@contextmanager
def _orderly_termination() -> Iterator[None]:
    """Turn SIGTERM (a scheduler's time limit, a stopped container) into an orderly exit."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals can be handled in the main thread only
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    raise Terminated(USER_MISTAKE)
