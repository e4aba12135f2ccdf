"""What lies on a synthetic chest radiograph beside the chest: opacities and harmless things."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxplain.demo.xray_anatomy import Floats, Frame, Thorax

_LETTERS = {
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
}
_ROOM = 200  # places tried for an opacity


@dataclass(frozen=True)
class Opacity:
    """A patchy consolidation: soft balls close together, mottled.

    Parameters
    ----------
    balls
        (n, 3) x, y and radius in the chest's frame.
    strength
        Weakening that it adds where it is thickest.
    waves
        (n_waves, 3) frequencies along x and y, and phase, of its mottling.
    """

    balls: Floats
    strength: float
    waves: Floats

    @classmethod
    def draw(cls, rng: np.random.Generator, thorax: Thorax) -> Opacity:
        """Draw an opacity with its middle in a lung, beside the heart."""
        places = rng.uniform([-0.85, -0.75], [0.85, 0.6], (_ROOM, 2))
        _, free = thorax.lungs(Frame(places[:, 0], places[:, 1], 0.02))
        middle = places[np.flatnonzero(free > 0.8)[0]]
        size = rng.uniform(0.12, 0.21)
        n = int(rng.integers(4, 8))
        shift = rng.uniform(-1, 1, (n, 2)) * size * 0.8
        shift[0] = 0
        radii = size * rng.uniform(0.55, 1.0, n)
        waves = np.column_stack([rng.normal(0, 22, (6, 2)), rng.uniform(0, 2 * np.pi, 6)])
        return cls(np.column_stack([middle + shift, radii]), rng.uniform(0.24, 0.42), waves)

    def weakening(self, frame: Frame, free: Floats, growth: float) -> Floats:
        """Weakening that it adds, (rows, columns), where a lung is (`Thorax.lungs`)."""
        thick = np.zeros_like(free)
        for x, y, radius in self.balls:
            distance = np.hypot(frame.x - x, frame.y - y) / (radius * growth)
            thick = np.maximum(thick, np.clip(1 - distance**2, 0, 1))
        angles = frame.x[..., None] * self.waves[:, 0] + frame.y[..., None] * self.waves[:, 1]
        mottled = 1 + 0.10 * np.cos(angles + self.waves[:, 2]).sum(axis=-1)
        return np.asarray(self.strength * thick**0.7 * mottled * np.clip(free / 0.4, 0, 1))

    def region(self, added: Floats) -> NDArray[np.bool_]:
        """Pixels to which it adds at least a third of its strength."""
        return np.asarray(added >= self.strength / 3)


def electrodes(rng: np.random.Generator, frame: Frame) -> Floats:
    """Weakening by up to four round ECG electrodes and their leads, wherever the chest is."""
    total = np.zeros_like(frame.x)
    for _ in range(int(rng.integers(0, 5))):
        x, y = rng.uniform([-0.75, -0.75], [0.75, 0.75])
        total = np.maximum(total, 0.45 * frame.disc(x, y, rng.uniform(0.030, 0.048)))
        end = (x + rng.uniform(-0.3, 0.3), y + rng.choice([-1, 1]) * rng.uniform(0.3, 0.8))
        total = np.maximum(total, 0.16 * frame.line((x, y), end, 0.014))
    return total


def marker(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels of a letter, R or L, in the upper left corner of a picture."""
    rows = _LETTERS[str(rng.choice(list(_LETTERS)))]
    letter = np.array([[pixel == "1" for pixel in row] for row in rows])
    zoom = max(1, round(min(shape) / 80))
    letter = np.kron(letter, np.ones((zoom, zoom), bool))
    row, column = rng.integers(2, 6, 2)
    pixels = np.zeros(shape, bool)
    pixels[row : row + letter.shape[0], column : column + letter.shape[1]] = letter
    return pixels
