"""TotalSegmentator's data set: a folder a case, one mask a structure, ``meta.csv``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from voxplain.data.cohort import Cohort
from voxplain.data.draft import Draft, visible
from voxplain.data.metadata import metadata_of, read_table, split_of
from voxplain.errors import DataError
from voxplain.space.labelmap import BACKGROUND

NEEDS = (
    "folders such as s0001, each with ct.nii.gz or mri.nii.gz and segmentations/STRUCTURE.nii.gz; "
    "meta.csv (separated by ;) with image_id, split, … is optional"
)
META = "meta.csv"
IMAGES = {"ct.nii.gz": "ct", "mri.nii.gz": "mr"}


def fits(path: Path) -> bool:
    """Whether a folder holds folders of cases."""
    return path.is_dir() and bool(_cases(path))


def _cases(path: Path) -> list[Path]:
    folders = (folder for folder in visible(path) if folder.is_dir())
    return [f for f in folders if any((f / image).is_file() for image in IMAGES)]


def read(path: Path) -> Cohort:
    """Read the layout.

    Parameters
    ----------
    path
        Folder of the cases' folders and ``meta.csv``.

    Returns
    -------
    Cohort
        Structures in alphabetical order are labels 1, 2, …; a structure without a file in a
        case's folder is not labelled there. Columns of ``meta.csv`` are metadata, but
        ``split`` (train, val, test) is the split. The channel is ``ct`` or ``mr``; unnamed if
        the folder holds both.

    Raises
    ------
    DataError
        If there is no case, or ``meta.csv`` cannot be read or has no ``image_id``.
    """
    folders = _cases(path)
    if not folders:
        raise DataError(f"{path}: expected {NEEDS}; found no such folder")
    draft = Draft(path, "totalsegmentator")
    rows = _meta(path / META)
    known = metadata_of(
        {key: text for key, text in row.items() if key not in ("image_id", "split")}
        for row in rows.values()
    )
    metadata = dict(zip(rows, known, strict=True))
    modalities: set[str] = set()
    structures: set[str] = set()
    for folder in folders:
        name = folder.name
        files = [folder / image for image in IMAGES if (folder / image).is_file()]
        if len(files) > 1:
            draft.fault("holds both ct.nii.gz and mri.nii.gz", "keep one", name, folder)
        if rows and name not in rows:
            draft.remark(f"has no row in {META}", "add one if you need its metadata", name)
        masks = _masks(draft, name, folder / "segmentations")
        modalities.add(IMAGES[files[0].name])
        structures.update(masks)
        try:
            split = split_of(rows.get(name, {}).get("split", ""))
        except DataError as error:
            split = None
            draft.fault(str(error), f"correct it in {META}", name, path / META)
        draft.add(name, files[:1], masks or None, split, metadata=metadata.get(name))
    _remark_others(draft, folders)
    classes = {0: BACKGROUND, **dict(enumerate(sorted(structures), 1))} if structures else {}
    return draft.finish(sorted(modalities) if len(modalities) == 1 else (), classes)


def _masks(draft: Draft, name: str, folder: Path) -> dict[str, Path]:
    """File of each structure."""
    masks = {}
    for file in visible(folder) if folder.is_dir() else ():
        if file.name.endswith(".nii.gz"):
            masks[file.name.removesuffix(".nii.gz")] = file
        else:
            draft.remark("left out: is no .nii.gz", "convert it if it is a mask", name, file)
    return masks


def _meta(path: Path) -> Mapping[str, dict[str, str]]:
    """Rows of ``meta.csv`` by ``image_id``; empty without the file."""
    if not path.is_file():
        return {}
    frame = read_table(path, separator=";")
    if "image_id" not in frame:
        raise DataError(
            f"{path}: expected columns image_id;split;… separated by ;, got "
            f"{', '.join(frame.columns)}"
        )
    records = frame.to_dict(orient="records")
    return {str(row["image_id"]): {str(k): str(v) for k, v in row.items()} for row in records}


def _remark_others(draft: Draft, folders: list[Path]) -> None:
    for folder in visible(draft.root):
        if folder.is_dir() and folder not in folders:
            draft.remark(
                "left out: holds neither ct.nii.gz nor mri.nii.gz",
                "add the image if it is a case",
                file=folder,
            )
