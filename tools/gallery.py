"""Draw every attribution method on one synthetic and one real CT slice, for the documentation.

``python tools/gallery.py`` writes ``docs/assets/gallery-phantom.png`` (a crop of the demo's
patient with its small network) and ``docs/assets/gallery-ct.png`` (a crop of the CT in
``../shared/data`` with the network in ``../shared/models``; left out, with a word, where they are
not there). Methods come from the registry, so a new one has its panel without a change here; a
method that refuses the network has a panel that says why. Scenes and methods can be chosen:
``python tools/gallery.py ct --only rise --out /tmp``.
"""

from __future__ import annotations

import argparse
import io
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from voxplain.attribution import METHODS, ClassTarget, explain
from voxplain.attribution.methods import method_of
from voxplain.attribution.scores import Score
from voxplain.demo import demo_case, model_path
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.models import Model, load_model
from voxplain.models.parts import Parts
from voxplain.records import Explanation
from voxplain.regions import join
from voxplain.report.colours import GROUND, INK, diverging
from voxplain.report.drawing import MUTED, blank
from voxplain.report.scale import intensity_window, limit
from voxplain.report.wording import short
from voxplain.space import Box, LabelMap, Volume
from voxplain.space.plane import Plane
from voxplain.space.read import read_image, read_labels

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
ASSETS = ROOT / "docs" / "assets"

# cheap settings, where the defaults would take long; other methods have their defaults
_COPIES = {"n": "8"}
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "smoothgrad": _COPIES,
    "smoothgrad_squared": _COPIES,
    "vargrad": _COPIES,
    "gradient_quantile": {"n": "12"},
    "gradient_max": {"voxels": "12"},
    "smooth_ig": {"n": "3", "points": "3"},
    "smooth_ig_squared": {"n": "3", "points": "3"},
    "expected_gradients": _COPIES,
    "integrated_gradients": _COPIES,
    "blur_ig": _COPIES,
    "guided_ig": {"n": "10"},
    "xrai": _COPIES,
    "occlusion": {"size": "12"},
    "rise": {"n": "100"},
    "shapley": {"samples": "128"},
}
# a mean of scores of masked images: a logit's level, far below zero, would hide where it differs
SCORES: Mapping[str, Score] = {"rise": "probability"}
_KINDS = {"contribution": "#2f7d4f", "sensitivity": "#7a4fb0", "localisation": "#a8620a"}
_COLUMNS, _WIDE, _WORDS = 6, 2.0, 0.62  # panels a row; inches of a panel, and of the words below


@dataclass(frozen=True)
class Scene:
    """A case to draw: its model, image, regions for the games, target, and how methods differ."""

    title: str
    model: Model | Parts
    image: Volume
    regions: LabelMap
    target: str
    settings: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Panel:
    """What one method gave, or why it did not."""

    method: str
    found: Explanation | None
    refusal: str = ""


def phantom() -> Scene:
    """Set up the demo's network and a crop of its patient, around the heart."""
    image, labels = _crop(*demo_case(), Box((14, 2, 14), (90, 66, 46)))
    groups = {
        "lungs": ["lung_right", "lung_left", "trachea"],
        "heart": ["heart"],
        "aorta": ["aorta"],
        "bones": ["vertebrae", "ribs", "sternum", "scapulae"],
        "abdomen": ["liver", "spleen", "stomach"],
    }
    owen = {"groups": "mediastinum=heart+aorta,trunk=lungs+bones"}
    return Scene(
        "synthetic patient, target: mean logit of heart", load_model(model_path()), image,
        join(labels, groups), "heart", {"owen": owen},
    )  # fmt: skip


def ct() -> Scene | None:
    """Set up a crop of a real CT with a trained network; None where the files are not there."""
    folder, model = SHARED / "data" / "ct_thorax_abdomen", SHARED / "models" / "ct16_unet"
    if not (folder.is_dir() and model.is_dir()):
        return None
    image = read_image(folder / "ct.nii.gz")
    labels = read_labels(folder / "segmentation.nii.gz")
    box = Box((8, 8, 48), (104, 88, 112))
    image, labels = _crop(image, labels, box)
    starts = {
        "kidneys": ("kidney",),
        "liver": ("liver",),
        "spleen": ("spleen",),
        "bowel": ("stomach", "small_bowel", "duodenum", "colon"),
        "bones": ("vertebrae", "rib_", "sacrum", "hip"),
        "muscles": ("autochthon", "iliopsoas", "gluteus"),
    }
    groups = {
        group: [n for n in labels.region_names if n.startswith(words)]
        for group, words in starts.items()
    }
    owen = {"groups": "organs=kidneys+liver+spleen,frame=bones+muscles"}
    return Scene(
        "abdominal CT, target: mean logit of kidney_left", load_model(model), image,
        join(labels, groups), "kidney_left", {"owen": owen},
    )  # fmt: skip


def _crop(image: Volume, labels: LabelMap, box: Box) -> tuple[Volume, LabelMap]:
    grid = image.grid.crop(box.start, box.shape)
    layers = labels.layers[(slice(None), *box.slices)]
    data = image.data[(slice(None), *box.slices)]
    return image.with_data(data, grid), LabelMap(layers, grid, labels.names)


def panels_of(scene: Scene, names: Sequence[str]) -> list[Panel]:
    """Run methods on a scene."""
    panels = []
    for name in names:
        target = ClassTarget(scene.target, score=SCORES.get(name, "logit"), reduction="mean")
        method = method_of(name, {**SETTINGS.get(name, {}), **scene.settings.get(name, {})})
        start = time.perf_counter()
        try:
            found = explain(
                scene.model, scene.image, target, method, regions=scene.regions,
                compute=Compute("cpu"), keep=True,
            )  # fmt: skip
            panels.append(Panel(name, found))
        except MethodError as error:
            panels.append(Panel(name, None, str(error)))
        print(f"{name:24} {time.perf_counter() - start:6.1f} s", flush=True)
    return panels


def draw(scene: Scene, panels: Sequence[Panel]) -> bytes:
    """Draw the image and every panel into one PNG file of at most 256 colours."""
    labels = next(p.found.prediction for p in panels if p.found and p.found.prediction)
    mask = labels.mask(scene.target)
    middle = int(mask.sum(axis=(0, 1)).argmax())
    plane = Plane("axial", scene.image.grid, (0, 0, middle))
    height, width = plane.size_mm
    n_rows = -(-(len(panels) + 1) // _COLUMNS)
    high = _WIDE * height / width
    pitch = high + _WORDS + 0.28
    figure = blank(_COLUMNS * (_WIDE + 0.1) + 0.1, n_rows * pitch + 0.4)
    wide, tall = figure.get_size_inches()
    figure.text(0.1 / wide, 1 - 0.24 / tall, scene.title, fontsize=11, color=INK)
    for place in range(len(panels) + 1):
        row, column = divmod(place, _COLUMNS)
        left, top = 0.1 + column * (_WIDE + 0.1), 0.6 + row * pitch
        axes = figure.add_axes((left / wide, 1 - (top + high) / tall, _WIDE / wide, high / tall))
        _ground(axes, scene.image, plane)
        if place == 0:
            title, lines = "image", [("", f"{scene.target} as predicted: outlined")]
            extent = np.linspace(0, width, plane.take(mask).shape[1])
            down = np.linspace(0, height, plane.take(mask).shape[0])
            axes.contour(
                extent, down, plane.take(mask).astype(float), [0.5], colors="#62e36a", linewidths=1
            )
        else:
            title, lines = panels[place - 1].method, _map(axes, panels[place - 1], scene, plane)
        axes.set_title(title, loc="left", fontsize=8.5, color=INK, pad=3)
        for i, (colour, line) in enumerate(lines):
            figure.text(
                left / wide, 1 - (top + high + 0.14 + 0.145 * i) / tall, line, fontsize=6.8,
                color=colour or MUTED, parse_math=False,
            )  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return _reduced(buffer.getvalue())


def _ground(axes: Axes, image: Volume, plane: Plane) -> None:
    black, white = intensity_window(image)
    height, width = plane.size_mm
    axes.imshow(
        plane.take(image.data[0]), cmap="gray", vmin=black, vmax=white,
        extent=(0, width, height, 0), interpolation="bilinear",
    )  # fmt: skip
    axes.set_facecolor(GROUND)
    axes.set_axis_off()


def _map(axes: Axes, panel: Panel, scene: Scene, plane: Plane) -> list[tuple[str, str]]:
    """Draw one map over the image; the lines below it, each with its colour."""
    if panel.found is None:
        words = textwrap.fill(panel.refusal, 38, max_lines=7)
        axes.text(
            0.04, 0.96, words, transform=axes.transAxes, va="top", fontsize=6.2, color="white",
            bbox={"facecolor": "black", "alpha": 0.6, "linewidth": 0}, parse_math=False,
        )  # fmt: skip
        return [("", "does not apply to this network")]
    (attribution,) = panel.found.attributions.values()
    values = attribution.flat()
    # the scale of what is seen, for most of a map may lie in other slices
    shown = plane.take(values)
    end = limit(shown)
    height, width = plane.size_mm
    colours = diverging(shown, end)
    colours[..., 3] *= 0.85
    axes.imshow(colours, extent=(0, width, height, 0), interpolation="nearest")
    cost = panel.found.provenance.cost
    if not end:
        scale = "zero everywhere in this slice"
    elif values.min() < 0:
        scale = f"−{short(end)} (blue) to {short(end)} (orange)"
    else:
        scale = f"0 to {short(end)} (orange)"
    return [
        (_KINDS[attribution.kind], attribution.kind),
        ("", f"{cost.n_forward} forward, {cost.n_backward} backward"),
        ("", scale),
        ("", attribution.unit),
    ]


def _reduced(png: bytes) -> bytes:
    pixels = Image.open(io.BytesIO(png)).convert("RGB")
    buffer = io.BytesIO()
    # the palette of the largest coverage keeps thin lines and words in their colours
    few = pixels.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    """Draw the scenes asked for."""
    makers = {"phantom": phantom, "ct": ct}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", nargs="*", help=f"of {', '.join(makers)}; default all")
    parser.add_argument("--only", nargs="*", choices=list(METHODS), help="methods; default all")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder for the pictures")
    asked = parser.parse_args()
    for name in asked.scenes or makers:
        scene = makers[name]()
        if scene is None:
            print(f"{name}: left out, {SHARED} does not hold its image and model")
            continue
        print(f"{name}: {scene.title}")
        picture = draw(scene, panels_of(scene, asked.only or list(METHODS)))
        path = asked.out / f"gallery-{name}.png"
        path.write_bytes(picture)
        print(f"{path}: {len(picture) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
