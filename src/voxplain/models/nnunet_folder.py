"""What an nnU-Net v2 results folder holds, read without running code of it."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from voxplain.errors import ModelError, TrustError, all_faults
from voxplain.space.labelmap import nearest

Folds = Literal["all"] | Sequence[int]
_CHECKPOINTS = {"final": "checkpoint_final.pth", "best": "checkpoint_best.pth"}


@dataclass(frozen=True)
class ResultsFolder:
    """A trained configuration: plans, description of the data set, weights of the folds.

    Parameters
    ----------
    path
        ``Trainer__Plans__Configuration``.
    plans, dataset
        ``plans.json`` and ``dataset.json``.
    folds
        Names of the folds that were read: ``0``, ``1``, … or ``all``.
    checkpoint
        Name of the files that were read.
    configuration
        ``2d``, ``3d_fullres`` or ``3d_lowres``.
    trainer
        Name of the trainer's class.
    mirror_axes
        Axes, among those of the patch, that prediction may mirror.
    weights
        One state dict a fold.
    """

    path: Path
    plans: dict[str, Any]
    dataset: dict[str, Any]
    folds: tuple[str, ...]
    checkpoint: str
    configuration: str
    trainer: str
    mirror_axes: tuple[int, ...]
    weights: tuple[dict[str, torch.Tensor], ...]


def read_results_folder(folder: Path, folds: Folds, checkpoint: str) -> ResultsFolder:
    """Read plans, data set and checkpoints.

    Parameters
    ----------
    folder
        The results folder, one of its ``fold_…`` folders, or the ``Dataset…`` folder above, if
        it holds a single one.
    folds
        ``all`` that are there (numbered ones; ``fold_all`` only if there is no other), or some.
    checkpoint
        ``final``, ``best`` or a file name.

    Raises
    ------
    ModelError
        If something is missing, damaged, or a cascade.
    TrustError
        If a checkpoint holds objects that could run code.
    """
    path = _trained(folder)
    plans, dataset = _read_both(path)
    name = _CHECKPOINTS.get(checkpoint, checkpoint)
    files = _checkpoints(path, folds, name)
    read = [_read_checkpoint(file) for file in files]
    first = read[0]
    configuration = str(first["init_args"]["configuration"])
    known = plans.get("configurations", {})
    if configuration not in known:
        raise ModelError(
            f"{path / 'plans.json'}: no configuration {configuration!r}, which the checkpoint was "
            f"trained with{nearest(configuration, tuple(known))}"
        )
    _refuse_cascade(path, plans, configuration)
    axes = first.get("inference_allowed_mirroring_axes")
    return ResultsFolder(
        path=path,
        plans=plans,
        dataset=dataset,
        folds=tuple(file.parent.name.removeprefix("fold_") for file in files),
        checkpoint=name,
        configuration=configuration,
        trainer=str(first["trainer_name"]),
        mirror_axes=tuple(int(axis) for axis in axes or ()),
        weights=tuple(one["network_weights"] for one in read),
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep nnU-Net from printing, e.g. of environment variables that only training needs."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _trained(folder: Path) -> Path:
    """Results folder that is meant."""
    if folder.name.startswith("fold_") and not (folder / "plans.json").is_file():
        folder = folder.parent
    if any((folder / name).is_file() for name in ("plans.json", "dataset.json")):
        return folder
    inside = sorted(p.parent for p in folder.glob("*__*__*/plans.json"))
    if len(inside) == 1:
        return inside[0]
    if not inside:
        raise ModelError(f"{folder}: no plans.json there nor in a Trainer__Plans__Config folder")
    listed = "\n".join(f"  - {p}" for p in inside)
    raise ModelError(f"{folder} holds {len(inside)} trained models; give one of\n{listed}")


def _read_both(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    faults, found = [], []
    for name in ("plans.json", "dataset.json"):
        try:
            content = json.loads((path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            faults.append(f"{name} is missing")
            continue
        except (OSError, ValueError) as error:
            faults.append(f"{name} cannot be read as JSON: {error}")
            continue
        if not isinstance(content, dict):
            faults.append(f"{name} holds a {type(content).__name__}, expected an object")
            continue
        found.append(content)
    if not faults:
        plans, dataset = found
        needed: dict[str, tuple[str, ...]] = {
            "plans.json": ("configurations", "transpose_forward", "image_reader_writer"),
            "dataset.json": ("labels",),
        }
        for name, content in (("plans.json", plans), ("dataset.json", dataset)):
            faults += [f"{name} has no {key!r}" for key in needed[name] if key not in content]
        if not {"channel_names", "modality"} & set(dataset):
            faults.append("dataset.json has no 'channel_names'")
    if not any(path.glob("fold_*/*.pth")):
        faults.append("no checkpoint: expected fold_0/checkpoint_final.pth or of other folds")
    if faults:
        raise ModelError(all_faults(str(path), faults))
    return plans, dataset


def _checkpoints(path: Path, folds: Folds, name: str) -> list[Path]:
    there = {p.parent.name.removeprefix("fold_"): p for p in sorted(path.glob(f"fold_*/{name}"))}
    if not there:
        others = sorted({p.name for p in path.glob("fold_*/*.pth")})
        raise ModelError(f"{path}: no fold has {name}; there are {', '.join(others)}: choose one "
                         "with checkpoint=best or checkpoint=NAME")  # fmt: skip
    if folds == "all":
        numbered = sorted((fold for fold in there if fold.isdigit()), key=int)
        return [there[fold] for fold in numbered] or [there["all"]]
    missing = [str(fold) for fold in folds if str(fold) not in there]
    if missing or not folds:
        raise ModelError(
            f"{path}: no fold {', '.join(missing) or 'was chosen'} with {name}; there are "
            f"{', '.join(there)}"
        )
    return [there[str(fold)] for fold in dict.fromkeys(folds)]


def _allowed() -> list[Any]:
    """Types beside tensors and plain values that nnU-Net's own checkpoints hold: numpy numbers."""
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    kinds = (np.float64, np.float32, np.int64, np.int32, np.bool_)
    return [
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),  # as written with numpy 1
        np.dtype,
        *dict.fromkeys(type(np.dtype(kind)) for kind in kinds),
    ]


def _read_checkpoint(file: Path) -> dict[str, Any]:
    """Read with ``weights_only`` and the types that nnU-Net stores; never anything else."""
    import pickle

    try:
        with torch.serialization.safe_globals(_allowed()):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise TrustError(
            f"{file}: holds {named[1] if named else 'an object'}, which nnU-Net does not store and "
            "which could run code; load it where you trust it, keep the usual keys alone "
            "(network_weights, init_args, trainer_name, inference_allowed_mirroring_axes) and "
            "save it again with torch.save"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"{file}: cannot be read as a checkpoint: {error}") from None
    needed = ("network_weights", "init_args", "trainer_name")
    missing = [key for key in needed if not isinstance(content, dict) or key not in content]
    if missing:
        raise ModelError(f"{file}: not a checkpoint of nnU-Net v2: no {', '.join(missing)}")
    return {key: content[key] for key in (*needed, "inference_allowed_mirroring_axes")
            if key in content}  # fmt: skip


def _refuse_cascade(path: Path, plans: dict[str, Any], configuration: str) -> None:
    settings = plans["configurations"][configuration]
    parent = settings.get("inherits_from")
    while "previous_stage" not in settings and parent:
        settings = plans["configurations"][parent]
        parent = settings.get("inherits_from")
    if settings.get("previous_stage"):
        raise ModelError(
            f"{path}: {configuration} is a cascade: its second network also sees the segmentation "
            f"of {settings['previous_stage']}, through which no gradient goes. Explain the "
            f"{settings['previous_stage']} model, or a 3d_fullres one"
        )
