"""An image to be assessed on, with what is known of it on the model's grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from voxplain.attribution.question import Question
from voxplain.attribution.targets import ClassTarget, Target
from voxplain.models.model import Model
from voxplain.space.labelmap import LabelMap
from voxplain.space.resample import resample_labels
from voxplain.space.volume import Volume

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Subject:
    """One image of an assessment.

    Parameters
    ----------
    image
        As it was read; its name is the case's.
    patient
        What is the same for all images of one patient.
    labels
        True structures, by the names of the model's classes; None: not known.
    boxes
        By the name of a class: voxels of the image inside of its true boxes.
    """

    image: Volume
    patient: str
    labels: LabelMap | None = None
    boxes: Mapping[str, Mask] = field(default_factory=dict)

    def truth(self, question: Question, targets: Sequence[Target]) -> list[Mask | None]:
        """Return the true mask of each target on the model's grid; None where none is known.

        Parameters
        ----------
        question
            Of the subject's image.
        targets
            In the order of the question. Boxes come before labels. A target that names no class
            (what a classifier predicts) has all that is known of the case for its truth.
        """
        grid = question.pipeline.image.grid
        labels = None if self.labels is None else resample_labels(self.labels, grid)
        found: list[Mask | None] = []
        for target in targets:
            name = target.class_name if isinstance(target, ClassTarget) else None
            names = list(self.boxes) if name is None else [name]
            inside = [self.boxes[one] for one in names if one in self.boxes]
            if inside:
                box = np.asarray(np.any(inside, axis=0), np.uint8)[None]
                mapped = LabelMap(box, self.image.grid, {0: "outside", 1: "inside"})
                found.append(resample_labels(mapped, grid).mask("inside"))
            elif labels is None:
                found.append(None)
            elif name is None and not question.pipeline.is_dense:
                found.append(np.asarray((labels.layers > 0).any(axis=0)))
            elif name is not None and name in labels.names.values():
                found.append(labels.mask(name))
            else:
                found.append(None)
        return found


def predicted_masks(question: Question, targets: Sequence[Target]) -> list[Mask | None]:
    """Return the predicted mask of each target's class; None for classifiers and other targets."""
    names = question.info.class_names
    if not question.pipeline.is_dense:
        return [None] * len(targets)
    return [
        question.predicted_mask(names.index(target.class_name)).numpy()
        if isinstance(target, ClassTarget) and target.class_name is not None
        else None
        for target in targets
    ]


def default_targets(model: Model) -> list[str]:
    """Return what is assessed unasked: every class but the background."""
    return [f"class:{name}" for name in model.answers if name != "background"]
