"""TotalSegmentator's tasks as its installed version tells them, and where their weights lie."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from voxplain.errors import ModelError, needs_extra
from voxplain.space.labelmap import BACKGROUND, nearest

_MODES = ("fast", "fastest")
_FEWER_TILES = ("total", "total_v3", "total_mr")  # its predictor steps by 0.8 windows there
_OWN_RULES = {
    "body": "removes small pieces of the result",
    "vertebrae_pp": "mends vertebrae in the result by rules",
    "vertebrae_pp_refined": "mends vertebrae in the result by rules",
    "appendicular_bones": "removes auxiliary labels from the result",
    "appendicular_bones_mr": "removes auxiliary labels from the result",
}


@dataclass(frozen=True)
class Task:
    """One task in one resolution.

    Parameters
    ----------
    name
        As given, e.g. ``total`` or ``total_fast``.
    class_names
        Label i of the result is ``class_names[i]``; background first.
    parts
        One a network: its results folder, and the name of each of its labels (0: background).
    spacing
        mm along R, A, S that images are resampled to; None leaves them.
    trainer
        Name of the trainer's class.
    folds
        Networks whose logits are averaged; ``all`` that are there, or some.
    step
        Distance of windows, in windows.
    """

    name: str
    class_names: tuple[str, ...]
    parts: tuple[tuple[Path, tuple[str, ...]], ...]
    spacing: tuple[float, float, float] | None
    trainer: str
    folds: Literal["all"] | tuple[int, ...]
    step: float


def read_task(name: str) -> Task:
    """Look a task up in the installed TotalSegmentator's own tables.

    Parameters
    ----------
    name
        A task such as ``total``; ``_fast`` and ``_fastest`` behind it choose the 3 mm and 6 mm
        networks.

    Raises
    ------
    MissingExtraError
        If TotalSegmentator is not installed.
    ModelError
        If there is no such task, its weights are not there, or it does more than segment.
    """
    tables = needs_extra("totalsegmentator.map_tasks_config", "totalseg", "TotalSegmentator")
    labels = needs_extra("totalsegmentator.map_to_binary", "totalseg", "TotalSegmentator")
    base, settings = _settings(name, tables.TASK_CONFIGS)
    merged = {**tables.DEFAULT_CONFIG, **settings}
    _refuse_more(name, base, merged)
    ids = merged["task_id"] if isinstance(merged["task_id"], list) else [merged["task_id"]]
    known = {0: BACKGROUND, **labels.class_map[base]}
    class_names = tuple(known[label] for label in range(max(known) + 1))
    spacing = merged["resample"]
    if isinstance(spacing, (int, float)):
        spacing = [spacing] * 3
    folder = f"{merged['trainer']}__{merged['plans'] or 'nnUNetPlans'}__{merged['model']}"
    return Task(
        name=name,
        class_names=class_names,
        parts=tuple(
            (_weights(name, task_id, folder), _names(labels, base, task_id, ids, class_names))
            for task_id in ids
        ),
        spacing=None if spacing is None else (float(spacing[0]), float(spacing[1]),
                                              float(spacing[2])),
        trainer=str(merged["trainer"]),
        folds="all" if merged["folds"] is None else tuple(merged["folds"]),
        step=0.8 if base in _FEWER_TILES else 0.5,
    )  # fmt: skip


def weights_folder() -> Path:
    """Folder in which TotalSegmentator keeps its networks."""
    if "TOTALSEG_WEIGHTS_PATH" in os.environ:
        return Path(os.environ["TOTALSEG_WEIGHTS_PATH"])
    home = os.environ.get("TOTALSEG_HOME_DIR")
    return (Path(home) if home else Path.home() / ".totalsegmentator") / "nnunet" / "results"


def _settings(name: str, tasks: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Task without its mode, and the settings of that mode."""
    base, _, mode = name.rpartition("_")
    if name in tasks:
        base, mode = name, "default"
    elif mode not in _MODES or mode not in tasks.get(base, {}).get("sub_modes", {}):
        modes = [f"{t}_{m}" for t, s in tasks.items() for m in _MODES
                 if m in s.get("sub_modes", {})]  # fmt: skip
        raise ModelError(f"no TotalSegmentator task {name!r}{nearest(name, (*tasks, *modes))}")
    found = tasks[base]
    return base, found["sub_modes"][mode] if "sub_modes" in found else found


def _refuse_more(name: str, base: str, settings: Mapping[str, Any]) -> None:
    """Refuse tasks whose result is not the network's alone."""
    reason = _OWN_RULES.get(base)
    if settings["crop"] is not None:
        crop = settings["crop"]
        crop = crop if isinstance(crop, str) else ", ".join(crop)
        reason = f"first crops the image to {crop}, found by another task"
    elif settings["cascade"] or settings["remove_outside"]:
        reason = "uses the result of another task"
    if reason:
        raise ModelError(
            f"the TotalSegmentator task {name} {reason}, which is not part of the network. "
            f"Explain the network itself: give its results folder below {weights_folder()} as "
            "--model, and an image that is cropped and resampled as the task does"
        )


def _names(
    labels: Any, base: str, task_id: int, ids: list[int], class_names: tuple[str, ...]
) -> tuple[str, ...]:
    """Name of each label of one network."""
    if len(ids) == 1:
        return class_names
    tables = {
        "total": (labels.class_map_5_parts, labels.map_taskid_to_partname_ct),
        "total_v3": (labels.class_map_5_parts_total_v3, labels.map_taskid_to_partname_ct_v3),
        "total_mr": (labels.class_map_parts_mr, labels.map_taskid_to_partname_mr),
    }
    maps, part_of = tables[base]
    part = {0: BACKGROUND, **maps[part_of[task_id]]}
    return tuple(part[label] for label in range(max(part) + 1))


def _weights(name: str, task_id: int, folder: str) -> Path:
    """Results folder of one network; nothing is ever downloaded."""
    root = weights_folder()
    for found in sorted(root.glob(f"Dataset{task_id:03d}_*")):
        if (found / folder).is_dir():
            return found / folder
        there = ", ".join(sorted(p.name for p in found.iterdir())) or "nothing"
        raise ModelError(f"{found}: expected {folder}, there is {there}; {_fetch(task_id)}")
    raise ModelError(
        f"no weights of the TotalSegmentator task {name}: expected a folder "
        f"Dataset{task_id:03d}_… in {root}; {_fetch(task_id)}, or "
        "set TOTALSEG_WEIGHTS_PATH to the folder that holds it"
    )


def _fetch(task_id: int) -> str:
    """Sentence with the command by which TotalSegmentator's own program fetches a network."""
    program = needs_extra(
        "totalsegmentator.bin.totalseg_download_weights", "totalseg", "TotalSegmentator"
    )
    names = [name for name, ids in program.TASK_TO_ID.items() if task_id in ids]
    if not names:
        return "its program fetches no such network"
    return f"fetch it with: totalseg_download_weights -t {names[0]}"
