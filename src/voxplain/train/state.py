"""The state of a training between two epochs, on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from voxplain.errors import TrainingError
from voxplain.space import atomic_file

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class State:
    """Everything that the next epoch depends on, and what is already known.

    No state of a random generator is in it: every epoch, case and crop draws from a seed of its
    own, which follows from the recipe's.

    Parameters
    ----------
    identity
        Recipe, classes, channels, number of processes and hash of the data, as plain values.
    epoch
        Epochs done.
    parts
        State of ``network``, ``optimiser``, ``schedule``, ``scaler``.
    rows
        What the log says of each epoch.
    best
        ``epoch``, ``dice``, ``dice_of`` (by class) and ``network`` of the best validation.
    """

    identity: Mapping[str, Any]
    epoch: int = 0
    parts: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Mapping[str, float | int | None], ...] = ()
    best: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the state, in place of an earlier one, whole or not at all."""
        with atomic_file(folder / CHECKPOINT) as path:
            torch.save({**vars(self), "rows": list(self.rows)}, path)


def read_state(folder: Path, identity: Mapping[str, Any]) -> State:
    """Read the state of a training that was interrupted, or begin one.

    Parameters
    ----------
    folder
        Where the checkpoint lies, if there is one.
    identity
        What it must have been trained with.

    Raises
    ------
    TrainingError
        If the checkpoint cannot be read, or is of another recipe or other data; the message
        names what differs.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return State(identity)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        state = State(**{**found, "rows": tuple(found["rows"])})
    except Exception as error:  # a torn file fails in as many ways as there are bytes
        reason = str(error).split("\n")[0]
        raise TrainingError(
            f"{path}: cannot be read as the state of a training ({reason}); --fresh begins anew"
        ) from error
    differing = differences(state.identity, identity)
    if differing:
        raise TrainingError(
            f"{folder.parent} holds a training that was begun differently: "
            f"{'; '.join(differing)}. Continue it with its own settings, begin anew with "
            "--fresh, or choose another --out"
        )
    return state


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Say of each value of nested mappings that differs what it was and what it is now."""
    found: list[str] = []
    for key in dict.fromkeys([*old, *new]):
        before, now = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += differences(before, now, f"{prefix}{key}.")
        elif before != now:
            found.append(f"{prefix}{key} was {before!r}, now {now!r}")
    return found
