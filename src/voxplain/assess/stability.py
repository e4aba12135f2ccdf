"""Whether a map keeps its order of voxels under changes that mean nothing."""

from __future__ import annotations

from collections.abc import Sequence

from voxplain.assess.changed_images import Change, Flip, Noise, Shift, reexplained
from voxplain.assess.correlation import spearman
from voxplain.assess.sensitivity import (
    AVERAGE_SENSITIVITY,
    AVERAGE_SENSITIVITY_AGG2EXP,
    MAX_SENSITIVITY,
    max_of,
    mean_of,
    relative_change,
    relative_change_agg2exp,
)
from voxplain.attribution.maps import Maps
from voxplain.attribution.method import Method
from voxplain.attribution.question import Question
from voxplain.records.metric import Measured, Metric

_POLICY = "Empty or constant map of the clean or of a changed image: not defined (NaN and a flag)."


def _metric(change: str, words: str) -> Metric:
    return Metric(
        f"stability_{change}", "stability", "higher", "1", -1.0, 1.0,
        f"Spearman correlation of magnitudes with the map of the image {words}, mean over copies.",
        _POLICY, "voxplain; after Yeh et al. 2019, arXiv 1901.09392",
    )  # fmt: skip


STABILITY_NOISE = _metric(Noise.name, "with noise added")
STABILITY_SHIFT = _metric(Shift.name, "with one number added")
STABILITY_FLIP = _metric(Flip.name, "whose windows are shown mirrored")
METRICS = (STABILITY_NOISE, STABILITY_SHIFT, STABILITY_FLIP)


def stability(
    question: Question,
    method: Method,
    clean: Maps,
    changes: Sequence[Change],
    *,
    fresh_draws: bool = False,
) -> list[dict[str, Measured]]:
    """Explain changed images again and compare.

    Parameters
    ----------
    question
        Of the clean image.
    method
        That made `clean`.
    clean
        Maps of the clean image.
    changes
        Copies of changes of one name (flips along several axes) are pooled.
    fresh_draws
        See `reexplained`.

    Returns
    -------
    list of dict
        For each target the values by metric: ``stability_NAME`` for every name among the
        changes, and with noise also those of `voxplain.assess.sensitivity`. Of equal maps the
        correlation is exactly 1.

    Notes
    -----
    One set of maps serves every metric and target. Passes: `stability_passes`. Memory: the maps
    of one changed image beside the clean ones, and a few times a map of one target in float64.
    """
    n_targets = len(question.targets)
    ranks = clean.magnitude()
    agreement: dict[str, list[list[Measured]]] = {}
    moved: list[list[Measured]] = [[] for _ in range(n_targets)]
    moved_agg2exp: list[list[Measured]] = [[] for _ in range(n_targets)]
    for change in changes:
        of_targets = agreement.setdefault(change.name, [[] for _ in range(n_targets)])
        for k in range(change.n_copies):
            maps = reexplained(question, method, change, k, fresh_draws=fresh_draws)
            for t, magnitude in enumerate(maps.magnitude()):
                of_targets[t].append(spearman(ranks[t], magnitude))
                if change.name == Noise.name:
                    pair = (clean.values[t], maps.values[t])
                    moved[t].append(relative_change(*pair))
                    moved_agg2exp[t].append(relative_change_agg2exp(*pair))
    found: list[dict[str, Measured]] = []
    for t in range(n_targets):
        row = {f"stability_{name}": mean_of(parts[t]) for name, parts in agreement.items()}
        if moved[t]:
            row[AVERAGE_SENSITIVITY.name] = mean_of(moved[t])
            row[MAX_SENSITIVITY.name] = max_of(moved[t])
            row[AVERAGE_SENSITIVITY_AGG2EXP.name] = mean_of(moved_agg2exp[t])
        found.append(row)
    return found
