"""Which cases are learned from, and which tell the best epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxplain.data import Case, Cohort
from voxplain.errors import TrainingError, all_faults


@dataclass(frozen=True)
class Division:
    """Cases of a training.

    Parameters
    ----------
    training, validation
        At least one case each; no patient is in both.
    """

    training: tuple[Case, ...]
    validation: tuple[Case, ...]


def divide(cohort: Cohort, share: float, seed: int) -> Division:
    """Divide a cohort: as its cases say, else by patient, at random.

    Parameters
    ----------
    cohort
        Cases of the split ``test`` are left out. If some are ``validation``, those are
        validated and those of ``train`` are trained on; else all that remain are divided.
    share
        Share of the patients that become validation cases, at least one.
    seed
        Of the draw.

    Raises
    ------
    TrainingError
        If a case to be used has no labels, one patient is in both parts, or a part is empty.
    """
    if any(case.split == "validation" for case in cohort):
        training, validation = cohort.of("train"), cohort.of("validation")
    else:
        left = [case for case in cohort if case.split != "test"]
        kept = _drawn(sorted({_patient(case) for case in left}), share, seed)
        training = tuple(case for case in left if _patient(case) not in kept)
        validation = tuple(case for case in left if _patient(case) in kept)
    faults = [f"{case.name} has no labels" for case in (*training, *validation) if not case.labels]
    both = {_patient(case) for case in training} & {_patient(case) for case in validation}
    if both:
        faults.append(f"{len(both)} patients are in the training and in the validation cases")
    if not (training and validation):
        faults.append(
            f"expected at least one case to train on and one to validate, of another patient; "
            f"got {len(training)} and {len(validation)}"
        )
    if faults:
        raise TrainingError(all_faults("training cases", faults))
    return Division(training, validation)


def case_sha256(case: Case) -> str:
    """Hash of the bytes of a case's files, and of the names of its structures."""
    digest = hashlib.sha256()
    structures = sorted(case.labels) if isinstance(case.labels, dict) else []
    digest.update(repr((len(case.images), structures)).encode())
    for path in (*case.images, *case.label_files):
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        for file in inside if path.is_dir() else [path]:
            digest.update(_file_sha256(file).encode())
    return digest.hexdigest()


def _file_sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise TrainingError(
            f"{file} cannot be read: {error.strerror}; run voxplain data check"
        ) from None


def _patient(case: Case) -> str:
    return case.name if case.patient is None else case.patient


def _drawn(patients: Sequence[str], share: float, seed: int) -> set[str]:
    """Patients that are validated: a share, at least one, never all."""
    n = min(max(1, round(share * len(patients))), len(patients) - 1)
    order = np.random.default_rng([seed, len(patients)]).permutation(len(patients))
    return {patients[i] for i in order[: max(n, 0)]}
