"""MONAI bundles: their network, preprocessing and inferer, behind the one interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from torch import nn

from voxplain.errors import ModelError
from voxplain.models.bundle_build import Bundle, read_bundle
from voxplain.models.bundle_transforms import transform_entries, transform_name
from voxplain.models.metatensor import to_metatensor
from voxplain.models.model import Activation, Model, ModelInfo, OutputKind
from voxplain.models.probe import probe
from voxplain.models.weights import fit_weights, read_weights, weights_sha256
from voxplain.space.grid import Grid
from voxplain.space.volume import Volume
from voxplain.space.windows import SIGMA_SCALE, Blend, WindowSettings

_APPLIED: tuple[Activation, ...] = ("softmax", "sigmoid")
_THRESHOLD = 0.5  # of a probability
_TILT = 1e-3  # of a step along the axis: affines come from float32 headers
_SWAP = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])

WEIGHTS = ("model.pt", "model.pth", "model.safetensors")


def load_bundle(
    folder: Path,
    *,
    config: str | None = None,
    activation: Activation | None = None,
    trust_code: bool = False,
) -> BundleModel:
    """Load a MONAI bundle.

    Parameters
    ----------
    folder
        Holds ``configs`` and ``models``.
    config
        File in ``configs`` with the workflow of inference; None takes ``inference``, else
        ``evaluate`` or ``train``.
    activation
        What turns logits into probabilities; None reads it from the postprocessing.
    trust_code
        Evaluate the bundle's expressions and import its classes. Without it, networks of MONAI
        and torch.nn, MONAI's deterministic transforms and inferers are built, from plain
        values, references and arithmetic; entries that prediction does not need are not looked
        at.

    Raises
    ------
    TrustError
        If it would run code; the message lists what, and nothing has run.
    ModelError
        If something is missing, not understood, or does not fit.
    """
    bundle = read_bundle(folder, config, trust_code=trust_code)
    path = _weights(folder)
    fit_weights(bundle.network, read_weights(path), str(path))
    bundle.network.eval()
    model = BundleModel(bundle, folder.resolve().name, activation)
    probe(model)
    return model


class BundleModel(Model):
    """The network of a bundle; made by `load_bundle`.

    `prepare` runs the bundle's own transforms on the image (those that only load it or change
    its type are left out); the affine that MONAI keeps tells the grid. Pictures are handed over
    as (column, row) where the bundle's reader does so.
    """

    def __init__(self, bundle: Bundle, name: str, activation: Activation | None) -> None:
        self._bundle = bundle
        self.module: nn.Module = bundle.network
        window = _window(bundle)
        outputs = bundle.formats("outputs")
        self.info = ModelInfo(
            name=str(bundle.metadata.get("name") or name),
            kind=_kind(bundle, window),
            rank=_rank(bundle.network) if window is None else len(window.size),
            channel_names=_channels(bundle),
            class_names=_names(bundle, "outputs", next(iter(outputs), "pred")),
            activation=activation or _activation(bundle),
            window=window,
            sha256=weights_sha256(bundle.network),
        )

    def prepare(self, image: Volume) -> Volume:
        """Image after the bundle's preprocessing, on the grid that it gives.

        Raises
        ------
        ModelError
            If channels or rank do not fit, a transform fails, or the axes of what comes out are
            not parallel to the image's.
        """
        self.check_image(image)
        is_turned = self._bundle.is_columns_first and self.info.rank == 2
        given = _turned(image) if is_turned else image
        preprocessing = self._bundle.preprocessing
        key, tensor = preprocessing.key, to_metatensor(given)
        for transform in preprocessing.transforms:
            try:
                if hasattr(transform, "keys"):
                    tensor = transform({key: tensor})[key]
                else:
                    tensor = transform(tensor)
            except Exception as error:  # transforms raise whatever they like
                raise ModelError(
                    f"{self.info.name}: the bundle's {type(transform).__name__} fails on an image "
                    f"of {image.grid.describe()}: {error}"
                ) from error
        rank = self.info.rank
        found = np.asarray(tensor.affine, np.float64)
        affine = np.eye(rank + 1)
        affine[:rank, :rank], affine[:rank, rank] = found[:rank, :rank], found[:rank, 3]
        if is_turned:
            affine = _SWAP @ affine
        data = np.asarray(tensor.numpy(), image.data.dtype)
        grid = Grid(data.shape[1:], affine)
        self._check_parallel(grid, image.grid)
        return Volume(data, grid, self.info.channel_names, image.name)

    def describe_preparation(self) -> Mapping[str, Any]:
        """Return the config and the transforms as plain values."""
        return {
            "framework": "MONAI bundle",
            "version": str(self._bundle.metadata.get("version", "")),
            "config": self._bundle.config,
            "transforms": [dict(one) for one in self._bundle.preprocessing.described],
        }

    def _check_parallel(self, grid: Grid, original: Grid) -> None:
        steps = np.abs(np.linalg.inv(original.affine) @ grid.affine)[:-1, :-1]
        largest = steps.max(axis=0)
        if (np.sort(steps, axis=0)[:-1] > _TILT * largest).any():
            raise ModelError(
                f"{self.info.name}: the bundle's preprocessing turns the image (to "
                f"{grid.describe()}), and voxplain needs axes parallel to those of the image "
                f"({original.describe()}); give an image that is not oblique, resampled before"
            )


def _turned(image: Volume) -> Volume:
    """Picture with axes (column, row), both in its array and in its plane."""
    grid = image.grid.permute((1, 0))
    return replace(
        image, data=image.data.swapaxes(1, 2), grid=Grid(grid.shape, _SWAP @ grid.affine)
    )


def _weights(folder: Path) -> Path:
    models = folder / "models"
    for name in WEIGHTS:
        if (models / name).is_file():
            return models / name
    if (models / "model.ts").is_file():
        raise ModelError(
            f"{models}: only model.ts is there. TorchScript hides the network's layers and cannot "
            "be checked before it runs; put the state dict there as model.pt"
        )
    raise ModelError(f"{models}: no weights; expected {' or '.join(WEIGHTS)}")


def _kind(bundle: Bundle, window: WindowSettings | None) -> OutputKind:
    told = [
        bundle.metadata.get("task"),
        *(o.get("type") for o in bundle.formats("outputs").values()),
    ]
    is_classifier = window is None and "classification" in str(told).lower()
    return "classification" if is_classifier else "segmentation"


def _channels(bundle: Bundle) -> tuple[str, ...]:
    """Names of the image's channels; numbered where the metadata only count them."""
    inputs = bundle.formats("inputs")
    key = bundle.preprocessing.key
    key = key if key in inputs else next(iter(inputs), key)
    n_channels = inputs.get(key, {}).get("num_channels")
    if inputs.get(key, {}).get("channel_def") or not isinstance(n_channels, int):
        return _names(bundle, "inputs", key)
    return tuple(f"channel_{i}" for i in range(n_channels))


def _names(bundle: Bundle, side: str, key: str) -> tuple[str, ...]:
    """Channel names of an input or output, in order."""
    named = bundle.formats(side).get(key, {}).get("channel_def")
    known = {str(i): str(name) for i, name in named.items()} if isinstance(named, Mapping) else {}
    names = tuple(known.get(str(i), "") for i in range(len(known)))
    if not names or not all(names) or len(set(names)) < len(names):
        raise ModelError(
            f"configs/metadata.json: network_data_format.{side}.{key}.channel_def must name every "
            f"channel (0, 1, 2, …), each with a name of its own, got {named}"
        )
    return names


def _rank(network: nn.Module) -> int:
    convolutions = (m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d)))
    first = next(convolutions, None)
    if first is None:
        raise ModelError(
            "2D or 3D? The bundle has no sliding window and its network no convolution; describe "
            "it in a model card"
        )
    return len(first.kernel_size)


def _window(bundle: Bundle) -> WindowSettings | None:
    """Window settings of the inferer; None for the whole image at once."""
    settings = bundle.inferer
    if settings["class"] == "SimpleInferer":
        return None
    if settings["class"] not in ("SlidingWindowInferer", "SlidingWindowInfererAdapt"):
        raise ModelError(
            f"configs/{bundle.config}: the inferer {settings['class']} is not known; known are "
            "SlidingWindowInferer, SlidingWindowInfererAdapt and SimpleInferer. Describe the "
            "network in a model card"
        )
    size = settings.get("roi_size")
    faults = []
    if not isinstance(size, (list, tuple)) or not all(isinstance(n, int) and n > 0 for n in size):
        faults.append(f"roi_size must be whole numbers of at least 1 voxel an axis, got {size}")
        size = ()
    blend = str(_plain_value(settings.get("mode", "constant")))
    if blend not in get_args(Blend):
        faults.append(f"mode must be one of {', '.join(get_args(Blend))}, got {blend}")
    padding = _plain_value(settings.get("padding_mode", "constant"))
    if padding != "constant":
        faults.append(f"padding_mode must be constant, got {padding}")
    sigma = settings.get("sigma_scale", SIGMA_SCALE)
    if blend == "gaussian" and sigma != SIGMA_SCALE:
        faults.append(f"sigma_scale must be {SIGMA_SCALE}, got {sigma}")
    if settings.get("with_coord", False):
        faults.append("with_coord must be false: a network is given the window alone")
    overlap, pad_value = settings.get("overlap", 0.25), settings.get("cval", 0.0)
    for name, value in (("overlap", overlap), ("cval", pad_value)):
        if not isinstance(value, (int, float)):
            faults.append(f"{name} must be one number, got {value}")
    if faults:
        raise ModelError(
            f"configs/{bundle.config}: the inferer does what voxplain does not: {'; '.join(faults)}"
        )
    return WindowSettings(
        size=tuple(size), overlap=float(overlap), blend="gaussian" if blend == "gaussian" else
        "constant", pad_value=float(pad_value),
    )  # fmt: skip


def _plain_value(value: Any) -> Any:
    """Value of a member of an enumeration; others as they are."""
    return getattr(value, "value", value)


def _activation(bundle: Bundle) -> Activation:
    """Activation in the postprocessing, which is read and not built."""
    plain = bundle.plain
    has_any = "postprocessing" in plain.raw
    steps = transform_entries(plain, "postprocessing") if has_any else []
    found: list[Activation] = []
    for step, where in steps:
        name = transform_name(step)
        told = {key: _listed(plain.plain(value, where)) for key, value in step.items()
                if key in ("softmax", "sigmoid", "argmax", "threshold")}  # fmt: skip
        if name == "Activations":
            found += [kind for kind in _APPLIED if True in told.get(kind, ())]
        if name == "AsDiscrete":
            thresholds = [t for t in told.get("threshold", ()) if t is not None]
            if any(t != _THRESHOLD for t in thresholds):
                raise ModelError(
                    f"{plain.file}: {where} takes voxels above {thresholds}, and voxplain those "
                    f"above {_THRESHOLD} (logit 0); give activation=sigmoid to go on with that"
                )
            found += ["softmax"] if True in told.get("argmax", ()) else []
            found += ["sigmoid"] if thresholds else []
    if found:
        return found[0]
    raise ModelError(
        f"{plain.file}: the postprocessing does not tell what turns logits into probabilities; "
        "give activation=softmax, sigmoid or none"
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
