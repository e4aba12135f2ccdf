"""The page of lesions: all numbers, one scale, names that stay text, a viewer that jumps."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from voxplain.errors import ImageError, OutputError
from voxplain.records.attribution import Attribution
from voxplain.records.finding import finding
from voxplain.records.lesion_tables import INSTANCES, SALIENCY, SHELLS, LesionResult
from voxplain.records.provenance import Cost, Provenance
from voxplain.report import html
from voxplain.report.lesion_planes import Scene, colour_end, lesion_planes, map_place
from voxplain.report.lesion_plots import peak_boxes, shell_lines
from voxplain.report.lesion_rows import lesion_rows, pictured, strongest
from voxplain.report.lesion_types import in_order, style
from voxplain.report.lesion_volumes import lesion_viewer
from voxplain.report.lesions import write_lesion_report
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.testing.phantoms import oblique_grid

NASTY = "<script>alert(1)</script>"
EDGES = (0.0, 2.0, 4.0, 6.0)
needs_viewer = pytest.mark.skipif(
    html.viewer_script() is None, reason="the viewer is not there; run tools/fetch_viewer.py"
)


def make(
    *,
    types: Sequence[str] = ("TP", "TP", "FP", "FN", "TN"),
    grid: Grid | None = None,
    channels: tuple[str, ...] = ("FLAIR", "MPRAGE"),
    methods: tuple[str, ...] = ("saliency_max",),
    case: str = "patient 7",
    seed: int = 0,
    keep: int | None = None,
    strength: Sequence[float] | None = None,
) -> LesionResult:
    """Ellipsoids at random places; maps positive inside, negative around, largest in the first."""
    rng = np.random.default_rng(seed)
    grid = oblique_grid((26, 32, 22), (1.1, 0.9, 1.7)) if grid is None else grid
    rank, spacing = grid.rank, np.asarray(grid.spacing)
    places = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    head = (((places / (np.asarray(grid.shape) - 1) - 0.5) / 0.45) ** 2).sum(axis=-1) < 1
    image = np.stack([head * (1 + rng.normal(0, 0.05, grid.shape)) for _ in channels])
    layers = [np.zeros(grid.shape, np.uint16)]
    provenance = Provenance(
        "net", "ab" * 32, case, "cd" * 32, "+".join(methods), {"threshold": 0.3}, 5,
        Cost(120, 480, 75.0, 1_500_000_000), {"voxplain": "0.1.0"}, "2026-01-02T03:04:05+00:00",
    )  # fmt: skip
    counts: dict[str, int] = {}
    rows, saliency, shells, maps, names = [], [], [], {}, {}
    for i, kind in enumerate(types):
        letter = {"FN": "T", "TN": "C"}.get(kind, "P")
        counts[letter] = counts.get(letter, 0) + 1
        names[i + 1] = name = f"{letter}{counts[letter]}"
        size = 2.6 * spacing.max() * max(0.45, 1 - i / max(8, len(types)))
        for _ in range(200):
            centre = rng.uniform(0.25, 0.75, rank) * (np.asarray(grid.shape) - 1)
            distance = np.linalg.norm((places - centre) * spacing, axis=-1)
            inside = distance <= size
            free = next((one for one in layers if not one[inside].any()), None)
            if inside.any() and free is not None:
                break
        else:
            free = np.zeros(grid.shape, np.uint16)
            layers.append(free)
        free[inside] = i + 1
        image[0][inside] += 1.5
        start = np.maximum(np.argwhere(inside).min(0) - 5, 0)
        stop = np.minimum(np.argwhere(inside).max(0) + 6, grid.shape)
        index = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        centroid = [*grid.to_world(np.argwhere(inside)).mean(axis=0), 0.0][:3]
        p = float(rng.uniform(0.4, 0.95)) if kind in ("TP", "FP") else float(rng.uniform(0, 0.3))
        rows.append(
            (case, case, "net", name, kind, "lesion", int(inside.sum()),
             inside.sum() * grid.voxel_mm3, *centroid, p, min(1.0, p + 0.04), 1.0,
             math.nan if kind in ("TN", "lesion") else 0.5, "T1;T2" if kind == "TP" else "",
             i == 0, 2)
        )  # fmt: skip
        factor = strength[i] if strength is not None else {"TP": 3.0, "FP": 1.2}.get(kind, 0.6)
        for method in methods:
            shape = np.exp(-((distance / size) ** 2)) - 0.45 * np.exp(
                -(((distance - 1.8 * size) / size) ** 2)
            )
            weights = np.array([1.0, 0.15, 0.1, 0.1][: len(channels)])
            values = factor * weights.reshape(-1, *[1] * rank) * shape
            values = values + rng.normal(0, 0.02, values.shape)
            cut = np.ascontiguousarray(values[(slice(None), *index)])
            if keep is None or i < keep:
                maps[name, method] = Attribution(
                    cut, grid.crop(start.tolist(), (stop - start).tolist()), channels,
                    "sensitivity", "logit per intensity", name, 1.0, None, provenance,
                )  # fmt: skip
            total = np.abs(cut).sum()
            for c, one in zip(channels, cut, strict=True):
                saliency.append(
                    (case, "net", name, method, c, "logit per intensity", max(0, one.max()),
                     min(0, one.min()), one[inside[index]].mean(), np.abs(one).sum() / total, 0.0,
                     -0.4)
                )  # fmt: skip
            beyond = distance - size
            for low, high in [(0.0, 0.0), *itertools.pairwise(EDGES)]:
                chosen = inside if high == 0 else (beyond > low) & (beyond <= high) & ~inside
                for c, one in zip(channels, values, strict=True):
                    part = one[chosen]
                    shells.append(
                        (case, "net", name, method, c, low, high, len(part),
                         part.mean() if len(part) else math.nan, 0.0, 0.0)
                    )  # fmt: skip
    return LesionResult(
        instances=pd.DataFrame(rows, columns=INSTANCES),
        saliency=pd.DataFrame(saliency, columns=SALIENCY),
        shells=pd.DataFrame(shells, columns=SHELLS),
        lesions=LabelMap(np.stack(layers), grid, names),
        maps=maps,
        image=Volume(image, grid, channels, case),
        provenance=provenance,
    )


def write(result: LesionResult, folder: Path, **options: Any) -> str:
    path = write_lesion_report(result, folder / "report.html", **options)
    assert path == folder / "report.html"
    return path.read_text("utf-8")


def text_of(source: str) -> str:
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", source, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def viewer_data(source: str) -> dict[str, Any]:
    found = re.search(r'id="page-data">(.*?)</script>', source, flags=re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")


def test_table_holds_every_lesion_and_number(tmp_path: Path) -> None:
    result = make(methods=("saliency_max", "layer_cam"))
    source = write(result, tmp_path)
    rows = re.findall(r'<tr data-lesion="(\d+)".*?</tr>', source, flags=re.DOTALL)
    assert rows == ["0", "1", "2", "3", "4"]
    for i, row in enumerate(result.instances.to_dict("records")):
        found = re.search(rf'<tr data-lesion="{i}".*?</tr>', source, flags=re.DOTALL)
        assert found
        values = [float(v) for v in re.findall(r'data-v="([^"]+)"', found[0])]
        own = result.saliency[result.saliency["instance"] == row["instance"]]
        features = own[["peak_positive", "peak_negative", "share"]].to_numpy().ravel()
        expected = [row["volume_mm3"], row["probability_mean"], row["overlap"], *features]
        assert values == pytest.approx(expected, rel=1e-12, nan_ok=True)
        assert f'<span class="badge" style="background:{style(row["type"]).colour}"' in found[0]
        assert f">{row['instance']}</th>" in found[0]
        place = re.sub(r"[\u2002\u00a0]", " ", found[0])
        for axis, ends in zip("xyz", ("LR", "PA", "IS"), strict=True):
            mm = row[f"{axis}_mm"]
            assert f"{ends[0] if mm < 0 else ends[1]} {abs(mm):.1f}" in place
    assert len(re.findall(r'<th data-sort="number" data-method="0"', source)) == 6
    text = text_of(source)
    assert "true positive, 2" in text
    assert "missed (false negative), 1" in text
    assert "planes follow the image's axes" in text.replace("&#39;", "'")


def test_page_reaches_for_nothing_and_names_its_scripts(tmp_path: Path) -> None:
    source = write(make(), tmp_path)
    assert not re.findall(r"https?://", source)
    assert not re.findall(r'(?:src|href)="(?!data:)', source.split("</main>")[0])
    scripts = re.findall(r"<script>(.*?)</script>", source, flags=re.DOTALL)
    assert any("lesions-table" in script for script in scripts)
    assert f'content="{html._policy(scripts)}"' in source


@pytest.fixture(scope="module")
def plain_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(make(), tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("where", ["case", "channel", "instance", "partner"])
def test_no_name_becomes_markup(where: str, plain_page: str, tmp_path: Path) -> None:
    nasty = NASTY + "\"'--></style>&amp;{{ 7*7 }}$x$"
    result = make(
        case=nasty if where == "case" else "patient 7",
        channels=(nasty, "MPRAGE") if where == "channel" else ("FLAIR", "MPRAGE"),
    )
    if where == "instance":
        for name in ("instances", "saliency", "shells"):
            table = getattr(result, name)
            table["instance"] = table["instance"].replace("P1", nasty)
        names = {**result.lesions.names, 1: nasty}
        result = replace(
            result,
            lesions=LabelMap(result.lesions.layers, result.lesions.grid, names),
            maps={(nasty if n == "P1" else n, m): one for (n, m), one in result.maps.items()},
        )
    if where == "partner":
        result.instances["partners"] = nasty
    before, after = plain_page, write(result, tmp_path)
    for tag in ("<script", "<style", "<article", "</style", "<img"):
        assert after.count(tag) == before.count(tag)
    assert "&lt;script&gt;alert(1)" in after
    assert "{{ 7*7 }}" in after


def test_one_scale_for_all_lesions() -> None:
    """The same map scaled by 1/2 is drawn half as strong, not stretched to full colours."""
    result = make(types=("TP",) * 4, strength=(4.0, 4.0, 4.0, 1.0), seed=3)
    peaks = strongest(result, "saliency_max")
    end = colour_end(peaks)
    assert end == pytest.approx(peaks.max(), rel=0.06)
    rows = lesion_rows(result, {"saliency_max": end})
    strengths = [int(row["numbers"][0][0]["cells"][0][1 + 1].split("/ ")[1].rstrip("%)"))
                 for row in rows]  # fmt: skip
    expected = [round(60 * min(1, p / end)) for p in result.saliency["peak_positive"][::2]]
    assert strengths == expected
    assert strengths[3] < 0.35 * strengths[0]


def test_end_of_the_colours() -> None:
    assert colour_end(pd.Series([0.0, 0.0])) == 0.0
    assert colour_end(pd.Series([math.nan])) == 0.0
    assert colour_end(pd.Series([*[1.231] * 19, 1e6])) == 1.3  # one extreme lesion changes nothing
    assert colour_end(pd.Series([2e-7])) == 2e-7


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SRA"])
def test_planes_show_map_and_lesion_where_they_are(orientation: str) -> None:
    grid = oblique_grid((15, 19, 13), (1.0, 1.4, 2.0), seed=5).reorient(orientation)
    labels = np.zeros(grid.shape, np.uint8)
    at = (4, 12, 7)
    labels[at] = 1
    result = make(grid=grid, types=("TP",))
    start = (2, 9, 5)
    values = np.zeros((2, 5, 5, 5))
    values[(1, *np.subtract(at, start))] = -3.0  # only the second channel, only that voxel
    old = result.maps["P1", "saliency_max"]
    result = replace(
        result,
        lesions=LabelMap.of(labels, grid, {1: "P1"}),
        maps={("P1", "saliency_max"): replace(old, values=values, grid=grid.crop(start, (5,) * 3))},
        image=Volume(np.zeros((2, *grid.shape)), grid, ("FLAIR", "MPRAGE"), "x"),
    )
    assert result.image is not None
    scene = Scene(result, result.image)
    assert map_place(result.maps["P1", "saliency_max"], grid).start == start
    assert scene.middle(1) == at
    drawn, titles = lesion_planes(scene, 1, "saliency_max", 3.0)
    assert [t.split(",")[0] for t in titles] == ["axial", "coronal", "sagittal"]
    pixels = np.asarray(decoded(drawn.uri)).astype(int)
    panel, gap = 200, 6
    for row in range(3):
        blue = []
        for column in range(4):
            part = pixels[row * (panel + gap) :][:panel, column * (panel + gap) :][:, :panel]
            blue.append(((part[..., 2] > part[..., 0] + 60) & (part[..., 1] < 240)).sum())
        # drawn in the fourth column alone: the map of the second channel
        assert blue[3] > 5
        assert max(blue[:3]) < 0.3 * blue[3]
        part = pixels[row * (panel + gap) :][:panel, 3 * (panel + gap) :]
        where = np.argwhere(part[..., 2] > part[..., 0] + 60).mean(axis=0)
        assert np.abs(where - panel / 2).max() < 12  # the lesion lies in the middle


def test_overlapping_lesions_keep_their_outlines() -> None:
    grid = Grid((12, 13, 14), np.eye(4))
    layers = np.zeros((2, *grid.shape), np.uint8)
    layers[0, 3:8, 3:8, 3:8], layers[1, 5:10, 5:10, 5:10] = 1, 2
    result = make(types=("TP", "FN"), grid=grid)
    result = replace(result, lesions=LabelMap(layers, grid, {1: "P1", 2: "T1"}), maps={})
    assert result.image is not None
    scene = Scene(result, result.image)
    assert scene.boxes[1].shape == scene.boxes[2].shape == (5, 5, 5)
    assert scene.middle(1) == (5, 5, 5)
    assert scene.middle(2) == (7, 7, 7)


def test_pictured_are_one_of_each_type_then_the_largest() -> None:
    rows = [{"type": "TP", "volume": 10.0 - i} for i in range(6)]
    rows += [{"type": "FP", "volume": 0.5}, {"type": "FP", "volume": 0.7}]
    assert pictured(rows, 4) == [0, 7, 1, 2]
    assert sorted(pictured(rows, 99)) == list(range(8))


def test_many_lesions_stay_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxplain.report.lesions.N_PICTURED", 3)
    source = write(make(types=("TP",) * 5 + ("FP",)), tmp_path)
    assert "3 of 6 lesions have pictures" in text_of(source)
    assert source.count("<tr data-lesion=") == 6
    assert source.count('class="sheet"') == 3
    assert source.count('class="target bare"') == 3


@needs_viewer
def test_viewer_knows_where_each_lesion_is(tmp_path: Path) -> None:
    result = make(methods=("saliency_max", "layer_cam"), keep=3)
    source = write(result, tmp_path)
    data = viewer_data(source)["viewer"]
    assert [one["name"] for one in data["images"]] == ["FLAIR", "MPRAGE"]
    assert data["labels"][0]["names"] == ["none", *result.instances["instance"]]
    assert data["labels"][0]["colours"][2] == list(style("FP").rgb)
    centroids = result.instances[["x_mm", "y_mm", "z_mm"]].to_numpy()
    assert np.abs(np.asarray(data["focus"]) - centroids).max() < 1.7  # a voxel of the lesion
    kept = {(one["target"], one["method"], one["channel"]) for one in data["maps"]}
    assert kept == {(t, m, c) for t in range(3) for m in range(2) for c in range(2)}
    assert len({one["limit"] for one in data["maps"] if one["method"] == 0}) == 1
    for one in data["maps"]:
        assert f'<script type="text/plain" id="{one["id"]}">' in source
    assert "T1 · FN (no map kept)" in source
    assert "no map was kept for this lesion" in source


@needs_viewer
def test_viewer_drops_maps_before_it_grows(tmp_path: Path) -> None:
    result = make()
    assert result.image is not None
    scene = Scene(result, result.image)
    ends = {"saliency_max": 3.0}
    full = lesion_viewer(scene, range(5), ["saliency_max"], ends, 1e9)
    size = sum(len(one["text"]) for one in full["layers"])
    ground = sum(len(one["text"]) for one in full["layers"][:3])
    room = max(ground / 0.7 + 1, size - 10)
    small = lesion_viewer(scene, range(5), ["saliency_max"], ends, room)
    assert len(small["data"]["viewer"]["maps"]) < len(full["data"]["viewer"]["maps"])
    assert any("the maps of" in note for note in small["notes"])
    assert sum(len(one["text"]) for one in small["layers"]) <= room
    tiny = lesion_viewer(scene, range(5), ["saliency_max"], ends, 0.5 * ground)
    assert any("reduced over cubes of 2 × 2 × 2" in note for note in tiny["notes"])
    assert sum(len(one["text"]) for one in tiny["layers"]) <= 0.5 * ground
    source = write(result, tmp_path, max_mb=0.5)
    assert "the page would exceed 0.5 MB" in source


def test_findings_worst_first_and_unknown_truth(tmp_path: Path) -> None:
    result = replace(
        make(types=("lesion", "lesion")),
        findings=(finding("VX107", "tip", "a layer."), finding("VX101", "issue", "zero.")),
    )
    text = text_of(write(result, tmp_path))
    assert text.index("VX101") < text.index("VX107")
    assert "predicted, truth unknown, 2" in text
    assert "overlap" not in text.split("One lesion at a time")[1].split("Choose a lesion")[0]


def test_no_lesion(tmp_path: Path) -> None:
    text = text_of(write(make(types=()), tmp_path))
    assert "No lesion was found or given" in text


def test_two_dimensions_and_an_odd_number_of_channels(tmp_path: Path) -> None:
    grid = Grid((40, 56), np.diag([0.7, 0.9, 1.0]))
    source = write(make(grid=grid, types=("TP", "FP"), channels=("grey",)), tmp_path)
    assert "<canvas" not in source
    assert "rows and columns as in the file" in source
    assert source.count('class="sheet"') == 2
    with_one_map = make(channels=("a", "b", "c"))
    maps = {
        key: replace(one, values=one.values[:1], channels=("all",))
        for key, one in with_one_map.maps.items()
    }
    source = write(replace(with_one_map, maps=maps), tmp_path)
    assert "with map of all" in source  # one map for all channels lies over the first


def test_image_on_another_grid_is_said(tmp_path: Path) -> None:
    result = make()
    assert result.image is not None
    whole = result.image
    shifted = Volume(whole.data[:, 1:-1], whole.grid.crop((1, 0, 0), (24, 32, 22)),
                     whole.channels, "x")  # fmt: skip
    assert "shown on the model&#39;s grid" in write(replace(result, image=shifted), tmp_path)
    assert "shown on the model&#39;s grid" not in write(result, tmp_path)


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="loaded without its image"):
        write_lesion_report(replace(make(), image=None), tmp_path / "report.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_lesion_report(make(), tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_box_plot_table_is_the_quartiles() -> None:
    rng = np.random.default_rng(8)
    rows = pd.DataFrame(
        {
            "type": rng.choice(["FP", "TP", "new"], 60), "channel": rng.choice(["a$", "b"], 60),
            "peak_positive": rng.exponential(size=60), "peak_negative": -rng.exponential(size=60),
        }
    )  # fmt: skip
    rows.loc[3, "peak_positive"] = math.nan
    table = peak_boxes(rows, "logit").table
    assert list(dict.fromkeys(table["type"])) == ["TP", "FP", "new"]
    for row in table.itertuples():
        values = rows[(rows["type"] == row.type) & (rows["channel"] == row.channel)][row.feature]
        values = values.dropna()
        assert row.n == len(values)
        expected = values.quantile([0.25, 0.5, 0.75]).tolist()
        assert [row.lower_quartile, row.median, row.upper_quartile] == pytest.approx(expected)


def test_shell_table_is_the_mean_by_distance() -> None:
    result = make(types=("TP", "TP", "TP", "FP"))
    types = dict(zip(result.instances["instance"], result.instances["type"], strict=True))
    rows = result.shells.assign(type=result.shells["instance"].map(types))
    table = shell_lines(rows, "logit").table
    assert len(table) == 2 * 2 * 4
    one = table[(table["channel"] == "FLAIR") & (table["type"] == "TP") & (table["to_mm"] == 2)]
    chosen = rows[(rows["channel"] == "FLAIR") & (rows["type"] == "TP") & (rows["to_mm"] == 2)]
    assert one["n"].item() == 3
    assert one["mean"].item() == pytest.approx(chosen["mean"].mean())
    assert one["lower_quartile"].item() == pytest.approx(chosen["mean"].quantile(0.25))


def test_types_have_different_colours_in_one_order() -> None:
    assert in_order(["TN", "odd", "FP", "TP"]) == ["TP", "FP", "TN", "odd"]
    colours = [style(t).colour for t in ("TP", "US", "FP", "FN", "TN", "lesion", "odd")]
    assert len(set(colours)) == len(colours)
    assert style("FP").rgb == (0xD5, 0x5E, 0x00)


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
ACT = """
  const change = (id, value) => {
    const element = document.getElementById(id);
    element.value = value;
    element.dispatchEvent(new Event("change"));
  };
  const wait = setInterval(() => {
    if (document.body.dataset.viewer !== "ready") return;
    clearInterval(wait);
    DO
  }, 50);
"""


def opened(page: Path, folder: Path, do: str, *flags: str) -> str:
    """Document after a reader's hand, for which the page's policy is lifted."""
    text = page.read_text("utf-8")
    text = re.sub(r"script-src [^;]*;", "script-src 'unsafe-inline';", text, count=1)
    before, _, after = text.rpartition("</body>")
    script = f"<script>{ACT.replace('DO', do)}</script>"
    page.write_text(f"{before}{script}</body>{after}", "utf-8")
    done = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--use-gl=angle",
            "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-first-run",
            "--disable-background-networking", "--disable-dev-shm-usage",
            f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=15000",
            "--window-size=900,1000", *flags, page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.stdout


@needs_viewer
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_rows_and_arrow_keys_move_the_viewer(tmp_path: Path) -> None:
    result = make(methods=("saliency_max", "layer_cam"))
    page = write_lesion_report(result, tmp_path / "report.html")
    do = """
      change("channel", "1");
      change("method", "1");
      document.querySelectorAll("#lesions-table tbody tr")[1].click();
      document.querySelectorAll("#lesions-table th")[2].click(); // by size, largest first
      document.querySelector("tr[aria-current]").dispatchEvent(
        new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
    """
    document = opened(page, tmp_path, do, "--dump-dom")
    order = result.instances.sort_values("volume_mm3", ascending=False)["instance"].tolist()
    rows = re.findall(r"<tr data-lesion=.*?</tr>", document, flags=re.DOTALL)
    assert [re.search(r'row">(\w+)', row)[1] for row in rows] == order  # type: ignore[index]
    (chosen,) = [row for row in rows if "aria-current" in row.split(">")[0]]
    name = order[order.index("P2") + 1]
    assert f">{name}</th>" in chosen
    said = re.search(r'id="readout"[^>]*>(.*?)</p>', document, flags=re.DOTALL)
    assert said
    assert "MPRAGE" in said[1]
    assert f"lesion: {name}" in said[1]
    assert " a = " in said[1]
    (article,) = re.findall(r'<article class="target is-shown".*?</article>', document, re.DOTALL)
    assert re.findall(r'<figure class="sheet" data-method="(\d)"[^>]*hidden', article) == ["0"]


@needs_viewer
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_crosshair_of_an_oblique_image_lies_on_the_lesion(tmp_path: Path) -> None:
    grid = oblique_grid((40, 46, 36), (1.1, 0.9, 1.7), seed=3)
    result = make(grid=grid, types=("FP",), seed=4, channels=("FLAIR",))
    page = write_lesion_report(replace(result, maps={}), tmp_path / "report.html")
    picture = tmp_path / "page.png"
    do = """
      change("labels", "0");
      change("view", "0");
      document.getElementById("canvas").scrollIntoView();
    """
    opened(page, tmp_path, do, f"--screenshot={picture}")
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    red, green, blue = np.moveaxis(pixels, -1, 0)
    line = (green > red + 70) & (green > blue + 70)
    row, column = int(line.sum(axis=1).argmax()), int(line.sum(axis=0).argmax())
    assert line[row].sum() > 100
    assert line[:, column].sum() > 100
    lesion = (red > green + 40) & (green > blue + 20)  # the orange of a false positive
    near = lesion[row - 30 : row + 30, column - 30 : column + 30]
    assert near.mean() > 0.2
    middle = np.argwhere(near).mean(axis=0) - 30
    assert np.abs(middle).max() < 8
