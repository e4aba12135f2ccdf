"""nnU-Net's raw layout: ``imagesTr``, ``labelsTr``, ``imagesTs`` and ``dataset.json``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxplain.data.cohort import Cohort
from voxplain.data.draft import Draft, in_order, read_json, visible
from voxplain.errors import DataError, all_faults
from voxplain.space.labelmap import BACKGROUND

DATASET = "dataset.json"
NEEDS = (
    "dataset.json with channel_names, labels and file_ending beside imagesTr (CASE_0000.nii.gz, "
    "CASE_0001.nii.gz, …), labelsTr (CASE.nii.gz), imagesTs"
)


def fits(path: Path) -> bool:
    """Whether a folder holds nnU-Net's ``dataset.json``."""
    if not (path / DATASET).is_file():
        return False
    found = read_json(path / DATASET)
    return isinstance(found, dict) and ("file_ending" in found or "channel_names" in found)


@dataclass(frozen=True)
class _Dataset:
    """What ``dataset.json`` says."""

    channels: tuple[str, ...]
    classes: Mapping[int, str]
    regions: Mapping[str, tuple[int, ...]]
    ending: str
    n_train: int | None
    listed: Mapping[str, Any] | None

    @classmethod
    def read(cls, path: Path) -> _Dataset:
        raw = read_json(path)
        if not isinstance(raw, dict):
            raise DataError(f"{path}: expected a JSON object, got {type(raw).__name__}")
        faults: list[str] = []
        named: Any = raw.get("channel_names", raw.get("modality"))
        channels: list[str] = []
        try:
            channels = in_order(named)
        except (TypeError, ValueError, AttributeError):
            channels = []
        if not channels:
            faults.append(f'channel_names: expected {{"0": "CT", …}} from 0 on, got {named!r}')
        ending, listed = raw.get("file_ending"), raw.get("dataset")
        if not isinstance(ending, str) or not ending.startswith("."):
            faults.append(f'file_ending: expected text such as ".nii.gz", got {ending!r}')
        if listed is not None and not isinstance(listed, dict):
            faults.append(f"dataset: expected an object of cases, got {type(listed).__name__}")
        classes, regions = _labels(raw.get("labels"), faults)
        if faults:
            raise DataError(all_faults(str(path), faults))
        n_train = raw.get("numTraining")
        return cls(tuple(channels), classes, regions, str(ending), n_train, listed)


def _labels(raw: Any, faults: list[str]) -> tuple[dict[int, str], dict[str, tuple[int, ...]]]:
    """Names of single labels, and the labels of each region."""
    if not isinstance(raw, dict) or not raw:
        faults.append(f'labels: expected {{"background": 0, "liver": 1, …}}, got {raw!r}')
        return {}, {}
    classes: dict[int, str] = {}
    regions: dict[str, tuple[int, ...]] = {}
    for name, value in raw.items():
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(v, int) and v >= 0 for v in values):
            faults.append(f"labels: {name!r} is {value!r}, expected a label or a list of labels")
        elif isinstance(value, list):
            regions[name] = tuple(values)
        elif value in classes:
            faults.append(f"labels: {name!r} and {classes[value]!r} are both {value}")
        else:
            classes[value] = name
    if regions:  # a region of one label names it, unless the name is taken by another one
        for name, joined in regions.items():
            if len(joined) == 1:
                classes.setdefault(joined[0], name)
        for label in sorted({v for joined in regions.values() for v in joined}):
            classes.setdefault(label, f"label_{label}")
    classes.setdefault(0, BACKGROUND)
    return dict(sorted(classes.items())), regions


def read(path: Path) -> Cohort:
    """Read the layout.

    Parameters
    ----------
    path
        Folder of ``dataset.json``.

    Returns
    -------
    Cohort
        Splits ``train`` (``imagesTr``, or the cases that ``dataset`` lists) and ``test``
        (``imagesTs``, labels from ``labelsTs``). Where no file at all has a channel number
        above 0000, one file holds all channels of a case, as for RGB pictures.

    Raises
    ------
    DataError
        If ``dataset.json`` is missing or does not say what it must; every fault of it at once.
    """
    dataset = _Dataset.read(path / DATASET)
    draft = Draft(path, "nnunet")
    n_files = _n_files(path, dataset)
    if dataset.listed is None:
        for name in ("imagesTr", "labelsTr"):
            if not (path / name).is_dir():
                draft.fault("this folder is missing", f"expected {NEEDS}", file=path / name)
        _add_folder(draft, dataset, "Tr", n_files)
    else:
        _add_listed(draft, dataset.listed)
    n_train = len(draft.cases)
    if dataset.n_train != n_train:
        draft.fault(
            f"numTraining is {dataset.n_train}, there are {n_train} training cases",
            "correct the number, or add what is missing",
            file=path / DATASET,
        )
    _add_folder(draft, dataset, "Ts", n_files)
    return draft.finish(dataset.channels, dataset.classes, dataset.regions)


def _n_files(path: Path, dataset: _Dataset) -> int:
    """Count the files that a case should have."""
    ends = {f"_{i:04d}{dataset.ending}" for i in range(1, len(dataset.channels))}
    names = [file.name for folder in ("imagesTr", "imagesTs") for file in path.glob(f"{folder}/*")]
    return len(dataset.channels) if any(name.endswith(tuple(ends)) for name in names) else 1


def _add_folder(draft: Draft, dataset: _Dataset, end: str, n_files: int) -> None:
    """Add the cases of ``imagesTr`` or ``imagesTs``."""
    images, labels = draft.root / f"images{end}", draft.root / f"labels{end}"
    found = _channels_of(draft, dataset, images)
    for name in found:
        file = labels / f"{name}{dataset.ending}"
        is_labelled = labels.is_dir() and (end == "Tr" or file.exists())
        draft.add(
            name,
            [images / f"{name}_{i:04d}{dataset.ending}" for i in range(n_files)],
            file if is_labelled else None,
            "train" if end == "Tr" else "test",
        )
    for file in visible(labels) if labels.is_dir() else ():
        name = file.name.removesuffix(dataset.ending)
        if not file.name.endswith(dataset.ending):
            _other(draft, file, dataset.ending)
        elif name not in found:
            draft.fault(
                f"labels without an image in {images.name}",
                f"add {name}_0000{dataset.ending} or remove the labels",
                name,
                file,
            )


def _channels_of(draft: Draft, dataset: _Dataset, folder: Path) -> dict[str, list[int]]:
    """Channels that lie in a folder, by case."""
    found: dict[str, list[int]] = {}
    for file in visible(folder) if folder.is_dir() else ():
        if not file.name.endswith(dataset.ending):
            _other(draft, file, dataset.ending)
            continue
        match = re.fullmatch(r"(.+)_(\d{4})", file.name.removesuffix(dataset.ending))
        if match is None:
            draft.fault(
                "the file name has no channel number",
                f"rename it to CASE_0000{dataset.ending} (0001, … for further channels)",
                file=file,
            )
            continue
        name, channel = match[1], int(match[2])
        found.setdefault(name, []).append(channel)
        if channel >= len(dataset.channels):
            draft.fault(
                f"channel {channel} is not among the {len(dataset.channels)} channel_names of "
                f"{DATASET} ({', '.join(dataset.channels)})",
                "name it there or remove the file",
                name,
                file,
            )
    return found


def _other(draft: Draft, file: Path, ending: str) -> None:
    draft.remark(f"left out: does not end in {ending}, the file_ending of {DATASET}",
                 "convert it, or leave it if it is not data", file=file)  # fmt: skip


def _add_listed(draft: Draft, listed: Mapping[str, Any]) -> None:
    """Add the cases whose files ``dataset`` of ``dataset.json`` lists."""
    for name, entry in listed.items():
        images = entry.get("images") if isinstance(entry, dict) else None
        if not isinstance(images, list) or not all(isinstance(i, str) for i in images):
            draft.fault(
                f"dataset[{name!r}] names no list of images",
                'expected {"images": ["CASE_0000.nii.gz", …], "label": "CASE.nii.gz"}',
                name,
                draft.root / DATASET,
            )
            continue
        label = entry.get("label")
        draft.add(
            name,
            [draft.root / os.path.expandvars(image) for image in images],
            draft.root / os.path.expandvars(label) if isinstance(label, str) else None,
            "train",
        )
