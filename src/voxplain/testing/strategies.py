"""Hypothesis strategies, one a type; the only module that needs hypothesis."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st

from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing import phantoms

_SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def grids(draw: st.DrawFn, rank: int = 3, max_length: int = 9) -> Grid:
    """Draw a grid of any orientation: oblique, axes in any order, some of them reversed."""
    shape = draw(st.tuples(*[st.integers(1, max_length)] * rank))
    spacing = draw(st.tuples(*[st.floats(0.3, 4.0)] * rank))
    codes = ["LR", "PA", "IS"][:rank]
    order = draw(st.permutations(codes))
    letters = draw(st.sampled_from(["".join(c) for c in itertools.product(*order)]))
    return phantoms.oblique_grid(shape, spacing, draw(_SEEDS)).reorient(letters)


@st.composite
def volumes(draw: st.DrawFn, rank: int = 3, max_channels: int = 3) -> Volume:
    """Draw an image of 1 to `max_channels` channels on any grid."""
    return phantoms.volume(draw(grids(rank)), draw(st.integers(1, max_channels)), draw(_SEEDS))


@st.composite
def label_maps(draw: st.DrawFn, rank: int = 3, max_label: int = 4, max_layers: int = 2) -> LabelMap:
    """Draw labels scattered over any grid; some may not occur, layers may overlap."""
    grid = draw(grids(rank))
    n_layers = draw(st.integers(1, max_layers))
    n_labels = draw(st.integers(1, max_label))
    rng = np.random.default_rng(draw(_SEEDS))
    layers = rng.integers(0, n_labels + 1, (n_layers, *grid.shape), np.uint8)
    for index in range(1, n_layers):  # a label belongs to one layer
        layers[index][layers[index] > 0] += index * n_labels
    names = {i: f"organ_{i}" for i in range(1, n_layers * n_labels + 1)}
    return LabelMap(layers, grid, names)


@st.composite
def window_settings_and_shape(
    draw: st.DrawFn, rank: int = 3, max_window: int = 6, max_length: int = 15
) -> tuple[WindowSettings, tuple[int, ...]]:
    """Draw window settings and the shape of a volume, which may be smaller than the window."""
    settings = WindowSettings(
        size=draw(st.tuples(*[st.integers(1, max_window)] * rank)),
        overlap=draw(st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75]), st.floats(0, 0.9))),
        blend=draw(st.sampled_from(["constant", "gaussian"])),
        scheme=draw(st.sampled_from(["monai", "nnunet"])),
    )
    return settings, draw(st.tuples(*[st.integers(1, max_length)] * rank))
