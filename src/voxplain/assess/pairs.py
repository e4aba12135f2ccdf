"""Maps of one case by several models, and of different cases by one model, compared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from voxplain.models.model import Model
from voxplain.records.assessment import REPEAT, REPRODUCE
from voxplain.records.metric import Measured
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.resample import resample, resample_labels
from voxplain.space.volume import Volume

Scores = NDArray[np.floating[Any]]
Similarity = Mapping[str, Callable[[Scores, Scores], Measured]]
"""Functions of two maps (*shape), at least 0, by the name of the metric."""


@dataclass(frozen=True, eq=False)
class KeptMaps:
    """Maps of one case and model, kept for comparisons.

    Parameters
    ----------
    scores
        Of each method: magnitudes (n_targets, *grid.shape).
    grid
        The model's, of this case.
    """

    scores: Mapping[str, Scores]
    grid: Grid

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays to be saved."""
        return {
            **{f"map:{method}": values for method, values in self.scores.items()},
            "affine": self.grid.affine,
            "shape": np.array(self.grid.shape),
        }

    def moved(self, values: NDArray[Any], grid: Grid) -> NDArray[Any]:
        """Return (*shape) values on another grid: interpolated; of a mask the nearest."""
        if self.grid.matches(grid):
            return values
        if values.dtype.kind in "ui":
            labels = LabelMap(values[None], self.grid, {0: "outside", 1: "inside"})
            return np.asarray(resample_labels(labels, grid).layers[0])
        volume = Volume(values[None], self.grid)
        return np.asarray(resample(volume, like=grid, fill=0.0).data[0])

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> KeptMaps:
        """Inverse of `to_arrays`; other arrays are left."""
        maps = {
            name.removeprefix("map:"): values
            for name, values in arrays.items()
            if name.startswith("map:")
        }
        shape = tuple(int(n) for n in arrays["shape"])
        return cls(maps, Grid(shape, arrays["affine"]))


def architecture(model: Model) -> str:
    """Return a hash of the network's structure: equal for two trainings of one network.

    Types and settings of the modules and shapes of the parameters, without their values.
    """
    digest = hashlib.sha256()
    for name, module in model.module.named_modules():
        digest.update(f"{name} {type(module).__name__} {module.extra_repr()}\n".encode())
    for name, parameter in model.module.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)}\n".encode())
    return digest.hexdigest()


def model_pairs(
    kept: Mapping[str, KeptMaps], architectures: Mapping[str, str], similarity: Similarity
) -> Iterator[tuple[str, str, str, str, int, str, Measured]]:
    """Compare the maps of every two models of one case.

    Parameters
    ----------
    kept
        By model. Of two grids the second model's maps are resampled to the first one's.
    architectures
        By model; equal ones are repeats, others are reproductions.
    similarity
        Functions of two maps.

    Yields
    ------
    tuple
        Stage, model, other model, method, index of the target, metric, value.
    """
    for first, second in combinations(kept, 2):
        a, b = kept[first], kept[second]
        stage = REPEAT if architectures[first] == architectures[second] else REPRODUCE
        for method in a.scores:
            if method not in b.scores:
                continue
            for t, (one, other) in enumerate(zip(a.scores[method], b.scores[method], strict=True)):
                moved = b.moved(other, a.grid)
                for name, function in similarity.items():
                    yield stage, first, second, method, t, name, function(one, moved)


def random_pairs(
    cases: Sequence[str], patients: Sequence[str], n_pairs: int, rng: np.random.Generator
) -> list[tuple[str, str]]:
    """Draw pairs of cases of different patients, without repeats.

    Parameters
    ----------
    cases, patients
        One a case.
    n_pairs
        At most so many.
    rng
        Of the draw.

    Returns
    -------
    list of tuple
        All pairs, if there are no more; empty with a single patient.
    """
    pairs = [
        (cases[i], cases[j])
        for i, j in combinations(range(len(cases)), 2)
        if patients[i] != patients[j]
    ]
    if len(pairs) <= n_pairs:
        return pairs
    chosen = rng.choice(len(pairs), n_pairs, replace=False)
    return [pairs[i] for i in sorted(chosen)]


def on_shape(scores: Scores, shape: Sequence[int]) -> Scores:
    """Return a map stretched to another shape, so that maps of two patients can be compared.

    Parameters
    ----------
    scores
        (*shape).
    shape
        Wanted; edges go to edges, between voxels it is linear. An equal one changes nothing.

    Notes
    -----
    No place in one patient is that of another: this only says how alike two maps are that have
    nothing in common but model and method.
    """
    if scores.shape == tuple(shape):
        return scores
    factors = [b / a for a, b in zip(scores.shape, shape, strict=True)]
    return np.asarray(zoom(scores, factors, order=1, mode="nearest", grid_mode=True))
