"""Synthetic anomalies: a bright or dark Gaussian blob inside an organ, and where it is."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from voxplain.counterfactual.config import BlobConfig
from voxplain.counterfactual.slices import Slices, read_slices
from voxplain.counterfactual.slices_writer import slices_writer
from voxplain.errors import DataError, all_faults

_EIGHT = np.ones((3, 3), np.int8)
_LEAST = 1e-7
"""g below this is 0: float32 pictures in [−1, 1] do not show it."""


@dataclass(frozen=True, eq=False)
class Blob:
    """A slice with an anomaly.

    Parameters
    ----------
    image
        (rows, columns) float32 in [−1, 1], with the anomaly.
    truth
        (rows, columns) its pixels.
    amplitude
        What was added at its centre, in shares of the window; negative where dark.
    centre
        Row and column.
    radii
        Long and short radius where g = `mask_level`, in pixels.
    angle
        From the rows' direction to the long radius, [0, π).
    bend
        Sideways displacement of the ends of the long radius, in short radii.
    """

    image: NDArray[np.float32]
    truth: NDArray[np.bool_]
    amplitude: float
    centre: tuple[int, int]
    radii: tuple[float, float]
    angle: float
    bend: float


def insert(
    image: NDArray[np.float32],
    organ: NDArray[np.bool_],
    config: BlobConfig,
    amplitude: tuple[float, float],
    rng: np.random.Generator,
    inside: NDArray[np.bool_] | None = None,
) -> Blob | None:
    """Put an anomaly into the organ of a slice.

    x' = clip(x ± 2·a·g, −1, 1), which is clip(x01 ± a·g, 0, 1) of x01 = (x + 1)/2;
    g = exp(−ln(1/`mask_level`)·(u² + v²)), so g = exp(−r²/2σ²) is `mask_level` at the radius;
    truth = g > `mask_level`. v is the distance from the centre along the long radius, in long
    radii; u the one across, in short radii, plus bend·sin²(πv/2).

    Parameters
    ----------
    image
        (rows, columns) in [−1, 1].
    organ
        (rows, columns), within `inside`.
    config
        Size, shape and sign.
    amplitude
        Range of a.
    rng
        Ten numbers are drawn, whatever the configuration.
    inside
        (rows, columns) pixels that are of the image: padding stays as it is and is never
        truth. None: all.

    Returns
    -------
    Blob | None
        None where no component of the organ has room.

    Notes
    -----
    The clip belongs to the definition: where tissue is bright already, a bright anomaly changes
    it by less than a·g, at 1 not at all, and is truth all the same.

    The centre is uniform over the pixels of one of the two largest 8-connected components of
    the organ, each as likely. The paper draws points in the bounding box of a component (5 % of
    each side left out) until one lies inside its contour: the same, but for the pixels of that
    margin and the contour's own. It drops the anomaly where that fails, here nothing can.

    Long and short radius are R·√e and R/√e, R of `radius_px` and e of `elongation`, and bending
    moves pixels along one axis only: both keep the area πR².

    The paper's blobs, at the slice's own resolution: `probability` 0.65, `radius_px`
    (5, 6.66) (a template of σ 0.4 in 20 × 20 pixels, scaled by U[0.75, 1]), `mask_level` 0.25,
    both amplitudes (0.9, 0.9), `distortion` 0.2, `elongation` (1, 1). There, distortion stretches
    the template by a grid of one cell, and an organ has room where its bounding box has more
    than 400 pixels; an ellipse that fills its box has π/4 of them: `min_organ_px` 314.

    References
    ----------
    arXiv 2404.12832, section on synthetic anomalies.
    """
    parts = _parts(organ, config.min_organ_px)
    if parts is None:
        return None
    components, numbers = parts
    drawn = rng.random(10)
    pixels = np.flatnonzero(components == numbers[int(drawn[0] * len(numbers))])
    row, column = divmod(int(pixels[int(drawn[1] * len(pixels))]), organ.shape[1])
    size, stretch, share = (
        low + (high - low) * at
        for (low, high), at in zip(
            (config.radius_px, config.elongation, amplitude), drawn[2:5], strict=True
        )
    )
    is_dark = config.sign == "dark" or (config.sign == "both" and drawn[5] < 0.5)
    long, short = size * np.sqrt(stretch), size / np.sqrt(stretch)
    if long < short:
        long, short = short, long
    angle = np.pi * drawn[6]
    bend = config.distortion * (2 * drawn[8] - 1) if drawn[7] < 0.5 else 0.0
    box, g = _gaussian(
        organ.shape, (row, column), (long, short), angle, bend, config.mask_level
    )  # fmt: skip
    if config.inside_only:
        g *= organ[box]
    if inside is not None:
        g *= inside[box]
    signed = -share if is_dark else share
    changed = np.array(image, np.float32)
    changed[box] = np.clip(changed[box] + 2 * signed * g, -1, 1)
    truth = np.zeros(organ.shape, np.bool_)
    truth[box] = g > config.mask_level
    return Blob(
        changed, truth, float(signed), (row, column), (float(long), float(short)),
        float(angle), float(bend),
    )  # fmt: skip


def has_room(organ: NDArray[np.bool_], config: BlobConfig) -> bool:
    """Whether `insert` finds a place in an organ (rows, columns)."""
    return _parts(organ, config.min_organ_px) is not None


def frozen(slices: Slices, config: BlobConfig, seed: int, part: str, folder: Path) -> Slices:
    """Draw the anomalies of validation or test slices once and for all.

    Each slice with room gets one with `probability`, of `amplitude_test`. What a slice gets
    depends on `seed`, `part` and its own case, plane and number, not on the other slices.

    Parameters
    ----------
    slices
        Normal ones.
    config
        See `insert`.
    seed
        Of the run.
    part
        ``validation`` or ``test``.
    folder
        They are written into it, one at a time, whole or not at all; it may be that of `slices`.

    Returns
    -------
    Slices
        With labels, truth, and the images before in `clean`; on disk.

    Raises
    ------
    DataError
        If a slice is abnormal already, no slice got an anomaly, or none stayed normal.

    Notes
    -----
    The paper draws anomalies anew each time a slice is read, also for the test.
    """
    if slices.labels.any():
        raise DataError(
            f"{part}: {int(slices.labels.sum())} slices are abnormal before anomalies are put in; "
            "expected normal ones only"
        )
    size: tuple[int, int] = slices.images.shape[2:]
    with slices_writer(folder, size, has_clean=True) as writer:
        for i, key in enumerate(slices.table.itertuples(index=False, name=None)):
            case, patient, plane, index = key
            named = [zlib.crc32(str(text).encode()) for text in ("frozen", part, case, plane)]
            rng = np.random.default_rng([seed, *named, int(index)])
            clean, organ, inside = slices.images[i, 0], slices.organ[i], slices.inside[i]
            blob = None
            if rng.random() < config.probability:
                blob = insert(clean, organ, config, config.amplitude_test, rng, inside)
            writer.add(
                (case, patient, plane, index),
                images=clean if blob is None else blob.image,
                truth=np.zeros(size, np.bool_) if blob is None else blob.truth,
                labels=int(blob is not None), organ=organ, inside=inside, clean=clean,
            )  # fmt: skip
        if faults := _missing(slices, writer.n_abnormal, config):
            raise DataError(all_faults(part, faults))
    return read_slices(folder)


def no_room(n: int, config: BlobConfig) -> str:
    """Sentence of an error: no slice has a place for an anomaly."""
    return (
        f"none of {n} slices has a part of the organ of at least {config.min_organ_px} pixels of "
        "the picture; lower synthetic.min_organ_px, or take a larger data.size or another "
        "data.organ"
    )


def _missing(slices: Slices, n_abnormal: int, config: BlobConfig) -> list[str]:
    """Say what there is none of, normal or abnormal slices, and what to do."""
    n = len(slices)
    if n == 0:
        return ["there are no slices; give this part of the split more cases"]
    n_rooms = sum(has_room(organ, config) for organ in slices.organ)
    if n_rooms == 0:
        return [no_room(n, config)]
    of = f"of {n} slices, {n_rooms} with room, at probability {config.probability:g}"
    faults = []
    if not n_abnormal:
        faults.append(f"none {of} got an anomaly; raise synthetic.probability or add cases")
    if n_abnormal == n:
        faults.append(f"none {of} stayed normal; lower synthetic.probability or add cases")
    return faults


def _parts(
    organ: NDArray[np.bool_], least: int
) -> tuple[NDArray[np.integer[Any]], NDArray[np.intp]] | None:
    """Components of an organ, and the numbers of the largest two of at least `least` pixels."""
    if np.count_nonzero(organ) < max(least, 1):
        return None
    components, _ = label(organ, _EIGHT)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    order = np.argsort(-sizes, kind="stable")[:2]
    numbers = order[sizes[order] >= max(least, 1)]
    return (components, numbers) if len(numbers) else None


def _gaussian(
    shape: tuple[int, ...],
    centre: tuple[int, int],
    radii: tuple[float, float],
    angle: float,
    bend: float,
    level: float,
) -> tuple[tuple[slice, slice], NDArray[Any]]:
    """Box around the centre, and g in it; see `insert`."""
    fall = -np.log(level)
    reach = np.sqrt(-np.log(_LEAST) / fall)
    (long, short), (cos, sin) = radii, (np.cos(angle), np.sin(angle))
    wide = short * (reach + abs(bend))
    starts, axes = [], []
    for n, at, half in zip(
        shape, centre, (np.hypot(reach * long * cos, wide * sin),
                        np.hypot(reach * long * sin, wide * cos)), strict=True,
    ):  # fmt: skip
        low, high = max(0, int(np.ceil(at - half))), min(n, int(at + half) + 1)
        starts.append(slice(low, high))
        axes.append(np.arange(low - at, high - at, dtype=np.float64))
    rows, columns = axes[0][:, None], axes[1]
    v = rows * (cos / long) + columns * (sin / long)
    u = columns * (cos / short) - rows * (sin / short)
    if bend:
        u = u + bend * np.sin(np.pi / 2 * v) ** 2
    g = np.exp(-fall * (u * u + v * v))
    g[g < _LEAST] = 0
    return (starts[0], starts[1]), g
