"""Training slices, drawn: the same ones for the same step, whatever ran before."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.counterfactual.blobs import has_room, insert, no_room
from voxplain.counterfactual.config import BlobConfig
from voxplain.counterfactual.generator import Batch
from voxplain.counterfactual.slices import Slices
from voxplain.errors import TrainingError, all_faults

_NORMAL, _ABNORMAL, _MIXED = range(3)


class Draws:
    """A `voxplain.counterfactual.generator.Source` of slices in memory or on disk.

    Each place in a batch is drawn with replacement from a seed of its own: the run's, the
    stream, the step, whether it is for a normal or an abnormal slice, and its number. So a
    batch does not depend on earlier ones, nor an item on how many there are.

    Parameters
    ----------
    slices
        Of the training part.
    blobs
        Fresh anomalies: every slice is a normal one, and every slice with room an abnormal one
        once an anomaly is put in. None: slices are what their labels say.
    seed
        Of the run.
    device
        Of batches.

    Raises
    ------
    TrainingError
        If there is no normal or no abnormal slice to draw, or slices that are to get anomalies
        are abnormal already.

    Notes
    -----
    An item costs 0.1 to 0.2 ms at 64 × 64 pixels with an anomaly, a tenth of it without.
    """

    def __init__(
        self, slices: Slices, blobs: BlobConfig | None, seed: int, device: torch.device
    ) -> None:
        self._slices, self._blobs, self._seed, self._device = slices, blobs, seed, device
        n, labels = len(slices), np.asarray(slices.labels)
        if blobs is None:
            self._room = np.zeros(n, np.bool_)
            self._normal, self._abnormal = np.flatnonzero(labels == 0), np.flatnonzero(labels)
        else:
            self._room = np.array([has_room(organ, blobs) for organ in slices.organ], np.bool_)
            self._normal, self._abnormal = np.arange(n), np.flatnonzero(self._room)
        if faults := self._faults(labels):
            raise TrainingError(all_faults("training slices", faults))

    def batch(self, stream: str, step: int, n_normal: int, n_abnormal: int) -> Batch:
        """Slices of a step: normal ones first, then abnormal ones."""
        kinds = [(_NORMAL, i) for i in range(n_normal)] + [
            (_ABNORMAL, i) for i in range(n_abnormal)
        ]
        return self._drawn(stream, step, kinds)

    def mixed(self, stream: str, step: int, n: int) -> Batch:
        """Slices of a step, as often abnormal as the data are.

        Any slice; with fresh anomalies, one with room gets one with their `probability`.
        """
        return self._drawn(stream, step, [(_MIXED, i) for i in range(n)])

    def _drawn(self, stream: str, step: int, kinds: list[tuple[int, int]]) -> Batch:
        shape = (len(kinds), 1, *self._slices.images.shape[2:])
        images, organ = np.empty(shape, np.float32), np.empty(shape, np.float32)
        labels = np.zeros(len(kinds), np.float32)
        for place, (kind, number) in enumerate(kinds):
            key = [self._seed, zlib.crc32(stream.encode()), step, kind, number]
            images[place, 0], labels[place], organ[place, 0] = self._item(
                kind, np.random.default_rng(key)
            )
        return Batch(*(torch.from_numpy(a).to(self._device) for a in (images, labels, organ)))

    def _item(
        self, kind: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], int, NDArray[np.bool_]]:
        """Image, label and organ of one place of a batch."""
        slices, blobs = self._slices, self._blobs
        if kind == _MIXED:
            i = int(rng.integers(len(slices)))
        else:
            chosen = self._normal if kind == _NORMAL else self._abnormal
            i = int(chosen[rng.integers(len(chosen))])
        image, organ = slices.images[i, 0], slices.organ[i]
        if blobs is None:
            return image, int(slices.labels[i]), organ
        if kind == _NORMAL or not self._room[i]:
            return image, 0, organ
        if kind == _MIXED and rng.random() >= blobs.probability:
            return image, 0, organ
        blob = insert(image, organ, blobs, blobs.amplitude, rng, slices.inside[i])
        return (image, 0, organ) if blob is None else (blob.image, 1, organ)

    def _faults(self, labels: NDArray[np.int8]) -> list[str]:
        """Say what there is nothing to draw of, and what to change."""
        n = len(labels)
        if n == 0:
            return ["there are none; give the split train more cases"]
        if self._blobs is None:
            faults = []
            if not len(self._normal):
                faults.append(
                    f"no normal one among {n}; add cases without the finding, raise "
                    "abnormal.min_pixels, or check abnormal.normal"
                )
            if not len(self._abnormal):
                faults.append(
                    f"no abnormal one among {n}; add cases with the finding, lower "
                    "abnormal.min_pixels, or check abnormal.labels and abnormal.column"
                )
            return faults
        faults = [no_room(n, self._blobs)] if not len(self._abnormal) else []
        if labels.any():
            faults.append(
                f"{int(labels.sum())} of {n} are abnormal already; anomalies are put into normal "
                "ones only"
            )
        return faults
