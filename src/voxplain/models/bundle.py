"""MONAI bundles: their network, preprocessing and inferer, behind the one interface."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
from torch import nn

from voxplain.errors import ModelError
from voxplain.models.bundle_build import Bundle, read_bundle
from voxplain.models.metatensor import to_metatensor
from voxplain.models.model import Activation, Model, ModelInfo, OutputKind
from voxplain.models.probe import probe
from voxplain.models.weights import fit_weights, read_weights, weights_sha256
from voxplain.space.grid import Grid
from voxplain.space.volume import Volume
from voxplain.space.windows import SIGMA_SCALE, Blend, WindowSettings

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
    its type are left out); the affine that MONAI keeps tells the grid.
    """

    def __init__(self, bundle: Bundle, name: str, activation: Activation | None) -> None:
        self._bundle = bundle
        self.module: nn.Module = bundle.network
        window = _window(bundle)
        channels = _names(bundle.metadata, "inputs", bundle.image_key)
        outputs = bundle.metadata.get("network_data_format", {}).get("outputs", {})
        kind: OutputKind = "segmentation"
        if window is None and "classification" in str(
            [bundle.metadata.get("task"), *(o.get("type") for o in outputs.values())]
        ):
            kind = "classification"
        self.info = ModelInfo(
            name=str(bundle.metadata.get("name") or name),
            kind=kind,
            rank=_rank(bundle.network) if window is None else len(window.size),
            channel_names=channels,
            class_names=_names(bundle.metadata, "outputs", next(iter(outputs), "pred")),
            activation=activation or _activation(bundle),
            window=window,
            sha256=weights_sha256(bundle.network),
        )

    def prepare(self, image: Volume) -> Volume:
        """Image after the bundle's preprocessing, on the grid that it gives.

        Raises
        ------
        ModelError
            If channels or rank do not fit, or a transform fails.
        """
        self.check_image(image)
        key, tensor = self._bundle.image_key, to_metatensor(image)
        try:
            for transform in self._bundle.transforms:
                if hasattr(transform, "keys"):
                    tensor = transform({key: tensor})[key]
                else:
                    tensor = transform(tensor)
        except Exception as error:  # transforms raise whatever they like
            raise ModelError(
                f"{self.info.name}: the bundle's {type(transform).__name__} fails on an image of "
                f"{image.grid.describe()}: {error}"
            ) from error
        rank = self.info.rank
        found = np.asarray(tensor.affine, np.float64)
        affine = np.eye(rank + 1)
        affine[:rank, :rank], affine[:rank, rank] = found[:rank, :rank], found[:rank, 3]
        data = np.asarray(tensor.numpy(), image.data.dtype)
        return Volume(data, Grid(data.shape[1:], affine), self.info.channel_names, image.name)

    def describe_preparation(self) -> Mapping[str, Any]:
        """Return the config and the names of the transforms as plain values."""
        return {
            "framework": "MONAI bundle",
            "version": str(self._bundle.metadata.get("version", "")),
            "config": self._bundle.config,
            "transforms": [type(transform).__name__ for transform in self._bundle.transforms],
        }


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


def _names(metadata: Mapping[str, Any], side: str, key: str) -> tuple[str, ...]:
    """Channel names of an input or output, in order."""
    known = metadata.get("network_data_format", {}).get(side, {}).get(key, {})
    named = known.get("channel_def") or {}
    n = int(known.get("num_channels") or len(named))
    if side == "inputs" and n:
        return tuple(str(named.get(str(i), f"channel_{i}")) for i in range(n))
    if not named or sorted(map(int, named)) != list(range(len(named))):
        raise ModelError(
            f"configs/metadata.json: network_data_format.{side}.{key}.channel_def must name every "
            f"channel (0, 1, 2, …), got {named}"
        )
    return tuple(str(named[str(i)]) for i in range(len(named)))


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
    blend = str(getattr(settings.get("mode"), "value", settings.get("mode", "constant")))
    if blend not in get_args(Blend):
        faults.append(f"mode must be one of {', '.join(get_args(Blend))}, got {blend}")
    padding = settings.get("padding_mode", "constant")
    padding = getattr(padding, "value", padding)
    if padding != "constant":
        faults.append(f"padding_mode must be constant, got {padding}")
    sigma = settings.get("sigma_scale", SIGMA_SCALE)
    if blend == "gaussian" and sigma != SIGMA_SCALE:
        faults.append(f"sigma_scale must be {SIGMA_SCALE}, got {sigma}")
    overlap = settings.get("overlap", 0.25)
    if not isinstance(overlap, (int, float)):
        faults.append(f"overlap must be one number, got {overlap}")
    if faults:
        raise ModelError(
            f"configs/{bundle.config}: the inferer does what voxplain does not: {'; '.join(faults)}"
        )
    assert isinstance(size, (list, tuple))
    return WindowSettings(
        size=tuple(size), overlap=float(overlap), blend="gaussian" if blend == "gaussian" else
        "constant", pad_value=float(settings.get("cval", 0.0)),
    )  # fmt: skip


def _activation(bundle: Bundle) -> Activation:
    """Activation in the postprocessing, read and not built."""
    for step in _mappings(bundle.postprocessing):
        name = str(step.get("_target_", "")).rpartition(".")[2].lower()
        if name.startswith("activations"):
            if _is_on(step.get("softmax")):
                return "softmax"
            if _is_on(step.get("sigmoid")):
                return "sigmoid"
        if name.startswith("asdiscrete"):
            if _is_on(step.get("argmax")):
                return "softmax"
            if step.get("threshold") is not None:
                return "sigmoid"
    raise ModelError(
        f"configs/{bundle.config}: the postprocessing does not tell what turns logits into "
        "probabilities; give activation=softmax, sigmoid or none"
    )


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
        for item in value.values():
            yield from _mappings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _mappings(item)


def _is_on(value: Any) -> bool:
    return any(item is True for item in (value if isinstance(value, list) else [value]))
