"""Datalists of the Medical Segmentation Decathlon and MONAI: one JSON file lists every case."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voxplain.data.case import Split
from voxplain.data.cohort import Cohort
from voxplain.data.draft import Draft, in_order, read_json, visible
from voxplain.data.metadata import metadata_of
from voxplain.errors import DataError, all_faults
from voxplain.space.read import case_name

NEEDS = (
    'one JSON file (or a folder with exactly one) with "training", "validation" or "test": a list '
    'of {"image": FILE or [FILE, …], "label": FILE}'
)
_SPLITS: dict[str, Split] = {
    "training": "train",
    "validation": "validation",
    "testing": "test",
    "test": "test",
}
_TAKEN = ("image", "label", "case", "patient")


def fits(path: Path) -> bool:
    """Whether this is a datalist, or a folder that holds exactly one."""
    return len(_datalists(path)) == 1


def _datalists(path: Path) -> list[Path]:
    if path.is_dir():
        files = [file for file in visible(path) if file.suffix == ".json" and file.is_file()]
    else:
        files = [path] if path.suffix == ".json" else []
    return [file for file in files if _is_datalist(read_json(file))]


def _is_datalist(raw: Any) -> bool:
    return (
        isinstance(raw, dict)
        and "file_ending" not in raw  # then it is nnU-Net's
        and any(isinstance(raw.get(key), list) for key in _SPLITS)
    )


def read(path: Path, base: Path | None = None) -> Cohort:
    """Read a datalist.

    Parameters
    ----------
    path
        The JSON file, or a folder that holds exactly one.
    base
        Folder that its paths are relative to; default: the file's own.

    Returns
    -------
    Cohort
        Names of cases: the key ``case``, else the (first) image's file name, else, where files
        of several cases have one name, its path with ``_`` for ``/``. The key ``patient`` is
        the patient; every other key with one text or number is metadata, ``fold`` included. A
        label that is a number (classification) becomes the metadata ``class``.

    Raises
    ------
    DataError
        If there is not one datalist, or its ``labels`` or ``modality`` are wrong.
    """
    lists = _datalists(path)
    if len(lists) != 1:
        found = ", ".join(file.name for file in lists) or "none"
        raise DataError(f"{path}: expected {NEEDS}, found {found}; name the file itself")
    file = lists[0]
    raw = read_json(file)
    channels, classes = _names(file, raw)
    draft = Draft(base or file.parent, "datalist")
    entries = [
        (key, index, {"image": entry} if isinstance(entry, (str, list)) else entry)
        for key in _SPLITS
        for index, entry in enumerate(raw.get(key) or ())
    ]
    sound = [e for e in entries if _is_sound(draft, file, *e)]
    names = _case_names([entry for _, _, entry in sound])
    rest = metadata_of(_scalars(entry) for _, _, entry in sound)
    for (key, _, entry), name, metadata in zip(sound, names, rest, strict=True):
        label = entry.get("label")
        patient = entry.get("patient")
        draft.add(
            name,
            [draft.root / image for image in _images(entry)],
            draft.root / label if isinstance(label, str) else None,
            _SPLITS[key],
            None if patient is None else str(patient),
            metadata,
        )
    for key, split in (("numTraining", "train"), ("numTest", "test")):
        said, n = raw.get(key), sum(_SPLITS[k] == split for k, _, _ in entries)
        if said is not None and said != n:
            draft.fault(
                f"{key} is {said}, {n} cases are listed",
                "correct the number, or add what is missing",
                file=file,
            )
    return draft.finish(channels, classes)


def _names(file: Path, raw: Mapping[str, Any]) -> tuple[list[str], dict[int, str]]:
    """Names of channels and of labels, where the file tells them."""
    faults: list[str] = []
    channels: list[str] = []
    classes: dict[int, str] = {}
    try:
        channels = in_order(raw.get("modality") or {})
    except (TypeError, ValueError, AttributeError):
        faults.append(f'modality: expected {{"0": "CT", …}}, got {raw["modality"]!r}')
    try:
        classes = {int(label): str(name) for label, name in (raw.get("labels") or {}).items()}
    except (TypeError, ValueError, AttributeError):
        faults.append(f'labels: expected {{"0": "background", …}}, got {raw["labels"]!r}')
    if faults:
        raise DataError(all_faults(str(file), faults))
    return channels, classes


def _is_sound(draft: Draft, file: Path, key: str, index: int, entry: Any) -> bool:
    """Whether an entry names its files; if not, note it."""
    images = _images(entry) if isinstance(entry, dict) else []
    if not images or not all(isinstance(image, str) for image in images):
        draft.fault(
            f"{key}[{index}] names no image",
            'expected {"image": FILE or [FILE, …], "label": FILE}',
            file=file,
        )
        return False
    label = entry.get("label")
    if label is not None and not isinstance(label, (str, int, float)):
        draft.fault(
            f"{key}[{index}]: label is a {type(label).__name__}, expected one file",
            "join several maps into one first",
            file=file,
        )
        return False
    return True


def _images(entry: Mapping[str, Any]) -> list[Any]:
    image = entry.get("image")
    return image if isinstance(image, list) else [] if image is None else [image]


def _case_names(entries: list[Mapping[str, Any]]) -> list[str]:
    """Name of each case; with folders where file names alone would not tell cases apart."""
    files = [Path(_images(entry)[0]) for entry in entries]
    alike: defaultdict[str, set[Path]] = defaultdict(set)
    for file in files:
        alike[case_name(file)].add(file)
    names = []
    for entry, file in zip(entries, files, strict=True):
        name = case_name(file)
        if len(alike[name]) > 1:
            parts = [part for part in file.parent.parts if part not in ("..", file.anchor)]
            name = "_".join([*parts, name])
        names.append(str(entry.get("case", name)))
    return names


def _scalars(entry: Mapping[str, Any]) -> dict[str, object]:
    """Keep what an entry says beside its files."""
    kept: dict[str, object] = {
        key: value
        for key, value in entry.items()
        if key not in _TAKEN and isinstance(value, (str, int, float))
    }
    label = entry.get("label")
    return kept if label is None or isinstance(label, str) else {**kept, "class": label}
