"""nnU-Net v2: its networks, its preprocessing and its export, behind the one interface."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from voxplain.errors import ImageError, needs_extra
from voxplain.models.model import Model, ModelInfo, label_layers
from voxplain.models.nnunet_folder import Folds, ResultsFolder, quiet, read_results_folder
from voxplain.models.nnunet_network import build_networks
from voxplain.models.weights import weights_sha256
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.resample import resample, resample_labels
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings

_FLAT = "NaturalImage2DIO"  # reads pictures: nnU-Net gives them a first axis of one voxel, 999 mm
_FLAT_MM = 999.0
_REORIENTING = "NibabelIOWithReorient"


def load_nnunet(
    folder: Path,
    *,
    folds: Folds = "all",
    checkpoint: str = "final",
    mirroring: bool = True,
    step: float = 0.5,
    trainer: str | None = None,
    trust_code: bool = False,
) -> NnUNetModel:
    """Load a trained nnU-Net v2 from its results folder.

    Parameters
    ----------
    folder
        ``Trainer__Plans__Configuration`` with ``plans.json``, ``dataset.json`` and ``fold_…``; or
        the ``Dataset…`` folder above, if it holds a single one.
    folds
        ``all`` that are there, or some; the logits of several are averaged.
    checkpoint
        ``final``, ``best`` or a file name.
    mirroring
        Average over mirrored copies along the axes that training allowed, as nnU-Net predicts.
    step
        Distance of windows, in windows; nnU-Net's default is 0.5.
    trainer
        Class that builds the network, where it is not found by the name in the checkpoint:
        ``nnUNetTrainer`` builds from the plans, ``package.module:Class`` needs `trust_code`.
    trust_code
        Allow networks and trainers from outside nnU-Net and torch.

    Raises
    ------
    MissingExtraError
        If nnunetv2 is not installed.
    ModelError
        If files are missing or damaged, do not fit each other, or describe a cascade.
    TrustError
        If other code would have to be run.
    """
    with quiet():
        needs_extra("nnunetv2", "nnunet", "loading an nnU-Net")
        found = read_results_folder(folder, folds, checkpoint)
        return NnUNetModel(found, mirroring, step, trainer, trust_code)


class NnUNetModel(Model):
    """A trained nnU-Net; made by `load_nnunet`.

    `prepare` is nnU-Net's own preprocessing (transpose, crop to non-zero, normalise, resample)
    and `label_image` its own export (resample logits, decide, undo crop and transpose), both
    with the functions that the plans name. Images come from voxplain's reader, whose axes are
    brought into the order of nnU-Net's readers. Logits are kept in float32, where
    ``nnUNetPredictor`` sums them in float16.

    The gradient goes from the logits to the preprocessed image. A voxel outside of the crop to
    non-zero has the attribution 0: the network never sees it.
    """

    def __init__(
        self,
        found: ResultsFolder,
        mirroring: bool,
        step: float,
        trainer: str | None,
        trust_code: bool,
    ) -> None:
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        self._found = found
        self._plans = PlansManager(found.plans)
        self._configuration = self._plans.get_configuration(found.configuration)
        self._labels = self._plans.get_label_manager(found.dataset)
        reader = found.dataset.get("overwrite_image_reader_writer")
        reader = found.plans["image_reader_writer"] if reader in (None, "None") else reader
        self._is_flat = reader == _FLAT
        self._is_reoriented = reader == _REORIENTING
        self._is_sliced = len(self._configuration.patch_size) == 2  # slices of a volume
        axes = found.mirror_axes if mirroring else ()
        self._flips: list[tuple[int, ...]] = [
            tuple(axis + 2 for axis in chosen)
            for n in range(len(axes) + 1)
            for chosen in itertools.combinations(axes, n)
        ]
        networks = build_networks(
            found, self._plans, self._configuration, self._labels.num_segmentation_heads,
            trainer, trust_code,
        )  # fmt: skip
        self.module = nn.ModuleList(networks)
        self._networks = networks
        size = tuple(int(n) for n in self._configuration.patch_size)
        channels = found.dataset.get("channel_names") or found.dataset["modality"]
        self.info = ModelInfo(
            name=f"{found.plans.get('dataset_name', found.path.parent.name)} {found.configuration}",
            kind="segmentation",
            rank=2 if self._is_flat else 3,
            channel_names=tuple(str(channels[key]) for key in sorted(channels, key=int)),
            class_names=self._class_names(),
            activation="sigmoid" if self._labels.has_regions else "softmax",
            window=WindowSettings(
                size=(1, *size) if self._is_sliced and not self._is_flat else size,
                overlap=1 - step,
                blend="gaussian",
                scheme="nnunet",
            ),
            sha256=weights_sha256(self.module),
        )

    def _class_names(self) -> tuple[str, ...]:
        """Names of the heads: labels in ascending order, or regions in the order of the file."""
        labels = {name: value for name, value in self._found.dataset["labels"].items()
                  if name != "ignore"}  # fmt: skip
        if self._labels.has_regions:
            return tuple(name for name in labels if name != "background")
        return tuple(sorted(labels, key=lambda name: int(np.ravel(labels[name])[0])))

    # -- views ------------------------------------------------------------------------
    @property
    def n_views(self) -> int:
        """Folds times mirrored copies (the unmirrored one among them)."""
        return len(self._networks) * len(self._flips)

    def network(self, view: int = 0) -> nn.Module:
        """Return the fold that a view runs."""
        return self._networks[view // len(self._flips)]

    def flips(self, view: int) -> tuple[int, ...]:
        """Spatial axes of a window along which a view is mirrored; a slice's begin at axis 1."""
        shift = self.info.rank - len(self._configuration.patch_size)
        return tuple(axis - 2 + shift for axis in self._flips[view % len(self._flips)])

    def forward(self, windows: torch.Tensor, view: int = 0) -> torch.Tensor:
        """Logits of a batch in one view: one fold, mirrored or not, mirrored back."""
        fold, flip = divmod(view, len(self._flips))
        axes = self._flips[flip]
        network = self._networks[fold]
        is_slice = windows.ndim == 5 and self._is_sliced
        inputs = windows[:, :, 0] if is_slice else windows
        logits = network(inputs.flip(axes)).flip(axes) if axes else network(inputs)
        return torch.as_tensor(logits[:, :, None] if is_slice else logits)

    # -- to the model's grid and back ---------------------------------------------------
    def prepare(self, image: Volume) -> Volume:
        """Image after nnU-Net's preprocessing, axes in its order (z, y, x, then its transpose).

        Raises
        ------
        ModelError
            If channels or rank do not fit.
        ImageError
            If every voxel is 0.
        """
        self.check_image(image)
        self._refuse_empty(image)
        array, grid, spacing = self._ordered(image)
        properties: dict[str, Any] = {"spacing": spacing}
        with quiet():
            preprocessor = self._configuration.preprocessor_class(verbose=False)
            data, _, properties = preprocessor.run_case_npy(
                array, None, properties, self._plans, self._configuration, self._found.dataset
            )
        values = np.asarray(data, np.float32)
        if self._is_flat:
            grid = _cropped(grid, properties["bbox_used_for_cropping"][1:])
            values = values[:, 0]
        else:
            grid = grid.permute(self._plans.transpose_forward)
            grid = _cropped(grid, properties["bbox_used_for_cropping"])
        return Volume(values, grid.resize(values.shape[1:]), self.info.channel_names, image.name)

    def label_image(self, logits: NDArray[np.floating[Any]], grid: Grid, image: Volume) -> LabelMap:
        """Return nnU-Net's segmentation of the image; of regions one layer each.

        Logits are resampled by the plans' function, one class at a time, and decided on the
        image's grid: the largest logit, or for regions a probability above one half. Painting
        the layers in the order ``regions_class_order`` gives nnU-Net's single map.
        """
        from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero

        array, own, spacing = self._ordered(image)
        order = self._plans.transpose_forward
        moved = array.transpose(0, *(axis + 1 for axis in order))
        cropped, _, box = crop_to_nonzero(moved)
        spacings = [spacing[axis] for axis in order]
        current = list(self._configuration.spacing)
        current = [*spacings[: 3 - len(current)], *current]
        values = logits[:, None] if self._is_flat else logits

        def resampled(head: int) -> NDArray[np.float32]:
            one = np.asarray(values[head : head + 1], np.float32)
            with quiet():
                found = self._configuration.resampling_fn_probabilities(
                    one, cropped.shape[1:], current, spacings
                )
            first: NDArray[np.float32] = np.asarray(found, np.float32)[0]
            return first

        layers = np.zeros(
            (len(values) if self._labels.has_regions else 1, *moved.shape[1:]),
            np.min_scalar_type(len(values)),
        )
        place = (slice(None), *(slice(int(a), int(b)) for a, b in box))
        layers[place] = self._decided(len(values), resampled, cropped.shape[1:])
        layers = layers.transpose(0, *(axis + 1 for axis in self._plans.transpose_backward))
        if self._is_flat:
            return LabelMap(layers[:, 0], image.grid, self.info.label_names)
        layers = layers.transpose(0, 3, 2, 1)
        if own.permute((2, 1, 0)) == image.grid:
            return LabelMap(layers, image.grid, self.info.label_names)
        reoriented = LabelMap(layers, own.permute((2, 1, 0)), self.info.label_names)
        return resample_labels(reoriented, image.grid)

    def _decided(
        self, n_heads: int, resampled: Callable[[int], NDArray[np.float32]], shape: Sequence[int]
    ) -> NDArray[np.integer[Any]]:
        """Label layers, holding the logits of one or two classes at a time."""
        if self._labels.has_regions:
            masks = np.zeros((n_heads, *shape), np.bool_)
            for head in range(n_heads):
                probability = self._labels.apply_inference_nonlin(resampled(head))
                masks[head] = (probability > 0.5).numpy()
            return label_layers(masks)
        best = resampled(0)
        labels = np.zeros(tuple(shape), np.min_scalar_type(n_heads))
        for head in range(1, n_heads):
            logit = resampled(head)
            is_larger = logit > best
            labels[is_larger] = head
            best[is_larger] = logit[is_larger]
        return labels[None]

    def _ordered(self, image: Volume) -> tuple[NDArray[Any], Grid, list[float]]:
        """Array (channels, z, y, x) as nnU-Net's readers give it, its grid and its spacing."""
        if self._is_flat:
            return image.data[:, None], image.grid, [_FLAT_MM, *image.grid.spacing]
        if self._is_reoriented and image.grid.orientation != "RAS":
            image = resample(image, like=image.grid.reorient("RAS"))
        grid = image.grid.permute((2, 1, 0))
        array = np.ascontiguousarray(image.data.transpose(0, 3, 2, 1))  # sums in their order
        return array, grid, [float(mm) for mm in grid.spacing]

    def _refuse_empty(self, image: Volume) -> None:
        if not image.data.any():
            raise ImageError(f"{image.name}: every voxel is 0; nnU-Net crops to what is not 0")

    def describe_preparation(self) -> Mapping[str, Any]:
        """Return plans, spacing, normalisation, folds and mirroring as plain values."""
        settings = self._configuration
        return {
            "framework": "nnU-Net v2",
            "configuration": self._found.configuration,
            "plans": self._found.plans.get("plans_name"),
            "trainer": self._found.trainer,
            "folds": list(self._found.folds),
            "checkpoint": self._found.checkpoint,
            "mirroring": [[axis - 2 for axis in axes] for axes in self._flips],
            "crop": "to non-zero",
            "spacing": [float(mm) for mm in settings.spacing],
            "normalization": list(settings.normalization_schemes),
            "transpose": [int(axis) for axis in self._plans.transpose_forward],
        }


def _cropped(grid: Grid, box: Sequence[Sequence[int]]) -> Grid:
    start = [int(a) for a, _ in box]
    return grid.crop(start, [int(b) - int(a) for a, b in box])
