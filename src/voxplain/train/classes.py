"""Which labels of the data become which class of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.data import Case, Cohort
from voxplain.data.cohort import NAMES_FILE
from voxplain.errors import GridError, LabelError, TrainingError, all_faults
from voxplain.space import Grid, read_labels
from voxplain.space.labelmap import BACKGROUND
from voxplain.train.settings_file import among

_MOST_IDS = 30  # that a message tells
Given = Mapping[str, Sequence[str | int]]


@dataclass(frozen=True)
class Joining:
    """Labels of the data, joined to classes.

    Parameters
    ----------
    labels
        Name of each label of the data, or of each structure that has a mask of its own.
        Empty: unknown.
    class_names
        Output channels, background first.
    class_of
        Class (1, 2, …) of each label that is in one; all others are background.
    """

    labels: Mapping[int, str]
    class_names: tuple[str, ...]
    class_of: Mapping[int, int]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Smallest type that holds the classes."""
        return np.min_scalar_type(len(self.class_names) - 1)

    def read(self, case: Case, grid: Grid) -> NDArray[np.unsignedinteger[Any]]:
        """Read the classes of a case, (*grid.shape).

        Masks are read one after the other; where two classes' masks overlap, the later class of
        `class_names` has the voxel.

        Parameters
        ----------
        case
            With labels.
        grid
            The image's.

        Raises
        ------
        GridError
            If labels and image are on different grids.
        LabelError
            If a label occurs that the data do not declare, or a file is wrong.
        """
        if isinstance(case.labels, Mapping):
            return self._from_masks(case, case.labels, grid)
        found = case.read_labels({})
        self._same_grid(case, found.grid, grid)
        present = [label for label in found.names if label]
        undeclared = [label for label in present if self.labels and label not in self.labels]
        if undeclared:
            raise LabelError(
                f"{case.name}: labels {undeclared} occur and are not declared; declared are "
                f"{sorted(self.labels)}"
            )
        table = np.zeros(max(present, default=0) + 1, self.dtype)
        for label in present:
            table[label] = self.class_of.get(label, 0)
        return np.asarray(table[found.layers[0]])

    def _from_masks(
        self, case: Case, masks: Mapping[str, Any], grid: Grid
    ) -> NDArray[np.unsignedinteger[Any]]:
        joined = np.zeros(grid.shape, self.dtype)
        label_of = {name: label for label, name in self.labels.items()}
        wanted = [(self.class_of.get(label_of.get(name, 0), 0), name) for name in masks]
        for index, name in sorted(pair for pair in wanted if pair[0]):
            mask = read_labels(masks[name], names={})
            self._same_grid(case, mask.grid, grid)
            joined[mask.layers[0] > 0] = index
        return joined

    @staticmethod
    def _same_grid(case: Case, labels: Grid, image: Grid) -> None:
        if not labels.matches(image):
            raise GridError(
                f"{case.name}: labels and image are on different grids, {labels.describe()} and "
                f"{image.describe()}; run voxplain data check"
            )


def join(cohort: Cohort, given: Given | None) -> Joining:
    """Join the labels of a cohort to classes.

    Parameters
    ----------
    cohort
        Its `classes` name the labels; where it has none, masks name the structures.
    given
        Class → names, patterns (``rib_*``) or ids of labels; None: every label is a class.

    Raises
    ------
    TrainingError
        If a name or id is in no case of the data, or in two classes, or the data name no labels
        and `given` does not go by ids.
    """
    if cohort.ignored_label is not None:
        raise TrainingError(
            f"label {cohort.ignored_label} marks voxels to be ignored, and a recipe trains on "
            "every voxel; give the label another name if it is to be background"
        )
    labels = _labels(cohort)
    if given is None:
        if not labels:
            raise TrainingError(
                "the data do not name their labels; give classes by id, e.g. "
                f"--set classes.liver=5, or names in {cohort.root / NAMES_FILE}"
            )
        given = {name: [label] for label, name in sorted(labels.items())}
    faults: list[str] = []
    class_of: dict[int, int] = {}
    for index, (name, parts) in enumerate(given.items(), 1):
        for part in parts:
            found = _matching(part, labels)
            if not found:
                faults.append(f"{name}: no label {part!r}{_known(part, labels)}")
            for label in found:
                if class_of.setdefault(label, index) != index:
                    other = list(given)[class_of[label] - 1]
                    faults.append(f"{name}: label {labels.get(label, label)!r} is in {other} too")
    if faults:
        raise TrainingError(all_faults("classes", faults))
    return Joining(labels, (BACKGROUND, *given), class_of)


def _known(part: str | int, labels: Mapping[int, str]) -> str:
    """End the message that there is no such label."""
    if isinstance(part, str):
        return among(part, tuple(labels.values()))
    ids = ", ".join(map(str, sorted(labels)[:_MOST_IDS])) or "none is named"
    more = f" and {len(labels) - _MOST_IDS} more" if len(labels) > _MOST_IDS else ""
    return f"; labels are {ids}{more}"


def _labels(cohort: Cohort) -> dict[int, str]:
    declared = {label: name for label, name in cohort.classes.items() if label}
    if declared:
        return declared
    masks = {name for case in cohort if isinstance(case.labels, Mapping) for name in case.labels}
    return dict(enumerate(sorted(masks), 1))


def _matching(part: str | int, labels: Mapping[int, str]) -> list[int]:
    if isinstance(part, int):
        return [part] if part > 0 and (part in labels or not labels) else []
    return [label for label, name in labels.items() if fnmatchcase(name, part)]
