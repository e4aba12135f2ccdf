"""Manifests: a table with one row a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from voxplain.data.case import Split, is_image_column, is_label_column, is_taken
from voxplain.data.cohort import NAMES_FILE, TABLES, Cohort
from voxplain.data.draft import Draft, read_json
from voxplain.data.metadata import is_absent, metadata_of, read_table, split_of
from voxplain.errors import DataError
from voxplain.space.labelmap import BACKGROUND, nearest

NEEDS = (
    "a table .csv, .tsv or .parquet (or a folder with manifest.csv, …) with the columns case, "
    "image (or image_NAME for each channel), label (optional, or label_NAME for each mask), "
    "patient, split, and any metadata"
)


def fits(path: Path) -> bool:
    """Whether this is a table, or a folder that holds one called manifest."""
    return path.suffix.lower() in TABLES if path.is_file() else bool(_manifests(path))


def _manifests(folder: Path) -> list[Path]:
    return [p for p in (folder / f"manifest{suffix}" for suffix in TABLES) if p.is_file()]


def read(
    path: Path, channels: Sequence[str] = (), labels: str | None = None, base: Path | None = None
) -> Cohort:
    """Read a manifest.

    Parameters
    ----------
    path
        The table, or a folder that holds one called ``manifest``.
    channels
        Names of the channels in their order; each is the column ``image_NAME`` or ``NAME``.
        Default: the column ``image``, or else every column ``image_…`` in its order.
    labels
        Column of the label map. Default: ``label``, or else every column ``label_…``, one mask a
        structure.
    base
        Folder that paths are relative to; default: the table's own.

    Returns
    -------
    Cohort
        In the order of the rows. Names of labels come from ``labels.json`` beside the table.
        Columns other than these, ``patient`` and ``split`` are metadata.

    Raises
    ------
    DataError
        If it cannot be read, or columns are missing or could be meant both ways.
    """
    if path.is_dir():
        tables = _manifests(path)
        if len(tables) != 1:
            found = ", ".join(t.name for t in tables) or "none"
            raise DataError(f"{path}: expected {NEEDS}; found {found}")
        path = tables[0]
    frame = read_table(path)
    columns = [str(column) for column in frame.columns]
    if "case" not in columns:
        hint = "" if len(columns) > 1 else "; separate columns by commas (.csv) or tabs (.tsv)"
        raise DataError(f"{path}: no column 'case' among {', '.join(columns)}{hint}")
    images = _image_columns(path, columns, channels)
    maps = _label_columns(path, columns, labels)
    draft = Draft(base or path.parent, "manifest")
    structures = [c.removeprefix("label_") for c in maps if labels is None and c != "label"]
    rows = [{str(k): str(v) for k, v in row.items()} for row in frame.to_dict(orient="records")]
    rest = [c for c in columns if not is_taken(c) and c not in (*images, *maps)]
    metadata = metadata_of({column: row[column] for column in rest} for row in rows)
    for number, (row, known) in enumerate(zip(rows, metadata, strict=True), 2):
        where = f"row {number}"
        missing = [column for column in images if is_absent(row[column])]
        if is_absent(row["case"]) or missing:
            empty = ", ".join((["case"] if is_absent(row["case"]) else []) + missing)
            draft.fault(f"{where}: {empty} is empty", "fill it in or remove the row",
                        None if is_absent(row["case"]) else row["case"], path)  # fmt: skip
            continue
        draft.add(
            row["case"],
            [draft.root / row[column] for column in images],
            _labels(draft.root, row, maps, structures),
            _split(draft, path, where, row),
            None if is_absent(row.get("patient", "")) else row["patient"],
            known,
            f"{path.name}, {where}: ",
        )
    return draft.finish(
        channels or [c.removeprefix("image_") for c in images if c != "image"],
        _names(path.with_name(NAMES_FILE), structures),
    )


def _image_columns(path: Path, columns: list[str], channels: Sequence[str]) -> list[str]:
    """Column of each channel."""
    chosen = []
    for channel in channels:
        found = [name for name in (f"image_{channel}", channel) if name in columns]
        if len(found) != 1:
            raise DataError(
                f"{path}: channel {channel!r} is the column image_{channel} or {channel}, there "
                + (f"are both{'; rename one'}" if found else f"is none{nearest(channel, columns)}")
            )
        chosen += found
    if chosen:
        return chosen
    found = [column for column in columns if is_image_column(column)]
    if not found or ("image" in found and len(found) > 1):
        raise DataError(
            f"{path}: expected one column image, or image_NAME for each channel, got "
            f"{', '.join(found) or ', '.join(columns)}; rename them, or choose with --channel NAME "
            "(Python: channels=)"
        )
    return found


def _label_columns(path: Path, columns: list[str], labels: str | None) -> list[str]:
    """Column of the label map, or of each mask; empty without labels."""
    if labels is not None:
        if labels not in columns:
            raise DataError(f"{path}: no column {labels!r} for labels{nearest(labels, columns)}")
        return [labels]
    found = [column for column in columns if is_label_column(column)]
    if "label" in found and len(found) > 1:
        raise DataError(
            f"{path}: expected one column label, or label_NAME for each mask, got "
            f"{', '.join(found)}; rename them, or choose one with --labels (Python: labels=)"
        )
    return found


def _labels(
    root: Path, row: Mapping[str, str], maps: list[str], structures: list[str]
) -> Path | dict[str, Path] | None:
    given = {column: root / row[column] for column in maps if not is_absent(row[column])}
    if structures:
        return {column.removeprefix("label_"): file for column, file in given.items()} or None
    return next(iter(given.values()), None)


def _split(draft: Draft, path: Path, where: str, row: Mapping[str, str]) -> Split | None:
    try:
        return split_of(row.get("split", ""))
    except DataError as error:
        draft.fault(f"{where}: {error}", "correct it", row["case"], path)
        return None


def _names(path: Path, structures: list[str]) -> dict[int, str]:
    """Names of labels: what stands beside the table, else the masks in their order."""
    if not path.is_file():
        return {0: BACKGROUND, **dict(enumerate(structures, 1))} if structures else {}
    raw = read_json(path)
    try:
        names = {int(label): str(name) for label, name in raw.items()}
    except (ValueError, AttributeError) as error:
        raise DataError(
            f'{path}: expected names of labels as {{"1": "spleen", …}} ({error})'
        ) from error
    unknown = [name for name in structures if name not in names.values()]
    if unknown:
        raise DataError(f"{path}: does not name the masks {', '.join(unknown)}; add or remove it")
    return names
