"""Results show themselves: a small piece of HTML with pictures inside."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from voxplain.errors import TargetError
from voxplain.records.explanation import Explanation
from voxplain.records.finding import finding
from voxplain.report import attribution_html, explanation_html, show
from voxplain.space.grid import Grid

Build = Callable[..., Explanation]


def pictures(html: str) -> list[Image.Image]:
    found = re.findall(r"data:image/png;base64,([^\"]+)", html)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in found]


def test_explanation_shows_planes_and_a_table(build: Build) -> None:
    explanation = build(findings=(finding("VX103", "not applicable", "0 voxels.", "spleen"),))
    html = explanation_html(explanation)
    assert len(pictures(html)) == 1
    top = explanation.table.top("spleen", 1)
    assert f"{top.index[0]} {100 * top['share'].iloc[0]:.1f} %" in html
    assert "VX103 absent class (spleen)" in html
    assert show(explanation)._repr_html_() == html
    assert "planes of spleen" in show(explanation, "spleen").html
    with pytest.raises(TargetError, match="did you mean"):
        show(explanation, "splen")


def test_attribution_shows_its_peak(build: Build) -> None:
    grid = Grid((5, 7, 11), np.eye(4))
    values = np.zeros((1, 5, 7, 11))
    values[0, 3, 2, 1], values[0, 0, 0, 0] = 2.0, -1.0
    html = attribution_html(build(grid=grid, maps={"liver": values}, gap=0.25)["liver"])
    assert "axial, S 1.0 mm; coronal, A 2.0 mm; sagittal, R 3.0 mm; colours end at ±2" in html
    assert "completeness gap 0.250" in html
    (picture,) = pictures(html)
    pixels = np.asarray(picture).astype(int)
    warm = pixels[..., 0] - pixels[..., 2] > 60  # orange: once in each of three planes
    assert len(np.flatnonzero(np.diff(np.pad(warm.any(axis=0), 1).astype(int)) == 1)) == 3


def test_two_dimensions_and_zeros(build: Build) -> None:
    explanation = build(grid=Grid((9, 13), np.eye(3)), maps={"liver": np.zeros((1, 9, 13))})
    assert "zero everywhere" in show(explanation["liver"]).html
    assert "no region stands out" in show(explanation).html


def test_without_image_the_table_is_left(build: Build, tmp_path: Path) -> None:
    build().save(tmp_path / "result")
    html = explanation_html(Explanation.load(tmp_path / "result"))
    assert not pictures(html)
    assert "<table" in html


def test_names_are_escaped(build: Build) -> None:
    html = explanation_html(build(names={1: "<script>alert(1)</script>", 2: "b"}, case="<i>x"))
    assert "<script" not in html
    assert "<i>" not in html
    assert "&lt;script&gt;" in html
    attribution = build(names={1: "<script>", 2: "b"})["<script>"]
    assert "<script" not in attribution_html(attribution)
