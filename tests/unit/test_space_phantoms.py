"""The phantoms are as asymmetric as they say."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from voxplain.testing import phantoms


@pytest.mark.parametrize(
    ("shape", "spacing"), [((5, 7, 11), (0.7, 1.1, 2.3)), ((5, 7), (0.7, 1.1))]
)
def test_oblique_grid(shape, spacing):
    grid = phantoms.oblique_grid(shape, spacing)
    assert grid.shape == shape
    assert grid.spacing == pytest.approx(spacing)
    off_diagonal = grid.affine[:-1, :-1][~np.eye(len(shape), dtype=bool)]
    assert (np.abs(off_diagonal) > 0.01).all()
    assert grid == phantoms.oblique_grid(shape, spacing)
    assert grid != phantoms.oblique_grid(shape, spacing, seed=1)


def test_volume_differs_from_every_flip_and_between_channels():
    data = phantoms.volume(n_channels=2).data
    for axis in (1, 2, 3):
        assert np.abs(data - np.flip(data, axis)).max() > 1
    assert np.abs(data[0] - data[1]).max() > 0.3
    assert phantoms.volume(phantoms.oblique_grid((5, 7), (1, 2))).data.shape == (1, 5, 7)


def test_every_label_occurs():
    for seed in range(5):
        labels = phantoms.labels(seed=seed)
        assert sorted(np.unique(labels.layers)) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="do not fit"):
        phantoms.labels(phantoms.oblique_grid((1, 1, 2)))


def test_reading_needs_neither_torch_nor_hypothesis():
    code = (
        "import sys, voxplain.space, voxplain.testing.phantoms\n"
        "heavy = {'torch', 'monai', 'hypothesis', 'nibabel', 'PIL'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
