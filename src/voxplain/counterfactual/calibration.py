"""How far the classifier's probabilities are what happens, and the temperature that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit
from torch import nn

from voxplain.errors import ModelError, TrainingError

Array = NDArray[np.floating[Any]]

HIGHEST = 20.0
"""Largest temperature."""

RELIABILITY_COLUMNS = ("low", "high", "n", "mean_probability", "share_abnormal")
"""Of the reliability table: the bin, its slices, what was said and what was so."""

_N_BINS = 10


@dataclass(frozen=True)
class Calibration:
    """What a temperature does on the slices it was fitted on.

    Parameters
    ----------
    temperature
        T.
    n
        Slices.
    nll, nll_raw
        Mean negative log-likelihood with T and with T = 1.
    ece, ece_raw
        Expected calibration error.
    brier, brier_raw
        Brier score.
    """

    temperature: float
    n: int
    nll: float
    nll_raw: float
    ece: float
    ece_raw: float
    brier: float
    brier_raw: float


def calibration(logits: Array, labels: NDArray[Any], temperature: float) -> Calibration:
    """Measure calibration with and without a temperature.

    Parameters
    ----------
    logits
        (n,) of abnormal, as the network gives them.
    labels
        (n,) 0 or 1.
    temperature
        T; probabilities are sigmoid(logit / T).
    """
    scaled, raw = expit(logits / temperature), expit(logits)
    return Calibration(
        temperature, len(logits),
        negative_log_likelihood(logits, labels, temperature),
        negative_log_likelihood(logits, labels),
        calibration_error(reliability(scaled, labels)),
        calibration_error(reliability(raw, labels)),
        brier_score(scaled, labels), brier_score(raw, labels),
    )  # fmt: skip


def fit_temperature(logits: Array, labels: NDArray[Any]) -> float:
    """Find the temperature T in [1, 20] of the least negative log-likelihood.

    NLL(T) = mean log(1 + exp(−s·z/T)) with s = 1 for abnormal and −1 for normal slices; it has
    one minimum along log T.

    Parameters
    ----------
    logits
        (n,) of abnormal.
    labels
        (n,) 0 or 1.

    Raises
    ------
    TrainingError
        If there are no slices, or a logit is not a number.

    Notes
    -----
    Differs from Guo et al. in T ≥ 1: a smaller one would sharpen, and where the slices are
    separated without a fault, as easy ones often are, the likelihood grows for ever as T falls
    to 0. T = 20 means that the logits say next to nothing.

    References
    ----------
    Guo et al., On calibration of modern neural networks, arXiv 1706.04599, section 4.2.
    """
    if not len(logits) or not np.isfinite(logits).all():
        raise TrainingError(
            f"a temperature needs logits that are numbers; got {len(logits)} of which "
            f"{int(np.isfinite(logits).sum())} are"
        )
    ends = (0.0, float(np.log(HIGHEST)))

    def cost(log_temperature: float) -> float:
        return negative_log_likelihood(logits, labels, float(np.exp(log_temperature)))

    found = minimize_scalar(cost, bounds=ends, method="bounded", options={"xatol": 1e-8})
    # the search never tries the ends themselves; the first of equals wins, so 1 does
    best = min((ends[0], float(found.x), ends[1]), key=cost)
    return float(np.exp(best))


def negative_log_likelihood(logits: Array, labels: NDArray[Any], temperature: float = 1.0) -> float:
    """Return the mean of log(1 + exp(−s·z/T)), s = ±1, in nats."""
    signed = np.where(np.asarray(labels) > 0, 1.0, -1.0) * np.asarray(logits, np.float64)
    return float(np.logaddexp(0.0, -signed / temperature).mean())


def brier_score(probabilities: Array, labels: NDArray[Any]) -> float:
    """Return the mean of (p − y)², 0 at best; equal to sklearn.metrics.brier_score_loss."""
    return float(np.mean((np.asarray(probabilities, np.float64) - labels) ** 2))


def reliability(probabilities: Array, labels: NDArray[Any], n_bins: int = _N_BINS) -> pd.DataFrame:
    """Tabulate what was said against what was so, in bins of equal width.

    Parameters
    ----------
    probabilities
        (n,) of abnormal, 0 to 1.
    labels
        (n,) 0 or 1.
    n_bins
        Bins of [0, 1]; the upper edge belongs to a bin, in the first also the lower.

    Returns
    -------
    pandas.DataFrame
        One row a bin, columns `RELIABILITY_COLUMNS`; NaN where a bin is empty.
    """
    given, truth = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    which = np.searchsorted(edges[1:-1], given)
    n = np.bincount(which, minlength=n_bins)
    share = np.where(n > 0, n, np.nan)
    columns = (
        edges[:-1], edges[1:], n,
        np.bincount(which, given, n_bins) / share,
        np.bincount(which, truth, n_bins) / share,
    )  # fmt: skip
    return pd.DataFrame(dict(zip(RELIABILITY_COLUMNS, columns, strict=True)))


def calibration_error(table: pd.DataFrame) -> float:
    """Return the expected calibration error Σ_b n_b/n·|mean p − share abnormal| of a table."""
    gap = (table["mean_probability"] - table["share_abnormal"]).abs()
    return float((gap * table["n"]).sum() / table["n"].sum())


def fold_temperature(module: nn.Module, temperature: float, size: tuple[int, int]) -> str:
    """Divide a network's logits by T: weights and bias of its last linear layer, in place.

    Parameters
    ----------
    module
        Takes (batch, 1, rows, columns); its output is that of a linear layer.
    temperature
        T.
    size
        Rows and columns of its pictures.

    Returns
    -------
    str
        Name of the layer.

    Raises
    ------
    ModelError
        If the output comes from no linear layer.
    """
    name = output_layer(module, size)
    layer = module.get_submodule(name)
    with torch.no_grad():
        for parameter in layer.parameters(recurse=False):
            parameter.div_(temperature)
    return name


def output_layer(module: nn.Module, size: tuple[int, int]) -> str:
    """Return the name of the linear layer whose output is the network's, found by one pass.

    Raises
    ------
    ModelError
        If there is none.
    """
    given: dict[str, Any] = {}

    def keep(name: str) -> Any:
        return lambda _layer, _given, out: given.__setitem__(name, out)

    handles = [
        layer.register_forward_hook(keep(name))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    was_training = module.training
    weight = next(module.parameters())
    try:
        with torch.no_grad():
            out = module.eval()(torch.zeros(1, 1, *size, device=weight.device, dtype=weight.dtype))
    finally:
        module.train(was_training)
        for handle in handles:
            handle.remove()
    for name, value in given.items():
        if value is out:
            return name
    raise ModelError(
        f"{type(module).__name__}: its output is not that of a linear layer, so a temperature "
        "cannot be put into the weights; set classifier.calibrate=false"
    )
