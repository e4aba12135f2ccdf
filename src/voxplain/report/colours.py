"""The colours of maps: blue negative, orange positive, nothing at zero.

Both halves grow in lightness with |value| and stay apart for every common colour blindness;
their opacity grows from zero, so that the image shows where a map says nothing.
"""

from __future__ import annotations

import colorsys

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray

POSITIVE = "#d9600f"
NEGATIVE = "#1f6fb5"
INK = "#1b2430"
GROUND = "#14181d"

# (fraction of the limit, red, green, blue), each half from zero outwards
WARM = ((0.0, 150, 54, 8), (0.45, 240, 118, 24), (1.0, 255, 218, 130))
COOL = ((0.0, 18, 72, 146), (0.45, 40, 142, 226), (1.0, 158, 226, 255))
SHARES = LinearSegmentedColormap.from_list(
    "voxplain_shares", ["#ffffff", "#d5e5f0", "#86b6d6", "#2f7fb6", "#0b4a80", "#062a4d"]
)


def opacity(fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Opacity of |value| / limit: 0 at zero, full from six tenths of the limit."""
    return np.asarray(np.clip(np.abs(fraction) / 0.6, 0.0, 1.0) ** 0.9)


def _half(
    stops: tuple[tuple[float, int, int, int], ...], at: NDArray[np.float64]
) -> NDArray[np.float64]:
    table = np.asarray(stops, dtype=np.float64)
    return np.stack([np.interp(at, table[:, 0], table[:, c]) for c in (1, 2, 3)], axis=-1)


def diverging(values: NDArray[np.floating], limit: float) -> NDArray[np.float64]:
    """Red, green, blue and opacity, each 0…1, of signed values.

    Parameters
    ----------
    values
        Any shape.
    limit
        Value of the strongest colour; what lies beyond is drawn like it. Not positive: a map
        of zeros, drawn as nothing.

    Returns
    -------
    ndarray
        (*values.shape, 4).
    """
    if not limit > 0:
        return np.zeros((*values.shape, 4))
    fraction = np.clip(np.asarray(values, dtype=np.float64) / limit, -1.0, 1.0)
    strength = np.abs(fraction)
    colour = np.where(fraction[..., None] < 0, _half(COOL, strength), _half(WARM, strength)) / 255
    return np.concatenate([colour, opacity(fraction)[..., None]], axis=-1)


def over_ground(values: NDArray[np.floating], limit: float) -> NDArray[np.float64]:
    """Red, green and blue of the map over the dark ground of its legend."""
    drawn = diverging(values, limit)
    ground = np.array([int(GROUND[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.asarray(drawn[..., :3] * drawn[..., 3:] + ground * (1 - drawn[..., 3:]))


def viewer_map(sign: int, n_stops: int = 17) -> dict[str, list[int]]:
    """One half as a colour table of the viewer: R, G, B, A (0…255) at I (0…255).

    Parameters
    ----------
    sign
        +1 for positive values, −1 for negative ones.
    n_stops
        Number of table entries.
    """
    at = np.linspace(0.0, 1.0, n_stops)
    table = np.rint(diverging(sign * at, 1.0) * 255).astype(int)
    rows = {name: table[:, i].tolist() for i, name in enumerate("RGBA")}
    return {**rows, "I": np.rint(at * 255).astype(int).tolist()}


def label_colours(n: int) -> list[tuple[int, int, int]]:
    """Red, green and blue (0…255) for n labels, neighbours in order far apart in hue."""
    golden = 0.6180339887498949
    return [
        tuple(  # type: ignore[misc]
            round(255 * c)
            for c in colorsys.hls_to_rgb((0.36 + i * golden) % 1.0, 0.62 - 0.1 * (i % 3), 0.55)
        )
        for i in range(n)
    ]


def legend_css(is_signed: bool = True, n_stops: int = 21) -> str:
    """CSS gradient of the legend, from −limit (0 for values without sign) to +limit."""
    colours = over_ground(np.linspace(-1 if is_signed else 0, 1, n_stops), 1.0)
    stops = [f"rgb({r:.0f} {g:.0f} {b:.0f})" for r, g, b in colours * 255]
    return f"linear-gradient(to right, {', '.join(stops)})"
