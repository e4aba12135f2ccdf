"""The page is whole, asks nothing of the network, and lets no name become markup."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from voxplain.errors import ImageError, OutputError
from voxplain.records.explanation import Explanation
from voxplain.records.finding import finding
from voxplain.report import html, write_report
from voxplain.space.grid import Grid

Build = Callable[..., Explanation]
NASTY = "<script>alert(1)</script>"
needs_viewer = pytest.mark.skipif(
    html.viewer_script() is None, reason="the viewer is not there; run tools/fetch_viewer.py"
)


class Page(HTMLParser):
    """Tags with their attributes, and the text by tag."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text("utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open = [tag]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._open = []

    def handle_data(self, data: str) -> None:
        if self._open == ["script"]:
            self.scripts.append(data)
        elif not self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def find(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and attributes.items() <= a.items()]


@pytest.fixture
def page(build: Build, tmp_path: Path) -> Callable[..., Page]:
    def write(explanation: Explanation | None = None, **options: object) -> Page:
        path = write_report(explanation or build(), tmp_path / "report.html", **options)  # type: ignore[arg-type]
        assert path == tmp_path / "report.html"
        return Page(path)

    return write


def test_nothing_points_outside(page: Callable[..., Page]) -> None:
    made = page()
    for tag, attributes in made.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
                assert (value or "").startswith("data:"), (tag, name, (value or "")[:80])
    assert not re.findall(r"https?://", made.source)
    assert "@import" not in made.source
    assert not re.search(r"url\(\s*['\"]?(?!data:)[a-z]+:", made.source.split("</style>")[0])
    assert "sourceMappingURL" not in made.source
    policy = made.find("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src data:;" in policy


@needs_viewer
def test_policy_names_exactly_the_scripts_of_the_page(page: Callable[..., Page]) -> None:
    made = page()
    scripts = re.findall(r"<script>(.*?)</script>", made.source, flags=re.DOTALL)
    assert len(scripts) == 3
    policy = html._policy(scripts)
    assert f'content="{policy}"' in made.source
    assert "Redistributions in binary form must reproduce" in scripts[1]


def test_page_says_what_was_asked_and_found(build: Build, page: Callable[..., Page]) -> None:
    found = (finding("VX103", "not applicable", "0 voxels of spleen.", "spleen"),
             finding("VX101", "issue", "cotangent of 3e-9."))  # fmt: skip
    text = page(build(findings=found)).text
    assert "Which parts of the image patient 7 made net say what it says?" in text
    assert "Answered for 2 targets by gradient" in text
    assert text.index("VX101") < text.index("VX103")  # the worst first
    assert "absent class (spleen). 0 voxels of spleen." in text
    assert "sum over the voxels of liver. Score 1.50." in text
    assert "12 forward 24 backward" in text.replace("\u202f", "")
    assert "1 min 15 s" in text
    assert "1.50 GB" in text
    assert "A sensitivity has no completeness gap" in text
    assert "parameters.window.size [4, 4, 4]" in text
    assert "ab" * 32 in text
    assert "planes follow the image's axes" in text  # the phantom is oblique


def test_gap_is_shown_where_there_is_one(build: Build, page: Callable[..., Page]) -> None:
    text = page(build(gap=-0.0123)).text
    assert "completeness gap −0.0123" in text
    assert "zero would be complete" in text


def test_tables_hold_the_numbers(build: Build, page: Callable[..., Page]) -> None:
    explanation = build()
    made = page(explanation)
    shares = explanation.table.matrix("share")
    texts = re.findall(r'<th scope="row">liver</th>(.*?)</tr>', made.source, flags=re.DOTALL)
    row = next(t for t in texts if t.count("<td") == shares.shape[1])
    values = [float(v) for v in re.findall(r'data-v="([^"]+)"', row)]
    assert values == pytest.approx(list(shares.loc["liver"]), rel=1e-5)
    assert len(made.find("img")) == 2 * 3 + 1
    assert all(a["alt"] for a in made.find("img"))
    assert len(made.find("article")) == 2


@pytest.mark.parametrize("where", ["region", "case"])
def test_no_name_becomes_markup(where: str, build: Build, page: Callable[..., Page]) -> None:
    nasty = NASTY + "\"'--></style>&amp;{{ 7*7 }}\u2028"
    named = {"names": {1: nasty, 2: "spleen"}} if where == "region" else {"case": nasty}
    plain, made = page(build()), page(build(**named))
    for tag in ("script", "style", "article"):
        assert len(made.find(tag)) == len(plain.find(tag))
    assert NASTY in made.text  # shown as it is called
    assert "{{ 7*7 }}" in made.text
    data = next(s for s in made.scripts if s.startswith('{"viewer"') or s == "{}")
    assert "<" not in data
    if where == "region" and data != "{}":
        assert json.loads(data)["viewer"]["labels"][0]["names"][1] == nasty


def test_without_its_file_the_viewer_is_missed_in_words(
    page: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "viewer_script", lambda: None)
    made = page()
    assert "made without the interactive viewer, whose file is not installed" in made.text
    assert not made.find("canvas")
    assert made.find("body", **{"data-viewer": "static"})
    assert len(made.find("img")) == 7


@needs_viewer
def test_size_is_kept_and_what_that_cost_is_said(build: Build, page: Callable[..., Page]) -> None:
    grid = Grid((56, 60, 64), np.eye(4))
    rng = np.random.default_rng(0)
    maps = {f"target {i}": rng.normal(size=(1, *grid.shape)) for i in range(2)}
    explanation = build(grid=grid, maps=maps)
    full = page(explanation)
    assert "averaged over cubes" not in full.text
    limit = len(full.source.encode()) / 1e6 - 0.4
    small = page(explanation, max_mb=limit)
    assert len(small.source.encode()) <= limit * 1e6
    assert "maps are averaged over cubes of 2 × 2 × 2 voxels" in small.text
    none = page(explanation, max_mb=1.5)
    assert "with it the page would exceed 1.5 MB" in none.text
    assert not none.find("canvas")


def test_two_dimensional_image_needs_no_viewer(build: Build, page: Callable[..., Page]) -> None:
    made = page(build(grid=Grid((9, 13), np.diag([0.5, 0.7, 1.0])), channels=("grey",)))
    assert len(made.find("img")) == 2 * 2 + 1  # each target: the picture, and with its map
    assert not made.find("canvas")
    assert "not installed" not in made.text


def test_targets_without_maps_and_several_channels(build: Build, page: Callable[..., Page]) -> None:
    made = page(build(keep=("liver",), channels=("t1", "flair")))
    assert "spleen (no map kept)" in made.text
    assert "no map was kept for this target" in made.text
    assert "summed over the 2 channels t1, flair" in made.text
    none = page(build(keep=()))
    assert len(none.find("img")) == 7
    assert not none.find("input")  # no sliders for maps that are not there


def test_own_scale_is_said(page: Callable[..., Page]) -> None:
    assert "one scale for all targets" in page().text
    own = page(scale="own")
    assert "its own scale" in own.text


def test_errors(build: Build, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_report(build(), tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    build().save(tmp_path / "result")
    with pytest.raises(ImageError, match="loaded without its image"):
        write_report(Explanation.load(tmp_path / "result"), tmp_path / "report.html")


def test_same_page_from_a_saved_result(build: Build, tmp_path: Path) -> None:
    explanation = build()
    explanation.save(tmp_path / "result")
    again = Explanation.load(tmp_path / "result", image=explanation.image)
    first = write_report(explanation, tmp_path / "a.html").read_bytes()
    assert write_report(again, tmp_path / "b.html").read_bytes() == first
