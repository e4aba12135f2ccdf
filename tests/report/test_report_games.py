"""Pages of localisations, of maps without sign or channels, and of the players of games."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from voxplain.cli.summary import print_summary
from voxplain.records import Explanation
from voxplain.records.attribution import Kind
from voxplain.records.player_table import COLUMNS, PlayerTable
from voxplain.report import attribution_html, planes, write_report
from voxplain.report.colours import NEGATIVE, POSITIVE
from voxplain.report.games import strongest, with_error
from voxplain.report.scale import is_signed
from voxplain.space.grid import Grid

Build = Callable[..., Explanation]
Page = Callable[[Explanation], str]
NASTY = "<b>liver & co</b>"


@pytest.fixture
def page(tmp_path: Path) -> Page:
    def text(made: Explanation) -> str:
        written = write_report(made, tmp_path / "report.html").read_text("utf-8")
        return " ".join(written.partition('<script type="application/json"')[0].split())

    return text


def of_kind(made: Explanation, kind: Kind) -> Explanation:
    maps = {name: replace(a, kind=kind) for name, a in made.attributions.items()}
    return replace(made, kind=kind, attributions=maps)


def positive(made: Explanation) -> dict[str, NDArray[np.floating]]:
    return {name: np.abs(a.values) for name, a in made.attributions.items()}


def players(
    values: dict[str, tuple[float, float]], target: str = "liver", pairs: bool = False
) -> pd.DataFrame:
    rows = [(target, name, "", value, error, 40) for name, (value, error) in values.items()]
    if pairs:
        names = list(values)
        rows += [
            (target, a, b, float(i - j) + 0.5, 0.0, 80)
            for i, a in enumerate(names)
            for j, b in enumerate(names)
            if i < j
        ]
    frame = pd.DataFrame(
        rows, columns=["target", "player", "partner", "value", "error", "n_voxels"]
    )
    return frame.assign(case="patient 7", model="net", method="shapley")[[*COLUMNS]]


def section(text: str, name: str = "players") -> str:
    return text.partition(f'<section id="{name}">')[2].partition("</section>")[0]


# -- what a colour means --------------------------------------------------------------------
@pytest.mark.parametrize("has_sign", [True, False])
@pytest.mark.parametrize(
    ("kind", "words", "without"),
    [
        ("sensitivity", "raise the target: orange", "size of the slope, without sign"),
        ("contribution", "blue speaks against", "blue speaks against"),
        ("localisation", "blue against it", "evidence for the target lies, without sign"),
    ],
)
def test_the_words_follow_the_data(
    build: Build, page: Page, kind: Kind, words: str, without: str, has_sign: bool
) -> None:
    made = build()
    made = of_kind(made if has_sign else build(maps=positive(made)), kind)
    text = page(made)
    assert (words if has_sign else without) in text
    both = has_sign or kind == "contribution"
    assert is_signed(made) == both
    low = re.findall(r'<span class="scale"><span>([^<]*)</span>', text)
    assert len(low) == 2
    assert all(word.startswith("−") == both and (both or word == "0") for word in low)
    # the bar begins in the colour of the strongest negative value, or in the ground's
    first = re.findall(r"linear-gradient\(to right, rgb\((\d+ \d+ \d+)\)", text)
    assert set(first) == {"158 226 255" if both else "20 24 29"}


def test_a_name_of_a_method_decides_nothing(build: Build, page: Page) -> None:
    signed = replace(build(), method="vargrad")
    assert "without sign" not in page(signed)


def test_without_kept_maps_the_table_tells_the_sign(build: Build) -> None:
    made = build(keep=())
    assert is_signed(made)
    assert not is_signed(build(keep=(), maps=positive(build())))


def test_one_negative_voxel_is_enough(build: Build) -> None:
    maps = positive(build())
    maps["spleen"][0, 1, 2, 3] = -1e-6
    made = build(maps=maps)
    assert is_signed(made)
    assert not is_signed(made["liver"])
    assert is_signed(made["spleen"])


@pytest.mark.parametrize("has_sign", [True, False])
def test_the_scale_of_figures_and_notebooks(build: Build, has_sign: bool) -> None:
    made = build() if has_sign else build(maps=positive(build()))
    made = of_kind(made, "localisation")
    ticks = list(planes(made, "liver").figure.axes[-1].get_xticks())  # the legend comes last
    assert (ticks[0] < 0) == has_sign
    assert 0.0 in ticks
    html = attribution_html(made["liver"])
    assert "liver</b>: localisation in" in html
    assert ("colours end at ±" in html) == has_sign
    assert ("colours end at 0 and " in html) != has_sign


# -- completeness ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "gap", "words"),
    [
        ("sensitivity", None, "A sensitivity has no completeness gap"),
        ("localisation", None, "A localisation has no completeness gap"),
        ("contribution", 0.25, "zero would be complete"),
        ("contribution", None, "This method tells no completeness gap"),
    ],
)
def test_the_gap_of_each_kind(
    build: Build, page: Page, kind: Kind, gap: float | None, words: str
) -> None:
    text = page(of_kind(build(gap=gap), kind))
    assert words in section(text, "scores")
    plural = {"sensitivity": "sensitivities"}.get(kind, f"{kind}s")
    assert f"whose maps are {plural} in" in text


# -- one map for several channels -----------------------------------------------------------
def test_one_map_for_all_channels(build: Build, page: Page) -> None:
    made = build(channels=("t1", "flair"))
    assert "maps and bars are summed over the 2 channels t1, flair" in page(made)
    frame = made.table.frame
    one = pd.DataFrame(frame[frame["channel"] == "t1"]).assign(channel="all channels")
    maps = {
        name: replace(a, values=a.values[:1], channels=("all channels",), kind="localisation")
        for name, a in made.attributions.items()
    }
    joined = replace(
        made, kind="localisation", attributions=maps,
        table=type(made.table)(one.reset_index(drop=True)),
    )  # fmt: skip
    text = page(joined)
    assert "summed over the 2" not in text
    assert "maps and bars stand for all of the 2 channels t1, flair" in text
    assert "colours end at" in attribution_html(joined["liver"])


def test_one_map_for_all_colours(build: Build, page: Page) -> None:
    grid = Grid((12, 20), np.diag([2.0, 0.5, 1.0]))
    made = build(grid=grid, channels=("red", "green", "blue"))
    frame = made.table.frame
    one = pd.DataFrame(frame[frame["channel"] == "red"]).assign(channel="all channels")
    maps = {
        name: replace(a, values=a.values[:1], channels=("all channels",))
        for name, a in made.attributions.items()
    }
    table = type(made.table)(one.reset_index(drop=True))
    text = page(replace(made, attributions=maps, table=table))
    assert "picture in grey; maps and bars stand for all of the 3 channels" in text


# -- players --------------------------------------------------------------------------------
def test_no_section_without_a_game(build: Build, page: Page) -> None:
    assert 'id="players"' not in page(build())


def test_values_errors_and_order(build: Build, page: Page) -> None:
    values = {"small": (0.125, 0.0), NASTY: (-4.0, 0.25), "large": (2.0, 0.0)}
    frame = pd.concat([players(values), players({"small": (7.0, 0.5)}, "spleen")])
    made = replace(build(), players=PlayerTable(frame.reset_index(drop=True)))
    found = section(page(made))
    assert NASTY not in found
    order = [found.index(word) for word in ("&lt;b&gt;liver &amp; co", ">large<", ">small<")]
    assert order == sorted(order)
    assert ">−4.00 ± 0.25<" in found
    assert ">2.00<" in found  # exact: no error
    assert "width:49.0%" in found
    assert "width:24.5%" in found
    assert found.count('<article class="target" data-target=') == 2
    assert "Interactions" not in found
    assert "more" not in found


def test_the_rest_is_counted(build: Build, page: Page) -> None:
    values = {f"cube_{i}": (float(i), 0.0) for i in range(1, 26)}
    made = replace(build(), players=PlayerTable(players(values)))
    found = section(page(made))
    assert found.count('<th scope="row">') == 20
    assert ">cube_6<" in found
    assert ">cube_5<" not in found
    assert "and 5 more, which sum to 15.0: see players.csv" in found


def test_values_that_are_zero_or_missing(build: Build, page: Page) -> None:
    values = {"absent": (np.nan, 0.0), "idle": (0.0, 0.0)}
    found = section(page(replace(build(), players=PlayerTable(players(values)))))
    assert ">–<" in found
    assert found.index(">idle<") < found.index(">absent<")
    assert "width:nan" not in found


def test_interactions_are_a_matrix(build: Build, page: Page) -> None:
    values = {"a": (1.0, 0.0), "b": (2.0, 0.0), NASTY: (3.0, 0.0)}
    made = replace(build(), players=PlayerTable(players(values, pairs=True)))
    found = section(page(made)).partition('<table class="matrix pairs">')[2]
    cells = re.findall(r'<td data-v="([^"]*)"[^>]*>', found)
    np.testing.assert_allclose(
        np.array(cells, float).reshape(3, 3),
        [[np.nan, -0.5, -1.5], [-0.5, np.nan, -0.5], [-1.5, -0.5, np.nan]],
    )
    assert "background:rgb(31 111 181 / 65%)" in found
    assert "&lt;b&gt;liver" in found
    assert NASTY not in found


def test_only_the_strongest_pairs_are_a_matrix(build: Build, page: Page) -> None:
    values = {f"p{i}": (1.0, 0.0) for i in range(15)}
    found = section(page(replace(build(), players=PlayerTable(players(values, pairs=True)))))
    matrix = found.partition('<table class="matrix pairs">')[2].partition("</table>")[0]
    assert matrix.count('<th scope="row">') == 12
    assert "3 players that interact less are left out" in found


def test_colours_of_pairs_are_those_of_the_page() -> None:
    from voxplain.report import games

    for colour, words in ((POSITIVE, games._FOR), (NEGATIVE, games._AGAINST)):
        assert words == " ".join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))


def test_strongest_and_its_words() -> None:
    table = PlayerTable(players({"a": (1.0, 0.5), "b": (-3.0, 0.0), "c": (2.0, 0.0)}))
    assert list(strongest(table, "liver")["player"]) == ["b", "c", "a"]
    assert strongest(table, "spleen").empty
    assert with_error(1.0, 0.5) == "1.00 ± 0.50"
    assert with_error(-3.0, 0.0) == "−3.00"


# -- command line ---------------------------------------------------------------------------
def test_the_summary_says_who_played(
    build: Build, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    values = {f"p{i}": (float(i), 0.25 * (i == 4)) for i in range(5)}
    made = replace(build(), players=PlayerTable(players(values)))
    print_summary(made, tmp_path, ["players.csv"])
    out = capsys.readouterr().out
    assert "players of liver: p4 4.00 ± 0.25, p3 3.00, p2 2.00 and 2 more in players.csv" in out
    print_summary(build(), tmp_path, [])
    assert "players" not in capsys.readouterr().out
