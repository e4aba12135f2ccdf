"""How alike two maps are: every measure of it that a table holds."""

from __future__ import annotations

from collections.abc import Callable

from voxplain.assess import correlation, legacy_map, random_entropy, ssim, top_overlap
from voxplain.assess.pairs import Scores, Similarity
from voxplain.assess.settings import Preset
from voxplain.records.metric import Measured

METRICS = (
    ssim.METRIC, correlation.SPEARMAN, correlation.PEARSON, top_overlap.METRIC,
    random_entropy.ENTROPY_RISE,
)  # fmt: skip


def similarities(preset: Preset) -> Similarity:
    """Return functions of two maps' magnitudes by the name of the metric.

    Parameters
    ----------
    preset
        ``arun2021`` adds SSIM as published: maps clipped at the 99th percentile, data range 2.

    Returns
    -------
    dict
        The first map is the trained network's, or the first one's.
    """
    found: dict[str, Callable[[Scores, Scores], Measured]] = {
        ssim.METRIC.name: ssim.map_ssim,
        correlation.SPEARMAN.name: correlation.spearman,
        correlation.PEARSON.name: correlation.pearson,
        top_overlap.METRIC.name: top_overlap.top_overlap,
        random_entropy.ENTROPY_RISE.name: random_entropy.entropy_rise,
    }
    if preset == "arun2021":
        found[legacy_map.METRIC.name] = legacy_map.legacy_ssim
    return found
