"""A real CT with sixteen targets makes a page that can be sent by mail."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from voxplain.records.explanation import Explanation
from voxplain.report import html, write_report
from voxplain.space import read_image

CASE = Path(__file__).resolve().parents[3] / "shared" / "data" / "ct_thorax_abdomen"
STRUCTURES = (1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 18, 20, 52)


@pytest.mark.real
@pytest.mark.skipif(not CASE.is_dir(), reason=f"no real CT at {CASE}")
@pytest.mark.skipif(
    html.viewer_script() is None, reason="the viewer is not there; run tools/fetch_viewer.py"
)
def test_sixteen_targets_of_a_real_ct(build: Callable[..., Explanation], tmp_path: Path) -> None:
    image = read_image(CASE / "ct.nii.gz")
    found = read_image(CASE / "segmentation.nii.gz").data[0].astype(int)
    known = json.loads((CASE / "labels.json").read_text("utf-8"))
    labels = np.zeros(found.shape, np.uint8)
    names = {}
    for new, old in enumerate(STRUCTURES, 1):
        labels[found == old] = new
        names[new] = known[str(old)]
    rng = np.random.default_rng(0)
    maps = {}
    for label, name in names.items():
        near = ndimage.uniform_filter((labels == label).astype(np.float32), 7)
        noise = ndimage.uniform_filter(rng.normal(size=found.shape).astype(np.float32), 3)
        maps[name] = (noise * near * 1e-5)[None]
    explanation = build(
        grid=image.grid, image=image.data, labels=labels, names=names, maps=maps, case="ct"
    )
    start = time.process_time()
    path = write_report(explanation, tmp_path / "report.html")
    assert time.process_time() - start < 20
    assert path.stat().st_size <= 25_000_000
    text = path.read_text("utf-8")
    assert text.count('id="layer-map-') == 16
    assert "averaged over cubes" not in text
