"""What generators do beside the overlap: answers turned, change where none should be, realism."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.counterfactual.classifier import Classifier
from voxplain.counterfactual.comparison import Comparison, Scored, first_finite
from voxplain.counterfactual.feature_distance import features_of, frechet_distance
from voxplain.counterfactual.generator import Generator
from voxplain.counterfactual.mask import mask_of
from voxplain.counterfactual.score_maps import Progress
from voxplain.counterfactual.validity import (
    Repaired,
    probabilities,
    repair_row,
    repaired,
    validity,
)
from voxplain.errors import ModelError
from voxplain.records.counterfactual_evaluation import CLASSIFIER, JUDGE


class RepairScores:
    """Measures generator after generator; their rows go to a comparison.

    Parameters
    ----------
    comparison
        Its slices.
    judges
        The classifier, and the judge where there is one, by `CLASSIFIER` and `JUDGE`; on
        `device`, as the generators are.
    device, batch
        Where the networks are, and slices in a pass.
    """

    def __init__(
        self,
        comparison: Comparison,
        judges: Mapping[str, Classifier],
        device: torch.device | str,
        batch: int,
    ) -> None:
        self._to, self._judges = comparison, judges
        self._how: dict[str, Any] = {"device": device, "batch": batch}
        for by, judge in judges.items():
            comparison.before[by] = probabilities(judge, comparison.images, **self._how)

    def add(self, name: str, generator: Generator, progress: Progress | None) -> None:
        """Repair every slice and measure what came of it."""
        start, to = time.perf_counter(), self._to
        images = to.known_validation.images
        after = repaired(generator, to.images, **self._how)
        tuning = Repaired(images[:, 0], repaired(generator, images, **self._how)[:, 0])
        n = len(to.abnormal)
        abnormal = Repaired(to.images[:n, 0], after[:n, 0])
        normal = Repaired(to.images[n:, 0], after[n:, 0])
        seconds = time.perf_counter() - start
        if progress is not None:
            progress(name, len(after) + len(images), len(after) + len(images))
        answers = {by: probabilities(one, after, **self._how) for by, one in self._judges.items()}
        row = to.add(
            Scored(
                name, "counterfactual", abnormal.change, tuning.change,
                to.config.fixed_counterfactual, seconds, 1,
            ),
            answers,
            np.abs(to.images - after).mean((1, 2, 3), dtype=np.float64) / 2,
        )  # fmt: skip
        to.pictures[f"repair/{name}"] = abnormal.after[to.shown]
        for by, found in answers.items():
            for tau in to.config.tau:
                told = validity(to.before[by], found, tau, to.all_draws)
                to.rows["validity"].append({"method": name, "by": by, **told})
        level = first_finite(row["threshold_tuned"], row["threshold_fixed"])
        clean = to.abnormal.clean
        measured = repair_row(
            abnormal,
            normal,
            truth=to.abnormal.truth,
            clean=None if clean is None else clean[:, 0],
            called=(to.before[CLASSIFIER][n:], answers[CLASSIFIER][n:]),
            marked=mask_of(normal.change, level, to.config.post_filter),
        )
        to.rows["repairs"].append({"method": name, **measured, **self._distances(after)})

    def _distances(self, after: NDArray[np.float32]) -> dict[str, Any]:
        """Return Fréchet distances in the features of the judge, else of the classifier."""
        judge = self._judges[JUDGE if JUDGE in self._judges else CLASSIFIER]
        row = {"fid_normal": np.nan, "fid_pairs": np.nan, "features": "", "note": ""}
        try:
            real = features_of(judge, self._to.images, **self._how)
            fake = features_of(judge, after, **self._how)
        except ModelError as error:
            return row | {"note": str(error)}
        is_normal, notes = self._to.labels == 0, []
        pairs = {
            "fid_normal": (real.values[is_normal], fake.values[~is_normal]),
            "fid_pairs": (real.values, fake.values),
        }
        for column, (a, b) in pairs.items():
            least, n_features = min(len(a), len(b)), a.shape[1]
            if least < 2:
                notes.append(f"{column} needs 2 slices a side, got {len(a)} and {len(b)}")
                continue
            row[column] = frechet_distance(a, b)
            if least <= n_features:
                notes.append(f"{column} is biased: {least} slices for {n_features} features")
        return row | {"features": real.name, "note": "; ".join(notes)}
