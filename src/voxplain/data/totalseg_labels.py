"""Segmentations that TotalSegmentator made, with the names of their structures."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from voxplain.data.case import read_masks
from voxplain.data.draft import visible
from voxplain.errors import LabelError, needs_extra
from voxplain.space.labelmap import LabelMap, nearest
from voxplain.space.nifti import SUFFIXES
from voxplain.space.read import read_labels

_LABEL = re.compile(r'<Label\s[^>]*?Key="(\d+)"[^>]*>\s*<!\[CDATA\[(.*?)\]\]>', re.DOTALL)


def read_totalseg_labels(place: str) -> LabelMap:
    """Read a segmentation of TotalSegmentator.

    Parameters
    ----------
    place
        A multilabel file, or a folder of one mask a structure. The names of a file's labels are
        those in its header; a file without them is of the task ``total``, or of the one
        behind ``#``, e.g. ``organs.nii.gz#total_mr``.

    Returns
    -------
    LabelMap
        Named structures that are not in the image are there, and empty.

    Raises
    ------
    LabelError
        If the folder holds no masks, the task is not known, or is given for a folder.
    MissingExtraError
        If names are asked from TotalSegmentator and it is not installed.
    ImageError
        If a file cannot be used.
    GridError
        If masks lie on different grids.
    """
    path, task = Path(place), ""
    if "#" in place and not path.exists():
        file, _, task = place.rpartition("#")
        path = Path(file)
    if path.is_dir():
        if task:
            raise LabelError(f"{path}: masks are named by their files; leave #{task} out")
        masks = {
            mask.name[: -len(suffix)]: mask
            for mask in visible(path)
            for suffix in SUFFIXES
            if mask.name.endswith(suffix)
        }
        if not masks:
            raise LabelError(f"{path}: no masks there; expected one NIfTI file a structure")
        return read_masks(masks)
    labels = read_labels(path, {})
    names = {} if task else _header_names(path)
    try:
        return replace(labels, names={**labels.names, **(names or _task_names(task or "total"))})
    except LabelError as error:
        raise LabelError(f"{path}: {error}") from error


def _header_names(path: Path) -> dict[int, str]:
    """Names of labels in the extended header, as TotalSegmentator writes it; else none."""
    import nibabel

    if not path.name.endswith(SUFFIXES):
        return {}
    texts = [
        extension.get_content()
        for extension in nibabel.load(path).header.extensions
        if extension.get_code() == 0
    ]
    found = _LABEL.findall("".join(
        text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in texts
    ))  # fmt: skip
    return {int(label): name for label, name in found if int(label)}


def _task_names(task: str) -> dict[int, str]:
    maps = needs_extra(
        "totalsegmentator.map_to_binary", "totalseg", f"naming the labels of the task {task}"
    ).class_map
    if task not in maps:
        raise LabelError(f"no TotalSegmentator task {task!r}{nearest(task, tuple(maps))}")
    return {int(label): str(name) for label, name in maps[task].items()}
