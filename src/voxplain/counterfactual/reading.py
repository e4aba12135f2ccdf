"""One case: its slices, and the intensities of its foreground."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.counterfactual.config import DataConfig
from voxplain.counterfactual.cut import Fit
from voxplain.counterfactual.division import Division
from voxplain.counterfactual.labelling import Labelling, Mask, finding
from voxplain.counterfactual.preparation import Preparation
from voxplain.data import Case
from voxplain.errors import DataError
from voxplain.space.plane import Plane


@dataclass(frozen=True, eq=False)
class Row:
    """One slice of a part: as in `Slices`, with its case, plane and number."""

    part: str
    case: Case
    plane: str
    index: int
    image: NDArray[np.float32]
    label: int
    truth: Mask
    organ: Mask
    inside: Mask


@dataclass(frozen=True, eq=False)
class CaseReader:
    """Reads what a configuration asks for of one case after the other.

    Parameters
    ----------
    config, labelling, division
        Which slices, labels and parts.
    seed
        Of the voxels that are drawn.
    """

    config: DataConfig
    labelling: Labelling
    division: Division
    seed: int

    def foreground(self, case: Case, preparation: Preparation, most: int) -> NDArray[Any]:
        """Draw up to `most` intensities of a training case's foreground.

        Of the whole image; only of its training slices where other slices are of another part,
        or a 2D model prepares each.
        """
        image = case.read_image()
        prepared = preparation.prepared(image)
        mask = self.labelling.read_foreground(case, image.grid, prepared.grid)
        if self.division.blocks or preparation.is_flat:
            organ = self.labelling.read_organ(case, image.grid, prepared.grid)
            lesion = self.labelling.read_lesion(case, image.grid, prepared.grid)
            kept, _ = self._kept(preparation.planes(prepared.grid), organ, lesion)
            chosen = self.division.parts(case, kept)["train"]
            found = [
                values[_shown(mask, plane, fit, values.shape)].ravel()
                for _, plane, fit, values in preparation.raw(prepared, chosen)
            ]
            values = np.concatenate([np.zeros(0, np.float32), *found])
        else:
            values = prepared.data[0].ravel() if mask is None else prepared.data[0][mask]
        if len(values) <= most:
            return values
        key = [self.seed, zlib.crc32(b"window"), zlib.crc32(case.name.encode())]
        drawn = np.random.default_rng(key).choice(len(values), most, replace=False, shuffle=False)
        return np.asarray(values[drawn])

    def rows(self, case: Case, preparation: Preparation) -> tuple[list[Row], int]:
        """Cut the slices of a case; also count those with too little of a lesion to say."""
        image = case.read_image()
        prepared = preparation.prepared(image)
        organ = self.labelling.read_organ(case, image.grid, prepared.grid)
        lesion = self.labelling.read_lesion(case, image.grid, prepared.grid)
        kept, n_between = self._kept(preparation.planes(prepared.grid), organ, lesion)
        abnormal = self.config.abnormal
        whole = int(abnormal.column is not None and bool(finding(case, abnormal)))
        rows = []
        for part, chosen in self.division.parts(case, kept).items():
            for cut in preparation.cuts(prepared, chosen):
                label, truth = whole, np.zeros(self.config.size, np.bool_)
                shown = np.ones(self.config.size, np.bool_)
                if organ is not None:
                    shown = cut.fit.put_mask(cut.plane.take(organ))
                if lesion is not None:
                    native = cut.plane.take(lesion)
                    truth = cut.fit.put_mask(native)
                    label = int(np.count_nonzero(native) > abnormal.min_pixels)
                rows.append(Row(
                    part, case, cut.plane.name, cut.index, cut.picture, label, truth, shown,
                    cut.inside,
                ))  # fmt: skip
        return rows, n_between

    def _kept(
        self, planes: Sequence[Plane], organ: Mask | None, lesion: Mask | None
    ) -> tuple[list[int], int]:
        """Return the numbers of the slices that are asked for, and how many are in between."""
        wanted = self.config.slices
        kept = list(range(len(planes))) if wanted is None else sorted(set(wanted))
        if kept and kept[-1] >= len(planes):
            raise DataError(
                f"data.slices: no slice {kept[-1]}; slices are numbered 0 to {len(planes) - 1}"
            )
        if organ is not None:
            least = self.config.min_organ_pixels
            kept = [i for i in kept if np.count_nonzero(planes[i].take(organ)) > least]
        n = len(kept)
        abnormal = self.config.abnormal
        if lesion is not None and abnormal.between == "leave_out":
            some = range(1, abnormal.min_pixels + 1)
            kept = [i for i in kept if np.count_nonzero(planes[i].take(lesion)) not in some]
        n_between = n - len(kept)
        most = self.config.max_slices
        if most is not None and len(kept) > most:
            kept = [kept[i] for i in np.linspace(0, len(kept) - 1, most).round().astype(int)]
        return kept, n_between


def _shown(mask: Mask | None, plane: Plane, fit: Fit, shape: tuple[int, ...]) -> Mask:
    if mask is None:
        return np.ones(shape, np.bool_)
    own = plane.take(mask)
    return own if own.shape == shape else fit.put_mask(own)
