"""TotalSegmentator: its resampling around its nnU-Nets, behind the one interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.errors import ImageError, ModelError
from voxplain.models.model import Model
from voxplain.models.nnunet import NnUNetModel, load_nnunet
from voxplain.models.parts import Parts
from voxplain.models.totalseg_tasks import Task, read_task
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume


def load_totalseg(task: str) -> Model | Parts:
    """Load a task of TotalSegmentator from its local weights.

    Parameters
    ----------
    task
        ``total``, ``total_fast``, ``total_fastest``, ``total_mr``, …; nothing is downloaded.

    Returns
    -------
    Model or Parts
        Several networks (``total``: five) are parts.

    Raises
    ------
    MissingExtraError
        If TotalSegmentator is not installed.
    ModelError
        If there is no such task, its weights are not there, or it does more than segment.
    """
    found = read_task(task)
    models = tuple(TotalSegModel(found, part) for part in range(len(found.parts)))
    if len(models) == 1:
        return models[0]
    return Parts(f"TotalSegmentator {task}", models, found.class_names)


class TotalSegModel(Model):
    """One network of a task; made by `load_totalseg`.

    `prepare` turns the image to R, A, S, resamples it as TotalSegmentator does (linear between
    the centres of the first and last voxels, cut to whole numbers) and runs nnU-Net's
    preprocessing; `label_image` goes back the same way, nearest neighbour. Without mirroring, and
    with the step of windows that the task uses.

    Its affine after resampling is off by up to half a voxel (the nominal spacing); grids here
    say where the voxels truly lie.

    An image of more than 512·512·900 voxels after resampling is cut in three by TotalSegmentator,
    for memory; here it is not.
    """

    def __init__(self, task: Task, part: int) -> None:
        folder, class_names = task.parts[part]
        self._task = task
        self._network: NnUNetModel = load_nnunet(
            folder, folds=task.folds, mirroring=False, step=task.step,
            trainer=_trainer(task.trainer),
        )  # fmt: skip
        own = self._network.info
        if len(class_names) != own.n_classes:
            raise ModelError(
                f"{folder}: the network has {own.n_classes} classes, TotalSegmentator names "
                f"{len(class_names)} for it; do the versions of program and weights agree?"
            )
        suffix = f" ({folder.parent.name.partition('_')[0]})" if len(task.parts) > 1 else ""
        self.info = replace(
            own, name=f"TotalSegmentator {task.name}{suffix}", class_names=class_names
        )
        self.module = self._network.module

    @property
    def n_views(self) -> int:
        """Number of folds: one, but for a few tasks."""
        return self._network.n_views

    def forward(self, windows: torch.Tensor, view: int = 0) -> torch.Tensor:
        """Logits of a batch of windows of one fold."""
        return self._network.forward(windows, view)

    def prepare(self, image: Volume) -> Volume:
        """Image in R, A, S at the task's spacing, after nnU-Net's preprocessing.

        Raises
        ------
        ModelError
            If channels or rank do not fit.
        ImageError
            If every voxel is 0, or is once cut to whole numbers.
        """
        self.check_image(image)
        nominal, true = self._resampled(image)
        if image.data.any() and not nominal.data.any():
            low, high = float(image.data.min()), float(image.data.max())
            raise ImageError(
                f"{image.name}: TotalSegmentator cuts intensities to whole numbers, and of values "
                f"from {low:.4g} to {high:.4g} nothing is left; give the image as it came from "
                "the scanner"
            )
        prepared = self._network.prepare(nominal)
        to_world = true.affine @ np.linalg.inv(nominal.grid.affine) @ prepared.grid.affine
        return Volume(
            prepared.data, Grid(prepared.grid.shape, to_world), self.info.channel_names, image.name
        )

    def label_image(self, logits: NDArray[np.floating[Any]], grid: Grid, image: Volume) -> LabelMap:
        """Return TotalSegmentator's segmentation of the image by this network."""
        import nibabel
        from totalsegmentator.alignment import undo_canonical
        from totalsegmentator.resampling import change_spacing

        nominal, _ = self._resampled(image)
        labels = self._network.label_image(logits, grid, nominal).layers[0].astype(np.uint8)
        found = nibabel.Nifti1Image(labels, nominal.grid.affine)
        original = _nifti(image)
        canonical = nibabel.as_closest_canonical(original)
        if self._task.spacing is not None:
            found = change_spacing(
                found, list(self._task.spacing), canonical.shape, order=0, dtype=np.uint8,
                force_affine=canonical.affine,
            )  # fmt: skip
        restored = undo_canonical(found, original)
        data = np.asarray(restored.dataobj, np.uint8)
        return LabelMap(data[None], image.grid, self.info.label_names)

    def describe_preparation(self) -> Mapping[str, Any]:
        """Return task, spacing and what nnU-Net does as plain values."""
        spacing = self._task.spacing
        return {
            "framework": "TotalSegmentator",
            "task": self._task.name,
            "resampled": None if spacing is None else list(spacing),
            "network": dict(self._network.describe_preparation()),
        }

    def _resampled(self, image: Volume) -> tuple[Volume, Grid]:
        """Image at the task's spacing on the grid TotalSegmentator writes, and the true grid."""
        import nibabel
        from totalsegmentator.resampling import change_spacing

        canonical = nibabel.as_closest_canonical(_nifti(image))
        if self._task.spacing is None:
            data, affine = np.asarray(canonical.dataobj, np.float32), canonical.affine
            grid = Grid(data.shape, affine)
            return Volume(data[None], grid, self._network.info.channel_names, image.name), grid
        found = change_spacing(canonical, list(self._task.spacing), order=1, dtype=np.int32)
        data = np.asarray(found.dataobj, np.float32)
        nominal = Volume(
            data[None], Grid(data.shape, found.affine), self._network.info.channel_names, image.name
        )
        return nominal, _between_centres(Grid(canonical.shape, canonical.affine), data.shape)


def _between_centres(grid: Grid, shape: tuple[int, ...]) -> Grid:
    """Grid of another shape whose first and last voxel centres are those of `grid`."""
    scale = [(old - 1) / (new - 1) if new > 1 else 1.0
             for old, new in zip(grid.shape, shape, strict=True)]  # fmt: skip
    return Grid(shape, grid.affine @ np.diag([*scale, 1.0]))


def _nifti(image: Volume) -> Any:
    import nibabel

    return nibabel.Nifti1Image(image.data[0].astype(np.float64), image.grid.affine)


def _trainer(name: str) -> str | None:
    """Trainer that builds the network: TotalSegmentator's own ones build as nnU-Net's does."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from totalsegmentator import custom_trainers

    own = getattr(custom_trainers, name, None)
    if own is not None and own.__module__ == custom_trainers.__name__:
        is_standard = own.build_network_architecture is nnUNetTrainer.build_network_architecture
        return "nnUNetTrainer" if is_standard else f"{custom_trainers.__name__}:{name}"
    return None
