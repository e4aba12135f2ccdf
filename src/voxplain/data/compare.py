"""What shows only beside the other cases: doubles, leaks between splits, odd ones out."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from voxplain.data.case import Case
from voxplain.data.cohort import Cohort
from voxplain.data.examine import Examined
from voxplain.data.fault import Fault, Kind, shown

OUTLIER = 3.0  # times the median spacing, or a third of it
FEW = 4  # cases, below which no median is trusted


def compare(cohort: Cohort, examined: Sequence[Examined]) -> list[Fault]:
    """Find the faults and remarks that need more than one case.

    Parameters
    ----------
    cohort
        The cases.
    examined
        What was found in each.

    Returns
    -------
    list
        Labels missing, files used twice, patients in two splits, cases of other rank or number
        of channels; remarks on spacing (more than 3 times the median of an anatomical axis, or
        less than a third; from 4 cases on) and orientation.
    """
    return [
        *_unlabelled(cohort),
        *_used_twice(cohort),
        *_same_voxels(examined),
        *_split_patients(cohort.cases),
        *_odd_shapes(cohort, examined),
        *_odd_spacing(examined),
        *_odd_orientation(examined),
    ]


def _unlabelled(cohort: Cohort) -> Iterable[Fault]:
    """Training and validation cases without labels, where others have some."""
    if not any(case.label_files for case in cohort.cases):
        return
    for case in cohort.cases:
        if not case.label_files and case.split != "test":
            is_fault = case.split is not None
            yield Fault(
                f"{'an image for ' + case.split if case.split else 'an image'} without labels",
                "add them or remove the case" if is_fault else "add them, or put it into test",
                case.name,
                kind="fault" if is_fault else "remark",
            )


def _used_twice(cohort: Cohort) -> Iterable[Fault]:
    """Files that are an image or labels of two cases, or twice in one."""
    users: defaultdict[Path, list[str]] = defaultdict(list)
    for case in cohort.cases:
        for file in (*case.images, *case.label_files):
            users[Path(os.path.realpath(file))].append(case.name)
    for file, names in users.items():
        if len(names) > 1:
            yield Fault(
                f"the file is used {len(names)} times: by {_listed(names)}",
                "use each file once",
                file=shown(file, Path(os.path.realpath(cohort.root))),
            )


def _same_voxels(examined: Sequence[Examined]) -> Iterable[Fault]:
    """Different files that hold the same image."""
    users: defaultdict[str, list[str]] = defaultdict(list)
    for found in examined:
        for digest in found.sha256:
            users[digest].append(found.case.name)
    for names in users.values():
        if len(names) > 1:
            yield Fault(
                f"the same image, voxel for voxel, {len(names)} times: in {_listed(names)}",
                "remove all but one",
            )


def _split_patients(cases: Iterable[Case]) -> Iterable[Fault]:
    """Patients with cases in more than one split."""
    of_patient: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.patient is not None and case.split is not None:
            of_patient[case.patient].append(case)
    for own in of_patient.values():
        if len({case.split for case in own}) > 1:
            yield Fault(
                "cases of one patient are in different splits: "
                + _listed(f"{case.name} ({case.split})" for case in own),
                "put all cases of a patient into one split",
            )


def _odd_shapes(cohort: Cohort, examined: Sequence[Examined]) -> Iterable[Fault]:
    """Cases with another rank or number of channels than most."""
    ranks = {e.case.name: f"{e.grid.rank}D" for e in examined if e.grid is not None}
    words, advice = "is {}, {} of {} cases are {}", "divide them: a model takes one of both"
    yield from _minority(ranks, words, "fault", advice)
    if not cohort.channels:
        n = {e.case.name: f"{e.n_channels}" for e in examined if e.n_channels is not None}
        words, advice = "has {} channels, {} of {} cases have {}", "give every case the same"
        yield from _minority(n, words, "fault", advice)


def _odd_orientation(examined: Sequence[Examined]) -> Iterable[Fault]:
    """Cases whose axes point elsewhere than those of most."""
    codes = {e.case.name: e.grid.orientation for e in examined if e.grid is not None}
    words, advice = "axes point to {}, of {} of {} cases to {}", "fine where headers are heeded"
    yield from _minority(codes, words, "remark", advice)


def _minority(value_of: dict[str, str], words: str, kind: Kind, advice: str) -> Iterable[Fault]:
    """Cases whose value is not the most frequent one."""
    ((common, n),) = Counter(value_of.values()).most_common(1) or [("", 0)]
    for case, value in value_of.items():
        if value != common:
            what = words.format(value, n, len(value_of), common)
            yield Fault(what, advice, case, kind=kind)


def _odd_spacing(examined: Sequence[Examined]) -> Iterable[Fault]:
    """Cases whose spacing is far from the median, by anatomical axis."""
    for rank in (2, 3):
        grids = [(e.case.name, e.grid) for e in examined if e.grid and e.grid.rank == rank]
        if len(grids) < FEW:
            continue
        upright = "RAS"[:rank]
        spacing = np.array([grid.reorient(upright).spacing for _, grid in grids])
        median = np.median(spacing, axis=0)
        far = np.abs(np.log(spacing / median)) > np.log(OUTLIER)
        for (case, _), own, is_far in zip(grids, spacing, far, strict=True):
            if is_far.any():
                yield Fault(
                    f"spacing (right, anterior, superior) is {_mm(own)} mm, the median of "
                    f"{len(grids)} cases {_mm(median)} mm",
                    "look whether its header is right",
                    case,
                    kind="remark",
                )


def _mm(spacing: Iterable[float]) -> str:
    return f"({', '.join(f'{s:.3g}' for s in spacing)})"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
