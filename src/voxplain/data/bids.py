"""BIDS: images by their suffix under ``sub-…``, labels in ``derivatives``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxplain.data.case import Split
from voxplain.data.cohort import Cohort
from voxplain.data.draft import Draft, visible
from voxplain.data.metadata import metadata_of, read_table, split_of
from voxplain.errors import DataError

NEEDS = (
    "folders sub-LABEL[/ses-LABEL]/anat/sub-LABEL[_ses-LABEL]_SUFFIX.nii.gz, labels as "
    "derivatives/PIPELINE/sub-LABEL/…_dseg.nii.gz (or _mask, …); participants.tsv is optional"
)
LABEL_SUFFIXES = ("dseg", "mask", "lesion", "roi", "seg", "label")
PARTICIPANTS = "participants.tsv"
_ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class _File:
    """An image file and what its name says: ``sub-01_ses-02_run-1_T1w.nii.gz``."""

    path: Path
    entities: Mapping[str, str]
    suffix: str

    @classmethod
    def of(cls, path: Path) -> _File | None:
        ending = next((e for e in _ENDINGS if path.name.endswith(e)), None)
        if ending is None:
            return None
        *pairs, suffix = path.name.removesuffix(ending).split("_")
        entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
        if not pairs or len(entities) < len(pairs) or "sub" not in entities:
            return None
        return cls(path, entities, suffix)

    @property
    def case(self) -> str:
        keys = [key for key in ("sub", "ses") if key in self.entities]
        return "_".join(f"{key}-{self.entities[key]}" for key in keys)

    def is_a(self, wanted: str) -> bool:
        """Whether it has a suffix and, where they are given, entities: ``acq-high_T1w``."""
        *pairs, suffix = wanted.split("_")
        return self.suffix == suffix and all(
            self.entities.get(key) == value
            for key, _, value in (pair.partition("-") for pair in pairs)
        )


def fits(path: Path) -> bool:
    """Whether a folder holds folders ``sub-…``."""
    return path.is_dir() and any(p.is_dir() for p in path.glob("sub-*"))


def read(path: Path, channels: Sequence[str] = (), labels: str | None = None) -> Cohort:
    """Read the layout, by file names alone (pybids is not needed).

    Parameters
    ----------
    path
        Folder of the ``sub-…`` folders.
    channels
        Suffix of each channel, e.g. ``FLAIR``, with entities before it where several files
        have it, e.g. ``acq-high_T1w``. Default: the one suffix there is.
    labels
        Suffix of the label maps, e.g. ``dseg`` or ``space-T1w_desc-lesion_mask``. They are looked
        for in ``derivatives`` and beside the images. Default: the one of dseg, mask, lesion,
        roi, seg, label that is there, if any.

    Returns
    -------
    Cohort
        One case a session, or a subject without sessions. The patient is the subject.
        ``participants.tsv`` gives metadata, and the split if it has such a column.

    Raises
    ------
    DataError
        If there is no image, or several suffixes and none was chosen; they are listed.
    """
    raw = [file for folder in sorted(path.glob("sub-*")) for file in _files(folder)]
    derived = list(_files(path / "derivatives"))
    labels = labels or _one_label_suffix(path, [*derived, *raw])
    is_label = [f.suffix in LABEL_SUFFIXES or (labels is not None and f.is_a(labels)) for f in raw]
    images = [file for file, is_it in zip(raw, is_label, strict=True) if not is_it]
    channels = tuple(channels) or (_one_suffix(path, images),)
    maps = [f for f in [*derived, *raw] if labels is not None and f.is_a(labels)]
    for wanted, files in ((labels, maps), *((c, images) for c in channels)):
        if wanted is not None and not any(file.is_a(wanted) for file in files):
            raise DataError(f"{path}: no file {wanted!r}; there are {_counts([*raw, *derived])}")

    draft = Draft(path, "bids")
    subjects = _subjects(draft)
    cases: defaultdict[str, list[_File]] = defaultdict(list)
    maps_of: defaultdict[str, list[_File]] = defaultdict(list)
    for file in images:
        cases[file.case].append(file)
    for file in maps:
        maps_of[file.case].append(file)
    for name, files in cases.items():
        chosen = [_one(draft, name, files, wanted) for wanted in channels]
        if not any(chosen):
            draft.remark(f"left out: has none of {', '.join(channels)}", "add them", name)
            continue
        there = next(file for file in chosen if file is not None)
        found = [
            file.path if file is not None else there.path.with_name(f"{name}_{wanted}.nii.gz")
            for file, wanted in zip(chosen, channels, strict=True)
        ]
        own = _one(draft, name, maps_of.pop(name, []), labels) if labels is not None else None
        subject = f"sub-{there.entities['sub']}"
        metadata, split = subjects.get(subject, ({}, ""))
        draft.add(
            name, found, None if own is None else own.path, _split(draft, name, split),
            subject, metadata,
        )  # fmt: skip
    for name, files in maps_of.items():
        draft.fault("labels without an image", "add the image or remove the labels", name,
                    files[0].path)  # fmt: skip
    return draft.finish(channels)


def _files(folder: Path) -> Iterable[_File]:
    """Image files with BIDS names at any depth, hidden ones left out."""
    if not folder.is_dir():
        return
    for path in visible(folder):
        if path.is_dir():
            yield from _files(path)
        elif (file := _File.of(path)) is not None:
            yield file


def _counts(files: Iterable[_File]) -> str:
    found = Counter(file.suffix for file in files)
    return ", ".join(f"{suffix} ({n})" for suffix, n in sorted(found.items())) or "none"


def _one_suffix(path: Path, images: list[_File]) -> str:
    """Find the only suffix of the images."""
    found = {file.suffix for file in images}
    if not found:
        raise DataError(f"{path}: expected {NEEDS}; found no image with such a name")
    if len(found) > 1:
        raise DataError(
            f"{path}: images have several suffixes: {_counts(images)}; choose the channels, e.g. "
            f"--channel {min(found)} (Python: channels=({min(found)!r},))"
        )
    return found.pop()


def _one_label_suffix(path: Path, files: list[_File]) -> str | None:
    """Find the only suffix of label maps, if there are any."""
    maps = [file for file in files if file.suffix in LABEL_SUFFIXES]
    found = {file.suffix for file in maps}
    if len(found) > 1:
        raise DataError(
            f"{path}: label maps have several suffixes: {_counts(maps)}; choose one, e.g. "
            f"--labels {min(found)} (Python: labels={min(found)!r})"
        )
    return found.pop() if found else None


def _one(draft: Draft, case: str, files: list[_File], wanted: str) -> _File | None:
    """Find the only file of a kind; several are a fault."""
    found = [file for file in files if file.is_a(wanted)]
    if len(found) > 1:
        draft.fault(
            f"{len(found)} files {wanted}: {', '.join(file.path.name for file in found)}",
            "choose with entities before the suffix, e.g. acq-high_T1w, or remove all but one",
            case,
        )
    return found[0] if found else None


def _subjects(draft: Draft) -> dict[str, tuple[dict[str, str | float], str]]:
    """Metadata and split of each subject of ``participants.tsv``."""
    path = draft.root / PARTICIPANTS
    if not path.is_file():
        return {}
    frame = read_table(path)
    if "participant_id" not in frame:
        raise DataError(f"{path}: no column participant_id among {', '.join(frame.columns)}")
    ids = [str(name) for name in frame.pop("participant_id")]
    splits = [str(s) for s in frame.pop("split")] if "split" in frame else [""] * len(ids)
    rows = metadata_of(
        {str(k): v for k, v in row.items()} for row in frame.to_dict(orient="records")
    )
    return dict(zip(ids, zip(rows, splits, strict=True), strict=True))


def _split(draft: Draft, case: str, text: str) -> Split | None:
    try:
        return split_of(text)
    except DataError as error:
        draft.fault(str(error), f"correct it in {PARTICIPANTS}", case, draft.root / PARTICIPANTS)
        return None
