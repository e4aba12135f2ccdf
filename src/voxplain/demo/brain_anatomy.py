"""One imaginary brain: its folds, ventricles and nuclei, drawn from a seed, and its tissues."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxplain.demo.shapes import FAR_MM, Beads, Ellipsoid, Floats, Waves, rotation

TISSUES = ("csf", "gm", "wm")
"""Names of the tissue labels 1, 2, 3; the columns of `Tissues.shares`."""

CSF, GM, WM = range(3)
_CHUNK = 120_000  # points at a time: the folds' waves of all at once would not fit a small machine


@dataclass(frozen=True)
class Tissues:
    """What lies at points of a brain; signed distances in mm, negative inside.

    Parameters
    ----------
    hull
        To the surface of the brain with its rim of fluid; outside there is nothing.
    white
        To the white matter of cerebrum, without regard to ventricles and nuclei.
    ventricle
        To the lateral ventricles, at most `FAR_MM`.
    shares
        (n, 3) shares of fluid, grey and white matter, 0 to 1, their sum is 1.
    """

    hull: Floats
    white: Floats
    ventricle: Floats
    shares: NDArray[np.float32]


class BrainAnatomy:
    """Size, pose, folds and solids of one imaginary brain.

    The head's frame has its origin between the hemispheres at the height of the third ventricle,
    x to the patient's right, y to the front, z to the top, in mm of an average adult.

    Parameters
    ----------
    seed
        Seed of every draw.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 11])
        self.size = rng.uniform([0.95, 0.94, 0.95], [1.04, 1.05, 1.04])
        self.pose = rotation(*np.deg2rad(rng.uniform(-5, 5, 3)))
        self.middle = rng.uniform([-5, -12, -12], [5, 12, 12])
        self.wobble = [Waves.draw(rng, 90, 200) for _ in range(3)]
        self.wobble_mm = float(rng.uniform(1.5, 3.0))
        self.atrophy = float(rng.uniform(0, 1))
        self.folds = Waves.draw(rng, 17, 29, 20)
        self.crooked = [Waves.draw(rng, 22, 45) for _ in range(3)]
        self.folia = Waves.draw(rng, 8, 11, 10)
        self.cortex_mm = float(rng.uniform(2.5, 3.1))
        self.frontal = Ellipsoid([0, -4, 12], [66, 84, 57])
        self.temporal = [Ellipsoid([s * 45, 6, -18], [21, 41, 21], s * 0.12) for s in (-1, 1)]
        self.cerebellum = [Ellipsoid([s * 22, -52, -38], [28, 28, 20]) for s in (-1, 1)]
        self.cerebellar_white = [Ellipsoid([s * 15, -44, -36], [15, 12, 8]) for s in (-1, 1)]
        self.stem = Beads.tube([[0, -12, -10], [0, -15, -32], [0, -24, -80]], [15, 15, 8])
        self.ventricles = self._draw_ventricles(rng)
        self.fourth = Ellipsoid([0, -31, -34], [6, 4, 9])
        self.nuclei = [n for s in (-1, 1) for n in self._nuclei(s)]

    def _draw_ventricles(self, rng: np.random.Generator) -> Beads:
        wide = 0.75 + 0.6 * self.atrophy
        tubes = []
        for side in (-1, 1):
            w = wide * rng.uniform(0.9, 1.1)
            horns = np.array(
                [[15, 34, 8], [11, 22, 14], [10, 2, 19], [13, -20, 20], [23, -38, 10],
                 [32, -22, -10], [34, -2, -17]], float,
            )  # fmt: skip
            back = np.array([[23, -38, 10], [22, -50, 7], [21, -62, 5]], float)
            body = np.array([3.5, 5.0, 5.0, 5.5, 6.5, 3.0, 2.5]) * w
            mirror = np.array([side, 1, 1])
            tubes.append(Beads.tube(horns * mirror, body))
            tubes.append(Beads.tube(back * mirror, np.array([5.5, 3.5, 1.8]) * w))
        return Beads.join(tubes)

    @staticmethod
    def _nuclei(side: int) -> list[Ellipsoid | Beads]:
        caudate = np.array([[14, 26, 6], [16, 16, 12], [18, 0, 20], [21, -18, 20]], float)
        return [
            Ellipsoid([side * 27, 6, 1], [6, 17, 11], side * 0.25),
            Ellipsoid([side * 11, -13, 7], [9, 15, 10], side * 0.4),
            Beads.tube(caudate * np.array([side, 1, 1]), [6, 5.5, 4, 2.5]),
        ]

    def to_head(self, world: NDArray[np.float64]) -> Floats:
        """Points (n, 3) of the head's frame for points of the patient in mm."""
        upright = ((world - self.middle) @ self.pose).astype(np.float32)
        wobble = np.stack([field.at(upright) for field in self.wobble], axis=-1)
        return np.asarray((upright + self.wobble_mm * wobble) / self.size.astype(np.float32))

    def tissues(self, points: Floats, edge_mm: float) -> Tissues:
        """Look up points (n, 3) of the head's frame, blended over `edge_mm`."""
        parts = [
            self._tissues(points[first : first + _CHUNK], edge_mm)
            for first in range(0, len(points), _CHUNK)
        ]
        return Tissues(
            *(np.concatenate([getattr(p, name) for p in parts])
              for name in ("hull", "white", "ventricle", "shares"))
        )  # fmt: skip

    def _tissues(self, points: Floats, edge_mm: float) -> Tissues:
        cerebrum = self._cerebrum(points)
        cerebellum = _smooth_union([one.distance(points) for one in self.cerebellum], 4)
        stem = self.stem.distance(points)
        hull = _smooth_union([cerebrum, cerebellum, stem], 9) - np.float32(1.3)
        white = np.full(len(points), FAR_MM, np.float32)
        inside = hull < 0
        near = points[inside]
        pial = np.maximum(cerebrum[inside], -self._fluid(near, -cerebrum[inside]))
        white[inside] = pial + self.cortex_mm
        ventricle = np.full(len(points), FAR_MM, np.float32)
        ventricle[inside] = self.ventricles.distance(near)
        shares = np.zeros((len(points), 3), np.float32)
        shares[inside] = self._blend(
            near, edge_mm, pial, ventricle[inside], cerebellum[inside], stem[inside]
        )
        return Tissues(hull, white, ventricle, shares)

    def _cerebrum(self, points: Floats) -> Floats:
        # the base is flatter than the vault
        flat = points.copy()
        low = flat[:, 2] < 12
        flat[low, 2] = 12 + (flat[low, 2] - 12) * np.float32(57 / 34)
        lobes = [one.distance(points) for one in self.temporal]
        return _smooth_union([self.frontal.distance(flat), *lobes], 3)

    def _fluid(self, points: Floats, depth: Floats) -> Floats:
        """Signed distance to the fluid in the folds, the great fissure and the Sylvian ones."""
        x, y, z = points.T
        open_mm = np.float32(0.5 + 0.7 * self.atrophy)
        # Folds stand upright on the surface: the field is that of a point pushed to a capsule.
        centre = np.stack(
            [np.sign(x) * 20, 0.75 * np.clip(y + 5, -55, 55) - 5, np.full_like(z, 3)], axis=-1
        )
        ray = points - centre
        radius = np.maximum(np.linalg.norm(ray, axis=1), 1e-3)
        ray /= radius[:, None]
        crooked = np.stack([field.at(points) for field in self.crooked], axis=-1)
        value, slope = _value_and_slope(self.folds, centre + 46 * ray + 2.5 * crooked)
        slope -= np.einsum("ij,ij->i", slope, ray)[:, None] * ray
        steep = np.maximum(np.linalg.norm(slope, axis=1), 0.15)
        sheet = np.abs(value) / steep * (radius / 46) - open_mm * (0.45 + np.exp(-depth / 4))
        ends = 14 + 5 * crooked[:, 0]
        folds = np.maximum(sheet, depth - ends)
        # below the callosum the halves are joined
        joined = (1 - np.hypot((y + 5) / 46, (z - 1) / 29)) * 29
        great = np.maximum(np.abs(x) - 0.6 - 0.6 * open_mm, joined)
        lateral = z + 9 - (38 - y) * 0.36 + 3 * crooked[:, 1]
        sylvian = np.maximum.reduce(
            [np.abs(lateral) * 0.94 - 0.3 - open_mm, 39 - np.abs(x), y - 36, -30 - y]
        )
        return np.asarray(np.minimum.reduce([folds, great, sylvian]), np.float32)

    def _blend(
        self, points: Floats, edge_mm: float, pial: Floats, ventricle: Floats,
        cerebellum: Floats, stem: Floats,
    ) -> NDArray[np.float32]:  # fmt: skip
        x, y, z = points.T
        shares = np.zeros((len(points), 3), np.float32)
        shares[:, CSF] = 1

        def paint(distance: Floats, tissue: int, most: float = 1.0) -> None:
            share = most * np.clip(0.5 - distance / edge_mm, 0, 1)[:, None]
            shares[:] *= 1 - share
            shares[:, tissue] += share[:, 0]

        leaves, slope = _value_and_slope(self.folia, points)
        leaves = np.abs(leaves) / np.maximum(np.linalg.norm(slope, axis=1), 0.2)
        paint(cerebellum, GM)
        paint(np.maximum(cerebellum + 2.5, 1.2 - leaves), WM, 0.55)
        paint(np.maximum(cerebellum, leaves - 0.5), CSF, 0.5)
        paint(_smooth_union([one.distance(points) for one in self.cerebellar_white], 3), WM)
        paint(pial, GM)
        paint(pial + self.cortex_mm, WM)
        paint(stem, WM, 0.8)
        for nucleus in self.nuclei:
            paint(np.maximum(nucleus.distance(points), pial + 2), GM, 0.85)
        third = np.maximum(
            np.abs(x) - 1.2 - 1.5 * self.atrophy, (np.hypot((y + 4) / 15, (z - 1) / 11) - 1) * 11
        )
        paint(np.minimum(third, self.fourth.distance(points)), CSF)
        paint(ventricle, CSF)
        return shares


def _value_and_slope(waves: Waves, points: Floats) -> tuple[Floats, Floats]:
    """Return the field at points (n, 3), (n,), and its slope in 1/mm, (n, 3)."""
    frequencies = waves.frequencies.astype(points.dtype)
    angle = points @ frequencies.T + waves.phases.astype(points.dtype)
    scale = np.asarray(np.sqrt(2 / len(waves.phases)), points.dtype)
    return np.cos(angle).sum(axis=1) * scale, -np.sin(angle) @ frequencies * scale


def _smooth_union(distances: list[Floats], round_mm: float) -> Floats:
    """Distance to a union whose inner corners are rounded."""
    result = distances[0]
    for other in distances[1:]:
        blend = np.clip(0.5 + 0.5 * (other - result) / round_mm, 0, 1)
        result = other + (result - other) * blend - round_mm * blend * (1 - blend)
    return np.asarray(result, np.float32)
