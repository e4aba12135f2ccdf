"""What it costs to make a method's maps."""

from __future__ import annotations

import math

import torch

from voxplain.attribution.maps import Maps, compute_maps
from voxplain.attribution.method import Method
from voxplain.attribution.question import Question
from voxplain.inference.compute import peak_memory_bytes
from voxplain.records.metric import Measured, Metric

_POLICY = "always defined, also where the map is empty"
_OURS = "voxplain; time a class and volume: Chrabąszcz et al. 2025, arXiv 2407.16653"

N_FORWARD = Metric(
    "n_forward", "efficiency", "lower", "windows", 0.0, math.inf,
    "Forward passes of a window for the maps of all targets, without the clean prediction.",
    _POLICY, _OURS,
)  # fmt: skip
N_BACKWARD = Metric(
    "n_backward", "efficiency", "lower", "windows", 0.0, math.inf,
    "Backward passes of a window for the maps of all targets.",
    _POLICY, _OURS,
)  # fmt: skip
SECONDS = Metric(
    "seconds", "efficiency", "lower", "s", 0.0, math.inf,
    "Time of the maps of all targets over the number of targets, without the clean prediction.",
    _POLICY, _OURS,
)  # fmt: skip
PEAK_MEMORY = Metric(
    "peak_memory_mb", "efficiency", "lower", "MB", 0.0, math.inf,
    "Most memory held while the maps were made, in 10⁶ bytes: on CUDA by torch; elsewhere by the "
    "process since it began, which is an upper bound.",
    _POLICY, _OURS,
)  # fmt: skip
METRICS = (N_FORWARD, N_BACKWARD, SECONDS, PEAK_MEMORY)


def measured_maps(question: Question, method: Method) -> tuple[Maps, int]:
    """Make the maps of all targets, and tell the most memory that was held.

    Parameters
    ----------
    question
        Its clean prediction is made before memory is measured.
    method
        Any method.

    Returns
    -------
    tuple
        The maps, and bytes. On CUDA torch's counter is set back first (a user's own reading of
        it is lost). On the CPU no such counter can be set back: the number is the highest
        resident memory of the process so far, so a method that follows a hungrier one gets that
        one's; compare methods in a process each.
    """
    _ = question.regions, question.linear
    device = question.pipeline.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    maps = compute_maps(question, method)
    return maps, peak_memory_bytes(device)


def efficiency(maps: Maps, peak_bytes: int) -> dict[str, Measured]:
    """Return the costs of a method's maps, by the names of `METRICS`.

    Parameters
    ----------
    maps
        Of all targets.
    peak_bytes
        See `measured_maps`.

    Returns
    -------
    dict of str to Measured
        One set for all targets: passes and memory are shared between them, seconds are divided
        by their number.
    """
    values = (
        maps.passes.n_forward,
        maps.passes.n_backward,
        maps.seconds / len(maps.values),
        peak_bytes / 1e6,
    )
    return {
        metric.name: Measured(float(value)) for metric, value in zip(METRICS, values, strict=True)
    }
