"""The healthy part of a synthetic frontal chest radiograph: how much each ray is weakened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LUNG = 0.78
"""What a lung takes away from the weakening of the chest, where it is thick."""


@dataclass(frozen=True)
class Frame:
    """Places of the pixels in the chest's own frame.

    Parameters
    ----------
    x, y
        (rows, columns): to the right of the picture (the patient's left) and down. The chest is
        about 2 wide and 2.4 high, with 0 in its middle.
    pixel
        Edge of a pixel in the same unit.
    """

    x: Floats
    y: Floats
    pixel: float

    @classmethod
    def draw(cls, rng: np.random.Generator, shape: tuple[int, int]) -> Frame:
        """Place a chest in a picture: turned up to 4°, shifted and magnified a little."""
        pixel = max(2.4 / shape[0], 2.0 / shape[1])
        rows, columns = np.indices(shape, dtype=np.float64)
        angle = np.deg2rad(rng.uniform(-4, 4))
        scale = rng.uniform(0.93, 1.07)
        right = (columns - (shape[1] - 1) / 2) * pixel + rng.uniform(-0.07, 0.07)
        down = (rows - (shape[0] - 1) / 2) * pixel + rng.uniform(-0.08, 0.08)
        x = (right * np.cos(angle) - down * np.sin(angle)) / scale
        y = (right * np.sin(angle) + down * np.cos(angle)) / scale
        return cls(x, y, pixel / scale)

    def inside(self, distance: Floats, soft: float = 0.0) -> Floats:
        """Share of a pixel on the negative side of a distance, over one pixel or `soft`."""
        return np.asarray(np.clip(0.5 - distance / max(soft, self.pixel), 0, 1))

    def disc(self, x: float, y: float, radius: float, soft: float = 0.0) -> Floats:
        """Share of a pixel in a disc."""
        return self.inside(np.hypot(self.x - x, self.y - y) - radius, soft)

    def line(self, start: tuple[float, float], end: tuple[float, float], width: float) -> Floats:
        """Profile of a straight round tube, 1 on its axis."""
        (x0, y0), (x1, y1) = start, end
        along_x, along_y = x1 - x0, y1 - y0
        length = along_x**2 + along_y**2
        share = np.clip(((self.x - x0) * along_x + (self.y - y0) * along_y) / length, 0, 1)
        distance = np.hypot(self.x - x0 - share * along_x, self.y - y0 - share * along_y)
        return np.asarray(np.exp(-((distance / width) ** 2)))


class Thorax:
    """Size and organs of one imaginary patient.

    Parameters
    ----------
    rng
        Of the patient.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.wide = rng.uniform(0.93, 1.05)
        self.high = rng.uniform(0.94, 1.08)
        self.stout = rng.uniform(0.9, 1.2)
        self.dome = rng.uniform(0.42, 0.58) + np.array([0.0, rng.uniform(0.03, 0.10)])
        self.heart = (rng.uniform(0.06, 0.14), rng.uniform(0.22, 0.3), rng.uniform(0.30, 0.42))
        self.rib_top = rng.uniform(-0.80, -0.72)
        self.rib_pitch = rng.uniform(0.150, 0.172)
        self.rib_density = rng.uniform(0.09, 0.19)
        self.rib_wave = rng.uniform(-0.012, 0.012, (2, 11))
        self.breasts = rng.uniform(0.05, 0.16) if rng.uniform() < 0.5 else 0.0
        self.breast_at = rng.uniform([0.40, 0.10], [0.52, 0.30])
        self.gas = rng.uniform(0.08, 0.14), rng.uniform(0.3, 0.45), rng.uniform(0.05, 0.45)
        self.vessels = [self._vessel(rng, side) for side in (-1, 1) for _ in range(16)]

    @staticmethod
    def _vessel(
        rng: np.random.Generator, side: int
    ) -> tuple[tuple[float, float], tuple[float, float], float]:
        """Start, end and width of a piece of a lung's vessels; near the hilum they are wide."""
        hilum = np.array([side * 0.2, -0.02])
        angle = rng.uniform(-1.35, 1.45)
        direction = np.array([side * np.cos(angle), np.sin(angle)])
        near = rng.uniform(0, 0.3)
        start = hilum + near * direction + rng.uniform(-0.03, 0.03, 2)
        turned = direction + rng.uniform(-0.45, 0.45, 2)
        end = start + rng.uniform(0.15, 0.4) * turned
        width = 0.034 * (1 - near / 0.45) + 0.008
        return (start[0], start[1]), (end[0], end[1]), float(width)

    def lungs(self, frame: Frame) -> tuple[Floats, Floats]:
        """Thickness of the lungs, 0 to 1, (rows, columns), and its part that the heart leaves."""
        x, y = frame.x / self.wide, frame.y / self.high
        thick = np.zeros_like(x)
        for side, dome in zip((-1, 1), self.dome, strict=True):
            out = side * x
            middle = 0.45 + 0.05 * np.clip(y + 0.3, -0.5, 0.5)
            level = (np.abs(out - middle) / 0.37) ** 2.5 + (np.abs(y - 0.05) / 0.90) ** 2.5
            edge = (1 - np.maximum(level, 1e-9) ** 0.4) * 0.37
            arch = dome - 0.20 * np.sqrt(np.clip(1 - ((out - 0.36) / 0.55) ** 2, 0, 1)) + 0.14
            edge = np.minimum(edge, (arch - y) * 0.9)
            thick = np.maximum(thick, np.sqrt(np.clip(edge / 0.17, 0, 1)))
        return thick, thick * (1 - 0.75 * self._heart(frame))

    def _heart(self, frame: Frame) -> Floats:
        x0, y0, radius = self.heart
        x, y = frame.x / self.wide - x0, frame.y / self.high - y0
        tilted = (x * 0.9 + y * 0.42) / (radius * 1.08), (y * 0.9 - x * 0.42) / (radius * 0.86)
        return np.asarray(np.sqrt(np.clip(1.15 - tilted[0] ** 2 - tilted[1] ** 2, 0, 1)))

    def weakening(self, frame: Frame) -> Floats:
        """Weakening of each ray by the healthy chest, 0 in air, about 1 behind soft tissue."""
        x, y = frame.x / self.wide, frame.y / self.high
        rise = np.clip((y + 1.22) / 0.42, 0, 1)
        half = 0.30 + 0.70 * rise**0.7 - 0.05 * np.clip(y, 0, 1)
        body = np.sqrt(np.clip(1.02 - np.abs(x / half) ** 3.2, 0, 1))
        total = body * self.stout * (0.95 + 0.1 * np.clip(y, -0.5, 1))
        _, free = self.lungs(frame)
        total -= LUNG * free * self.stout**0.5
        middle = _band(x, 0.15) * frame.inside(-(y + 1.15), 0.3)
        total += 0.28 * middle + 0.32 * self._heart(frame)
        total += 0.14 * frame.disc(0.15 * self.wide, -0.36, 0.11, 0.07)
        total += 0.13 * _band(x, 0.085) * (0.75 + 0.25 * np.sin(y * 2 * np.pi / 0.14))
        total -= 0.20 * np.exp(-((x / 0.045) ** 2)) * frame.inside(y + 0.30, 0.1)
        width, at, depth = self.gas
        gas = np.hypot((x - at) / 1.5, y - self.dome[1] - 0.22) - width
        total -= 0.35 * depth * frame.inside(gas, 0.08) * (free < 0.05)
        total += self._bones(frame, x, y) * (body > 0.1)
        for start, end, thickness in self.vessels:
            total += 0.10 * frame.line(start, end, thickness) * np.clip(free * 1.5, 0, 1)
        for side in (-1, 1):
            bx, by = self.breast_at
            shadow = np.hypot((x - side * bx) / 1.1, y - by) - 0.27
            total += self.breasts * frame.inside(shadow, 0.12) * (0.6 + 0.6 * np.clip(y, 0, 1))
        return np.maximum(total, 0.0)

    def _bones(self, frame: Frame, x: Floats, y: Floats) -> Floats:
        """Ribs behind and in front, clavicles and shoulder blades."""
        total = np.zeros_like(x)
        out = np.abs(x)
        cage = 0.86 * np.sqrt(np.clip(1 - np.clip((-y - 0.25) / 0.72, 0, 1) ** 2.4, 0, 1))
        within = frame.inside(out - cage, 0.05)
        lateral = frame.inside(0.33 - out, 0.1)
        share = out / 0.86
        arch = 0.30 * share**3 - 0.13 * np.sin(np.pi * np.clip(share * 0.85, 0, 1))
        for i in range(11):
            at = self.rib_top + i * self.rib_pitch
            side = np.where(x < 0, self.rib_wave[0, i], self.rib_wave[1, i])
            behind = at + arch + side
            total += self.rib_density * _band(y - behind, 0.034) * (out > 0.06)
            front = at + 0.52 - 0.42 * share + side
            if i < 7:
                rib = _band(y - front, 0.036) * lateral
                total += 0.5 * self.rib_density * rib
        total *= within
        for side in (-1.0, 1.0):
            bend, end = (side * 0.38, -0.80), (side * 0.85, -0.95)
            for start, stop in (((side * 0.09, -0.70), bend), (bend, end)):
                collar = frame.line(start, stop, 0.042)
                total = np.maximum(total, 1.5 * self.rib_density * collar)
            blade = frame.line((side * 0.80, -0.72), (side * 0.70, -0.10), 0.09)
            total += 0.5 * self.rib_density * blade
        return total


def _band(distance: Floats, width: float) -> Floats:
    """Profile of a flat band, exp(−(d / w)⁴)."""
    return np.asarray(np.exp(-np.square(np.square(distance / width))))
