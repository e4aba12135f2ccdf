"""Figures draw what their tables say and leave the user's settings alone."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from collections.abc import Callable

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from voxplain.errors import TargetError
from voxplain.records.explanation import Explanation
from voxplain.report import planes, region_matrix, target_bars
from voxplain.report.colours import NEGATIVE, POSITIVE
from voxplain.report.focus import focus, own_region
from voxplain.report.scale import limit
from voxplain.space.grid import Grid

Build = Callable[..., Explanation]


def bar_widths(figure: object, colour: str) -> list[float]:
    wanted = mpl.colors.to_rgba(colour)
    return [
        patch.get_width()
        for axes in figure.axes  # type: ignore[attr-defined]
        for patch in axes.patches
        if patch.get_facecolor() == wanted
    ]


def test_matrix_is_the_table_of_shares(build: Build) -> None:
    explanation = build()
    drawing = region_matrix(explanation)
    assert drawing.table.equals(explanation.table.matrix("share"))
    assert list(drawing.table.columns) == ["background", "liver", "spleen"]
    assert drawing.table.sum(axis=1).to_numpy() == pytest.approx(1)
    axes = drawing.figure.axes[0]
    assert np.array_equal(axes.images[0].get_array(), drawing.table.to_numpy())
    framed = [(p.get_x() + 0.5, p.get_y() + 0.5) for p in axes.patches]
    assert framed == [(1, 0), (2, 1)]  # each target's own region
    shown = {(t.get_position(), t.get_text()) for t in axes.texts}
    share = 100 * drawing.table.loc["spleen", "spleen"]
    assert ((2, 1), f"{share:.0f}") in shown


def test_matrix_with_many_regions_stays_readable_and_without_numbers(build: Build) -> None:
    grid = Grid((5, 7, 11), np.eye(4))
    names = {i: f"structure_{i}" for i in range(1, 101)}
    labels = np.arange(5 * 7 * 11).reshape(5, 7, 11) % 101
    maps = {f"target {i}": np.random.default_rng(i).normal(size=(1, 5, 7, 11)) for i in range(3)}
    drawing = region_matrix(build(grid=grid, names=names, labels=labels, maps=maps))
    assert drawing.table.shape == (3, 101)
    figure = drawing.figure
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in figure.axes[0].get_xticklabels()]
    assert all(a.x1 <= b.x0 + 0.5 for a, b in itertools.pairwise(boxes))
    assert not figure.axes[0].texts


def test_matrix_of_a_map_of_zeros_says_so(build: Build) -> None:
    zero = {"liver": np.zeros((1, 5, 7, 11))}
    drawing = region_matrix(build(maps=zero))
    assert drawing.table.isna().all(axis=None)
    assert {t.get_text() for t in drawing.figure.axes[0].texts} == {"–"}


def test_bars_show_both_signs_sorted_by_share(build: Build) -> None:
    explanation = build(channels=("t1", "flair"))
    drawing = target_bars(explanation, "spleen")
    table = drawing.table
    assert table["share"].is_monotonic_decreasing
    values = explanation["spleen"].values
    mask = explanation.regions.mask("spleen")
    row = table.set_index("region").loc["spleen"]
    inside = values[:, mask]
    assert row["positive"] == pytest.approx(inside[inside > 0].sum())
    assert row["negative"] == pytest.approx(inside[inside < 0].sum())
    assert bar_widths(drawing.figure, POSITIVE) == pytest.approx(list(table["positive"]))
    assert bar_widths(drawing.figure, NEGATIVE) == pytest.approx(list(table["negative"]))
    short = target_bars(explanation, "spleen", n_regions=2)
    assert len(bar_widths(short.figure, POSITIVE)) == 2
    assert len(short.table) == 3


def test_planes_run_through_the_peak_of_the_strongest_region(build: Build) -> None:
    values = np.zeros((1, 5, 7, 11))
    values[0, 4, 6, 9] = -3.0  # in spleen
    values[0, 1, 1, 1] = 1.0  # in liver
    values[0, 2, 3, 5] = 9.0  # in the background, which is never the strongest region
    explanation = build(maps={"class:spleen": values})
    place = focus(explanation, "class:spleen")
    assert (place.index, place.region) == ((4, 6, 9), "spleen")
    assert place.share == pytest.approx(3 / 13)
    drawing = planes(explanation, "class:spleen")
    assert list(drawing.table["plane"]) == ["axial", "coronal", "sagittal"]
    assert set(drawing.table["voxel"]) == {(4, 6, 9)}
    letters = [{t.get_text() for t in axes.texts} for axes in drawing.figure.axes[:3]]
    assert letters == [set("APRL"), set("SIRL"), set("SIAP")]


def test_pictures_keep_true_proportions(build: Build) -> None:
    drawing = planes(build(), "liver")
    figure = drawing.figure
    wide, tall = figure.get_size_inches()
    sizes = [axes.get_position() for axes in figure.axes[:3]]
    per_mm = [
        (box.width * wide / (n_columns * mm_columns), box.height * tall / (n_rows * mm_rows))
        for box, (n_columns, mm_columns, n_rows, mm_rows) in zip(
            sizes, [(5, 0.7, 7, 1.1), (5, 0.7, 11, 2.3), (7, 1.1, 11, 2.3)], strict=True
        )
    ]
    assert np.ptp(np.array(per_mm)) < 1e-9


def test_focus_without_a_map_is_inside_the_region(build: Build) -> None:
    explanation = build(keep=("liver",))
    place = focus(explanation, "spleen")
    assert explanation.regions.mask("spleen")[place.index]
    assert place.reason == "middle of spleen"
    drawing = planes(explanation, "spleen")
    assert (drawing.table["limit"] == 0).all()


def test_focus_of_a_map_of_zeros_is_the_middle(build: Build) -> None:
    place = focus(build(maps={"liver": np.zeros((1, 5, 7, 11))}), "liver")
    assert (place.index, place.region) == ((2, 3, 5), None)


def test_scale_is_shared_unless_asked(build: Build) -> None:
    rng = np.random.default_rng(0)
    maps = {
        "liver": rng.normal(size=(1, 5, 7, 11)),
        "spleen": rng.normal(size=(1, 5, 7, 11)) * 1e-3,
    }
    explanation = build(maps=maps)
    shared = {planes(explanation, t).table["limit"].iloc[0] for t in maps}
    assert shared == {limit(maps["liver"][0])}
    own = planes(explanation, "spleen", scale="own").table["limit"].iloc[0]
    assert own == limit(maps["spleen"][0])


def test_own_region_is_found_by_name(build: Build) -> None:
    explanation = build()
    assert own_region(explanation, "liver") == "liver"
    assert own_region(explanation, "class:spleen") == "spleen"
    assert own_region(explanation, "background") is None
    assert own_region(explanation, "voxel:1,2,3") is None


def test_unknown_target_suggests_the_nearest(build: Build) -> None:
    for draw in (planes, target_bars):
        with pytest.raises(TargetError, match="did you mean 'liver'"):
            draw(build(), "livr")


def test_names_are_never_read_as_formulas(build: Build) -> None:
    names = {1: r"a$\frac$b", 2: "x_{2}^$"}
    explanation = build(names=names)
    for drawing in (region_matrix(explanation), target_bars(explanation, names[1]),
                    planes(explanation, names[2])):  # fmt: skip
        assert drawing.png(dpi=40)[:4] == b"\x89PNG"


def test_files_and_notebook_picture(build: Build) -> None:
    drawing = planes(build(), "liver")
    size = Image.open(io.BytesIO(drawing.png(dpi=50))).size
    assert size == pytest.approx(50 * drawing.figure.get_size_inches(), abs=1)
    assert "<svg" in drawing.svg()
    assert drawing._repr_png_()[:4] == b"\x89PNG"


def test_two_dimensional_image_is_one_picture(build: Build) -> None:
    explanation = build(grid=Grid((9, 13), np.diag([0.5, 0.7, 1.0])))
    drawing = planes(explanation, "spleen")
    assert list(drawing.table["plane"]) == ["picture"]
    assert not drawing.figure.axes[0].texts


def test_users_matplotlib_is_left_alone(build: Build) -> None:
    def settings() -> dict[str, object]:
        return {k: mpl.rcParams[k] for k in mpl.rcParams if not k.startswith("backend")}

    before = settings()
    region_matrix(build()).png(dpi=30)
    assert settings() == before
    code = (
        "import sys, voxplain.report;"
        "bad = {'torch', 'monai', 'matplotlib.pyplot'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
