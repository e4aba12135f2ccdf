"""White-matter lesions of an imaginary brain, and the bright spots that are none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxplain.demo.brain_anatomy import CSF, GM, WM, BrainAnatomy, Tissues
from voxplain.demo.shapes import Ellipsoid, Floats, Waves

Change = tuple[float, float]
_GAP_MM = 4.0  # between two lesions, so that their number is the number of their components


@dataclass(frozen=True)
class Spot:
    """A soft-bordered irregular place whose intensities differ.

    Parameters
    ----------
    centre, radii
        Three numbers each, in mm of the head's frame.
    turn
        Rotation about z in radians.
    ripple_mm
        By how much its border departs from the ellipsoid.
    ripple
        Field of the departures.
    soft_mm
        Width of the border.
    change
        What is added to FLAIR and MPRAGE in its middle.
    tissues
        Tissues in which it shows (columns of `Tissues.shares`).
    lesion
        Whether it counts as a true lesion.
    """

    centre: NDArray[np.float64]
    radii: NDArray[np.float64]
    turn: float
    ripple_mm: float
    ripple: Waves
    soft_mm: float
    change: Change
    tissues: tuple[int, ...]
    lesion: bool = False

    def near(self, points: Floats) -> NDArray[np.intp]:
        """Numbers of the points (n, 3) that it may reach."""
        reach = self.radii.max() + 2 * self.ripple_mm + self.soft_mm
        offset = np.abs(points - self.centre.astype(points.dtype))
        return np.flatnonzero((offset < reach).all(axis=1))

    def distance(self, points: Floats) -> Floats:
        """Signed distance of points (n, 3) to its middle border in mm, (n,)."""
        solid = Ellipsoid(self.centre, self.radii, self.turn).distance(points)
        return np.asarray(solid + self.ripple_mm * self.ripple.at(points))


def draw_spots(seed: int, anatomy: BrainAnatomy, *, lesions: bool) -> list[Spot]:
    """Draw what is no plain tissue, the confounders first.

    Confounders are the same with and without lesions: choroid plexus in the ventricles, bright
    cortical and insular spots, bright bands at the horns of the ventricles, bright white matter
    that MPRAGE does not see, and dark spaces around vessels.

    Parameters
    ----------
    seed
        Seed of every draw.
    anatomy
        The brain.
    lesions
        Whether there are 3 to 25 lesions too.
    """
    rng = np.random.default_rng([seed, 12])
    points = rng.uniform([-64, -84, -20], [64, 76, 66], (9000, 3)).astype(np.float32)
    tissues = anatomy.tissues(points, 1.0)
    spots = _choroid(rng, anatomy) + _bands(rng) + _cortical(rng, points, tissues)
    spots += _blush(rng, points, tissues) + _vessels(rng, points, tissues)
    if lesions:
        spots += _lesions(np.random.default_rng([seed, 13]), points, tissues)
    return spots


def _spot(
    rng: np.random.Generator, centre: object, radii: object, change: Change,
    tissues: tuple[int, ...], turn: float = 0.0, *, lesion: bool = False, soft_mm: float = 1.6,
) -> Spot:  # fmt: skip
    size = np.asarray(radii, np.float64)
    ripple = Waves.draw(rng, 5, 14, 8)
    return Spot(np.asarray(centre, np.float64), size, turn, 0.16 * float(size.min()), ripple,
                soft_mm, change, tissues, lesion)  # fmt: skip


def _choroid(rng: np.random.Generator, anatomy: BrainAnatomy) -> list[Spot]:
    spots = []
    for side in (-1, 1):
        for centre in ([22, -37, 9], [15, -24, 17], [29, -28, -4]):
            place = np.array(centre) * [side, 1, 1] + rng.normal(0, 1, 3)
            radii = rng.uniform(2.0, 3.6, 3) * (0.8 + 0.5 * anatomy.atrophy)
            spots.append(_spot(rng, place, radii, (rng.uniform(140, 300), 170.0), (CSF,)))
    return spots


def _bands(rng: np.random.Generator) -> list[Spot]:
    spots = []
    for side in (-1, 1):
        for centre, turn in (([17, 37, 8], 0.5), ([21, -67, 5], -0.2)):
            if rng.uniform() < 0.7:
                place = np.array(centre) * [side, 1, 1] + rng.normal(0, 1.5, 3)
                radii = [rng.uniform(5, 10), rng.uniform(1.6, 2.6), rng.uniform(3, 6)]
                change = (rng.uniform(40, 120), rng.uniform(-25, 0))
                spots.append(_spot(rng, place, radii, change, (GM, WM), side * turn))
    return spots


def _cortical(rng: np.random.Generator, points: Floats, tissues: Tissues) -> list[Spot]:
    cortex = (tissues.shares[:, GM] > 0.7) & (tissues.white > 0)
    insula = cortex & (np.abs(np.abs(points[:, 0]) - 38) < 5) & (np.abs(points[:, 1] - 4) < 26)
    spots = []
    for where, least, most in ((cortex, 3, 8), (insula, 1, 4)):
        for index in _some(rng, where, int(rng.integers(least, most + 1))):
            change = (rng.uniform(50, 130), rng.uniform(-30, 10))
            spots.append(_spot(rng, points[index], rng.uniform(1.8, 4, 3), change, (GM,)))
    return spots


def _blush(rng: np.random.Generator, points: Floats, tissues: Tissues) -> list[Spot]:
    spots = []
    for index in _some(rng, _white(tissues), int(rng.integers(2, 7))):
        change = (rng.uniform(35, 95), rng.uniform(-25, 10))
        spots.append(_spot(rng, points[index], rng.uniform(2, 5, 3), change, (WM,), soft_mm=3.0))
    return spots


def _vessels(rng: np.random.Generator, points: Floats, tissues: Tissues) -> list[Spot]:
    spots = []
    for index in _some(rng, _white(tissues), int(rng.integers(6, 14))):
        radii = [rng.uniform(0.9, 1.3), rng.uniform(3, 8), rng.uniform(0.9, 1.3)]
        turn = float(rng.uniform(0, np.pi))
        spots.append(_spot(rng, points[index], radii, (-90.0, -130.0), (WM,), turn))
    return spots


def _lesions(rng: np.random.Generator, points: Floats, tissues: Tissues) -> list[Spot]:
    white = _white(tissues)
    places = (
        white & (tissues.ventricle > 0.5) & (tissues.ventricle < 4.5),
        white & (tissues.white > -1.8) & (tissues.ventricle > 8),
        white & (tissues.white < -3) & (tissues.ventricle > 7),
    )
    wanted, tries = int(rng.integers(3, 26)), 0
    spots: list[Spot] = []
    while len(spots) < wanted and tries < 40 * wanted:
        tries += 1
        kind = int(rng.choice(3, p=(0.45, 0.2, 0.35)))
        found = _some(rng, places[kind], 1)
        radius = float(np.clip(np.exp(rng.normal(np.log(3.3), 0.42)), 1.9, 7.2))
        shape = rng.uniform(0.75, 1.3, 3)
        if kind == 0:
            shape[0] *= 1.35  # along the veins, away from the ventricle
        radii = np.clip(radius * shape, 1.6, 7.5)
        far = [np.linalg.norm(points[i] - s.centre) > radii.max() * 1.3 + s.radii.max() * 1.3
               + _GAP_MM for i in found for s in spots]  # fmt: skip
        if not len(found) or not all(far):
            continue
        strength = rng.uniform(0.65, 1) if rng.uniform() < 0.75 else rng.uniform(0.3, 0.6)
        change = (strength * rng.uniform(110, 170), -strength * rng.uniform(90, 160))
        spots.append(_spot(rng, points[found[0]], radii, change, (GM, WM),
                           float(rng.uniform(-0.6, 0.6)), lesion=True,
                           soft_mm=float(rng.uniform(1.6, 3.2))))  # fmt: skip
    return spots


def _white(tissues: Tissues) -> NDArray[np.bool_]:
    return np.asarray((tissues.shares[:, WM] > 0.9) & (tissues.white < 0))


def _some(rng: np.random.Generator, where: NDArray[np.bool_], n: int) -> NDArray[np.intp]:
    found = np.flatnonzero(where)
    return np.asarray(rng.choice(found, min(n, len(found)), replace=False))
