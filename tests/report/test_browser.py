"""A real browser opens the page: the viewer runs, shows the right values, or steps aside."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from voxplain.records.explanation import Explanation
from voxplain.report import html, write_report
from voxplain.space.grid import Grid
from voxplain.testing.phantoms import oblique_grid

Build = Callable[..., Explanation]
BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine"),
    pytest.mark.skipif(
        html.viewer_script() is None, reason="the viewer is not there; run tools/fetch_viewer.py"
    ),
]
SOFTWARE_GL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
NO_GL = ("--disable-3d-apis",)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., str]:
    """Document of a page after its scripts have run."""

    def open_(path: Path, *, flags: tuple[str, ...] = SOFTWARE_GL, script: str = "") -> str:
        if script:  # stands in for a reader's hand; the page's own policy would not let it run
            text = path.read_text("utf-8")
            text = re.sub(r"script-src [^;]*;", "script-src 'unsafe-inline';", text, count=1)
            before, _, after = text.rpartition("</body>")
            path.write_text(f"{before}<script>{script}</script></body>{after}", "utf-8")
        done = subprocess.run(
            [
                str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", *flags,
                "--disable-background-networking", "--no-first-run", "--disable-dev-shm-usage",
                f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=15000",
                "--window-size=900,900", "--dump-dom", path.as_uri(),
            ],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        return done.stdout

    return open_


def body_state(document: str) -> str:
    found = re.search(r'<body[^>]*data-viewer="(\w+)"', document)
    assert found, document[-500:]
    error = re.search(r'id="viewer-error">([^<]*)', document)
    return found[1] + (f" ({error[1]})" if error and error[1] else "")


def readout(document: str) -> str:
    found = re.search(r'id="readout"[^>]*>(.*?)</p>', document, flags=re.DOTALL)
    assert found
    return " ".join(unescape(found[1]).split())


def peaked(build: Build, grid: Grid, scale: float) -> Explanation:
    """Two maps, each with one peak, deep below what a shader can tell apart."""
    rng = np.random.default_rng(0)
    labels = np.zeros(grid.shape, np.uint8)
    labels[:6], labels[8:] = 1, 2
    maps = {}
    for name, at, sign in (("liver", (3, 4, 5), 1), ("spleen", (10, 9, 8), -1)):
        values = rng.normal(0, 0.01, (1, *grid.shape))
        values[(0, *at)] = sign
        maps[name] = values * scale
    return build(grid=grid, labels=labels, maps=maps, image=np.full((1, *grid.shape), 7.0))


def test_viewer_shows_the_values_of_the_map(
    build: Build, opened: Callable[..., str], tmp_path: Path
) -> None:
    grid = oblique_grid((13, 12, 11), seed=2).reorient("LAS")
    explanation = peaked(build, grid, 1e-9)
    document = opened(write_report(explanation, tmp_path / "report.html"))
    assert body_state(document) == "ready"
    said = readout(document)
    end = 1e-9  # one voxel in a thousand lies beyond the limit, the peak is shown as the limit
    value = re.search(r"a = (−?)([\d.]+) × 10⁻(\S+)", said)
    assert value, said
    power = int(value[3].translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")))
    assert not value[1]
    assert float(value[2]) * 10.0**-power <= end * 1.001
    assert float(value[2]) * 10.0**-power > 0.02e-9  # far above the noise around the peak
    x, y, z = grid.to_world((3, 4, 5))
    sides = [("R" if x >= 0 else "L", x), ("A" if y >= 0 else "P", y), ("S" if z >= 0 else "I", z)]
    for letter, mm in sides:
        assert f"{letter} {abs(mm):.1f}" in said
    assert "prediction: liver" in said
    assert "ct 7" in said
    assert said.endswith("or beyond")  # the one peak is above the limit of the colours


def test_reader_chooses_target_labels_scale_and_order(
    build: Build, opened: Callable[..., str], tmp_path: Path
) -> None:
    explanation = peaked(build, oblique_grid((13, 12, 11)), 3.0)
    script = """
      const change = (id, value, kind = "change") => {
        const element = document.getElementById(id);
        element.value = value;
        element.dispatchEvent(new Event(kind));
      };
      const wait = setInterval(() => {
        if (document.body.dataset.viewer !== "ready") return;
        clearInterval(wait);
        change("labels", "0");
        change("view", "4");
        change("target", "1");
        change("threshold", "50", "input");
        document.querySelector(".is-shown .bars th[data-sort=text]").click();
      }, 50);
    """
    document = opened(write_report(explanation, tmp_path / "report.html"), script=script)
    assert body_state(document) == "ready"
    said = readout(document)
    assert "prediction: spleen" in said
    assert "a = −" in said
    (article,) = re.findall(r'<article class="target is-shown".*?</article>', document, re.DOTALL)
    assert "<h3>spleen</h3>" in article
    assert re.findall(r'<th scope="row">(\w+)', article) == ["background", "liver", "spleen"]


def test_without_webgl_the_static_planes_stand_in(
    build: Build, opened: Callable[..., str], tmp_path: Path
) -> None:
    document = opened(write_report(build(), tmp_path / "report.html"), flags=NO_GL)
    assert body_state(document) == "static"
    assert len(re.findall(r"<article", document)) == 2


def test_broken_data_fails_in_words(
    build: Build, opened: Callable[..., str], tmp_path: Path
) -> None:
    path = write_report(build(), tmp_path / "report.html")
    broken = re.sub(r'(id="layer-image">)[^<]*', r"\1bm90IGEgbmlmdGk=", path.read_text("utf-8"))
    path.write_text(broken, "utf-8")
    document = opened(path)
    assert body_state(document).startswith("failed (")


def test_no_name_runs_in_the_browser(
    build: Build, opened: Callable[..., str], tmp_path: Path
) -> None:
    hack = "document.title='hacked'"
    nasty = f'<script>{hack}</script>"\'</script><img src=x onerror="{hack}">'
    explanation = build(names={1: nasty, 2: "spleen"}, case=nasty)
    path = write_report(explanation, tmp_path / "report.html")
    document = opened(path, script="void 0")  # with the policy lifted: escaping alone must hold
    assert body_state(document) == "ready"
    title = re.search(r"<title>(.*?)</title>", document, flags=re.DOTALL)
    assert title
    assert "explained for net" in title[1]
    assert len(re.findall("<img", document)) == 7
