"""Several models that answer for one image together, each for classes of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxplain.errors import ModelError, TargetError
from voxplain.models.model import Model
from voxplain.space.labelmap import BACKGROUND, LabelMap, nearest
from voxplain.space.volume import Volume


@dataclass(frozen=True, eq=False)
class Parts:
    """A task that is cut into models, such as TotalSegmentator's ``total``.

    Parameters
    ----------
    name
        Name in tables and reports.
    models
        At least two segmentation models whose classes exclude each other; where two of them
        claim a voxel, the later one has it.
    class_names
        Names of the whole task's labels: label i of the merged map, background first.

    Raises
    ------
    ModelError
        If a class belongs to no model or to two, or a model is not of this kind.
    """

    name: str
    models: tuple[Model, ...]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        faults: list[str] = []
        owners = [name for model in self.models for name in _foreground(model)]
        faults += [
            f"class {name!r} belongs to {owners.count(name)} models"
            for name in dict.fromkeys([*self.class_names[1:], *owners])
            if owners.count(name) != 1
        ]
        faults += [
            f"class {name!r} has no label" for name in owners if name not in self.class_names
        ]
        if self.class_names[:1] != (BACKGROUND,):
            faults.append(f"label 0 is {BACKGROUND}, got {self.class_names[:1]}")
        faults += [
            f"{model.info.name} has no class {BACKGROUND} that excludes the others"
            for model in self.models
            if not model.info.is_exclusive or model.info.class_names[0] != BACKGROUND
        ]
        if faults:
            raise ModelError(f"{self.name}: " + "; ".join(faults))

    @property
    def answers(self) -> tuple[str, ...]:
        """Classes that can be asked for: all but the background."""
        return self.class_names[1:]

    @property
    def sha256(self) -> str:
        """Hash of all models' weights."""
        return hashlib.sha256("".join(m.info.sha256 for m in self.models).encode()).hexdigest()

    def check_image(self, image: Volume) -> None:
        """Check that an image has the rank and the channels that every model needs.

        Raises
        ------
        ModelError
            If not.
        """
        for model in self.models:
            model.check_image(image)

    def owner(self, class_name: str) -> Model:
        """Model that answers for a class.

        Raises
        ------
        TargetError
            If there is none, or the class is the background, which every model has.
        """
        if class_name == BACKGROUND:
            raise TargetError(
                f"each of the {len(self.models)} models of {self.name} has a background of its "
                "own: name a structure"
            )
        for model in self.models:
            if class_name in model.info.class_names:
                return model
        raise TargetError(f"no class {class_name!r}{nearest(class_name, self.class_names)}")

    def merge(self, predictions: Sequence[LabelMap]) -> LabelMap:
        """Merge the models' label images, in their order, into one.

        Parameters
        ----------
        predictions
            One label image a model, on one grid.
        """
        grid = predictions[0].grid
        dtype = np.min_scalar_type(len(self.class_names))
        merged = np.zeros(grid.shape, dtype)
        for prediction in predictions:
            labels = prediction.layers[0]
            label_of = np.zeros(int(labels.max(initial=0)) + 1, dtype)
            for label, name in prediction.names.items():
                if label and label < len(label_of):
                    label_of[label] = self.class_names.index(name)
            is_claimed = labels != 0
            merged[is_claimed] = label_of[labels[is_claimed]]
        return LabelMap(merged[None], grid, dict(enumerate(self.class_names)))


def _foreground(model: Model) -> tuple[str, ...]:
    return tuple(name for name in model.info.class_names if name != BACKGROUND)
