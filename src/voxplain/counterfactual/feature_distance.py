"""How far repaired slices are from normal ones, in the features of a network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from voxplain.counterfactual.classifier import Classifier
from voxplain.errors import DataError, ModelError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Features:
    """Pooled features of slices: what the last linear layer of a classifier is given.

    Parameters
    ----------
    name
        Layer and classifier, for tables: distances of different features do not compare.
    values
        (n, features).
    """

    name: str
    values: Floats


def features_of(
    classifier: Classifier,
    images: NDArray[np.float32],
    *,
    device: torch.device | str = "cpu",
    batch: int = 32,
) -> Features:
    """Take the input of the classifier's last linear layer.

    Parameters
    ----------
    classifier
        Already on `device`; the hook is taken off again, also after an error.
    images
        (n, 1, rows, columns) in [−1, 1].
    device
        Where the classifier is.
    batch
        Slices in a pass; no result depends on it.

    Raises
    ------
    ModelError
        If there is no linear layer, it does not run, or it is given anything but one vector a
        slice.
    """
    linear = [(n, m) for n, m in classifier.network.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ModelError(f"{classifier.name}: no linear layer, so it has no pooled features")
    name, layer = linear[-1]
    kept: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        kept.append(inputs[0].detach().cpu().double())

    handle = layer.register_forward_pre_hook(keep)
    try:
        with torch.no_grad():
            for start in range(0, len(images), batch):
                part = torch.from_numpy(np.array(images[start : start + batch])).to(device)
                classifier.logit(part)
    finally:
        handle.remove()
    n_given = sum(len(values) for values in kept)
    if any(values.ndim != 2 for values in kept) or n_given != len(images):
        shapes = sorted({tuple(values.shape) for values in kept})
        raise ModelError(
            f"{classifier.name}: the last linear layer, {name}, is expected to be given one vector "
            f"for each of {len(images)} slices, got shapes {shapes}"
        )
    values = torch.cat(kept).numpy() if kept else np.zeros((0, layer.in_features))
    return Features(f"input of {name} of {classifier.name}", values)


def frechet_distance(a: Floats, b: Floats) -> float:
    """Squared Fréchet distance of the normal distributions fitted to two sets of features.

    ‖μ_a − μ_b‖² + tr(S_a + S_b − 2 (S_a S_b)^½), S the covariances with n − 1.

    Parameters
    ----------
    a, b
        (n_a, features), (n_b, features), at least 2 rows each.

    Raises
    ------
    DataError
        If there are fewer rows, or the features differ.

    Notes
    -----
    With X_a = (a − μ_a)/√(n_a − 1) the last trace is the sum of singular values of X_a X_bᵀ, so
    that no square root of a matrix is taken and a singular covariance does no harm. With fewer
    rows than features + 1 the fit is singular and the distance is biased upwards.

    References
    ----------
    Heusel et al. 2017, arXiv 1706.08500, eq. 6; the Inception features of the literature are not
    used.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise DataError(f"features (slices, features) of one network, got {a.shape}, {b.shape}")
    if min(len(a), len(b)) < 2:
        raise DataError(f"a Fréchet distance needs 2 slices a side, got {len(a)} and {len(b)}")
    one, other = _root(a), _root(b)
    shift = a.mean(0) - b.mean(0)
    mixed = np.linalg.svd(one @ other.T, compute_uv=False).sum()
    return float(shift @ shift + (one**2).sum() + (other**2).sum() - 2 * mixed)


def _root(values: Floats) -> Floats:
    """R with RᵀR = the covariance; at most as many rows as features."""
    centred = (values - values.mean(0)) / np.sqrt(len(values) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r"), np.float64)
