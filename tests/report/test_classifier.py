"""Pages of classifiers and of pictures: the answer, colours, proportions, no empty parts."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from voxplain.records import ClassScore, RegionTable
from voxplain.records.explanation import Explanation
from voxplain.report import write_report
from voxplain.report.notebook import show
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.picture import RGB

Build = Callable[..., Explanation]
SHAPE = (12, 20)
GRID = Grid(SHAPE, np.diag([2.0, 0.5, 1.0]))  # 24 mm high, 10 mm wide
CLASSES = (ClassScore("<healthy>", -1.2345, 0.2254), ClassScore("ill", 1.5, 0.8176))


def classifier(made: Explanation, classes: tuple[ClassScore, ...] = CLASSES) -> Explanation:
    """The same without prediction, over the one region ``image``."""
    whole = LabelMap(np.zeros((1, *made.image.grid.shape), np.uint8), made.image.grid, {0: "image"})
    frame = made.table.frame
    frame = frame[frame["region"] == "background"].assign(region="image", share=1.0)
    table = RegionTable(pd.DataFrame(frame).reset_index(drop=True))
    return replace(made, prediction=None, regions=whole, table=table, classes=classes)


@pytest.fixture
def page(tmp_path: Path) -> Callable[[Explanation], str]:
    return lambda made: write_report(made, tmp_path / "report.html").read_text("utf-8")


def pictures(page: str) -> list[Image.Image]:
    """Pictures of the page in order."""
    uris = [part.partition('"')[0] for part in page.split('<img src="')[1:]]
    return [Image.open(io.BytesIO(base64.b64decode(u.partition(",")[2]))) for u in uris]


def test_the_answer_of_every_class(build: Build, page: Callable[[Explanation], str]) -> None:
    text = page(classifier(build(grid=GRID, channels=("cxr",))))
    section = text.partition('<section id="classes">')[2].partition("</section>")[0]
    assert "&lt;healthy&gt;" in section
    assert "22.5 %" in section
    assert "81.8 %" in section
    assert "width:81.8%" in section
    assert "−1.23" in section


def test_an_output_without_probability(build: Build, page: Callable[[Explanation], str]) -> None:
    text = page(classifier(build(grid=GRID, channels=("cxr",)), (ClassScore("age", 61.0, None),)))
    section = text.partition('<section id="classes">')[2].partition("</section>")[0]
    assert "61.0" in section
    assert "probability" not in section


def test_a_whole_image_is_not_compared_with_itself(
    build: Build, page: Callable[[Explanation], str]
) -> None:
    divided, whole = build(grid=GRID), classifier(build(grid=GRID))
    empty = ('id="matrix"', "strongest region", 'class="line solid"', "windows that reach it")
    for words in empty:
        assert words in page(divided), words
        assert words not in page(whole), words
    assert "summed over\nthe whole image" in page(whole)
    assert "--regions FILE divides it" in page(whole)
    assert "summed over\n3 regions" in page(divided)
    assert "no region stands out" in show(whole).html


def test_a_classifier_of_volumes(build: Build, page: Callable[[Explanation], str]) -> None:
    text = page(classifier(build()))
    assert "through the peak of |a|</span>" in text
    assert 'id="classes"' in text
    assert ">regions</option>" not in text
    assert ">image</option>" not in text


def test_a_picture_is_shown_bare_and_with_its_map(
    build: Build, page: Callable[[Explanation], str]
) -> None:
    """Rows run down, columns to the right, pixels in their true proportions."""
    image = np.zeros((1, *SHAPE))
    image[0, :3, :15] = 100.0  # a bright bar at the top, to the left
    values = np.zeros((1, *SHAPE))
    values[0, 9:, 16:] = 1.0  # orange at the bottom, to the right
    made = build(grid=GRID, channels=("cxr",), image=image, maps={"ill": values})
    bare, mapped = (np.asarray(p).astype(int) for p in pictures(page(classifier(made))))
    assert bare.shape == mapped.shape
    height, width, _ = bare.shape
    assert height / width == pytest.approx(2.4, rel=0.02)
    top, left = (slice(0, height // 6), slice(0, width // 2))
    assert bare[top, left].min() > 200
    assert bare[height // 3 :].max() < 40
    corner = mapped[-height // 6 :, -width // 8 :].reshape(-1, 3).mean(0)
    assert corner[0] > corner[2] + 80
    assert np.abs(bare[-height // 6 :, -width // 8 :]).max() < 40


def test_a_picture_without_a_map_is_shown_once(
    build: Build, page: Callable[[Explanation], str]
) -> None:
    made = classifier(build(grid=GRID, channels=("cxr",), keep=("liver",)))
    assert len(pictures(page(made))) == 2 + 1


def test_a_colour_picture_keeps_its_colours(
    build: Build, page: Callable[[Explanation], str]
) -> None:
    image = np.zeros((3, *SHAPE))
    image[0, :, :10], image[2, :, 10:] = 255.0, 255.0  # red, then blue
    values = np.zeros((3, *SHAPE))
    values[0, -1, -1] = 1.0
    made = build(grid=GRID, channels=RGB, image=image, maps={"ill": values})
    text = page(classifier(made))
    bare, mapped = (np.asarray(p).astype(int) for p in pictures(text))
    height, width, _ = bare.shape
    left, right = (height // 2, width // 4), (height // 2, 3 * width // 4)
    assert (bare[left][0] > 200, bare[left][2] < 60) == (True, True)
    assert (bare[right][2] > 200, bare[right][0] < 60) == (True, True)
    # red and blue are equally bright, so the grey below the map is even
    assert np.abs(mapped[left] - mapped[right]).max() < 10
    assert np.ptp(mapped[left]) < 10
    assert "Drawn over the picture in grey" in text
