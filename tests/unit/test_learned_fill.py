"""A learned fill: values, orientation, independence, and where it can be asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from voxplain.assess.fill_agreement import PAIRS, fill_pairs
from voxplain.assess.method_words import text_of
from voxplain.assess.settings import AssessSettings
from voxplain.attribution import (
    Ablation,
    Blurred,
    ClassTarget,
    Everywhere,
    Gradient,
    Inpainted,
    InputXGradient,
    MeanImage,
    Occlusion,
    Shapley,
    explain,
)
from voxplain.attribution import learned_fill as module
from voxplain.attribution.ask import ask
from voxplain.attribution.fills import PartFill, fill_for
from voxplain.attribution.learned_fill import LearnedInpainting
from voxplain.attribution.method import settings_of
from voxplain.attribution.methods import baseline_of
from voxplain.attribution.players import players_of
from voxplain.attribution.words import methods_of
from voxplain.counterfactual.generator_config import InpaintMaskConfig
from voxplain.counterfactual.inpaint_mask import InpaintMaskGenerator, write_inpainter
from voxplain.errors import MethodError, ModelError, TrustError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.lesions.case import LesionSettings, open_case
from voxplain.lesions.context import context
from voxplain.lesions.context_inputs import Amount, ContextFill, Surroundings, fill_name
from voxplain.regions.distances import dilate_mm
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.testing.models import Linear, SmallNet, describe
from voxplain.testing.phantoms import labels, oblique_grid, volume

LOW, HIGH = -2.0, 8.0
DOUBLE = Compute(precision="float64")
GRID = oblique_grid((7, 9, 8), (0.7, 1.1, 2.3))
FLAT = oblique_grid((11, 9), (0.7, 1.1))
ALL = ClassTarget("class_1", Everywhere(), score="logit")


def write(folder: Path, network: nn.Module, target: str, arguments: dict, **about) -> Path:  # type: ignore[no-untyped-def,type-arg]
    folder.mkdir(parents=True)
    state = {k: v.contiguous() for k, v in network.state_dict().items()}
    save_file(state, folder / "weights.safetensors")
    known = {
        "target": target, "arguments": arguments, "plane": "axial", "low": LOW, "high": HIGH,
        "multiple": 16, "name": "made up", **about,
    }  # fmt: skip
    (folder / "inpainter.json").write_text(json.dumps(known))
    return folder


def conv(folder: Path, weight, bias: float, **about) -> LearnedInpainting:  # type: ignore[no-untyped-def]
    """r = tanh(Σ w·[(1 − h)x, h] + b), by hand; weight (2, side, side)."""
    weight = torch.tensor(weight, dtype=torch.float32)[None]
    side = weight.shape[-1]
    arguments = {"in_channels": 2, "out_channels": 1, "kernel_size": side, "padding": side // 2}
    network = nn.Conv2d(**arguments)
    network.load_state_dict({"weight": weight, "bias": torch.tensor([bias])})
    return LearnedInpainting(write(folder, network, "torch.nn.Conv2d", arguments, **about))


def constant(folder: Path, value: float, **about) -> LearnedInpainting:  # type: ignore[no-untyped-def]
    """Fills with `value`: half of it by the bias, half by h = 1 in the hole."""
    half = float(np.arctanh(2 * (value - LOW) / (HIGH - LOW) - 1)) / 2
    return conv(folder, [[[0.0]], [[half]]], half, **about)


def unet(folder: Path, **about) -> LearnedInpainting:  # type: ignore[no-untyped-def]
    """Random weights, as a training writes them."""
    torch.manual_seed(3)
    config = InpaintMaskConfig(width=4)
    preparation = {"plane": "sagittal", "low": LOW, "high": HIGH, "pixel_mm": None,
                   "size": (16, 32), **about}  # fmt: skip
    write_inpainter(InpaintMaskGenerator(config), config, folder, preparation, "run")
    return LearnedInpainting(folder)


def part_of(shape) -> np.ndarray:  # type: ignore[no-untyped-def,type-arg]
    part = np.zeros(shape, bool)
    part[tuple(slice(n // 3, n // 3 + 3) for n in shape)] = True
    part.flat[0] = True
    return part


# -- values ---------------------------------------------------------------------------
@pytest.mark.parametrize("grid", [GRID, FLAT])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_network_fills_with_its_constant(tmp_path, grid, plane, dtype):
    fill = constant(tmp_path / "net", 5.5, plane=plane)
    values, part = volume(grid).data[0].astype(dtype), part_of(grid.shape)
    filled = fill.around(values, part, grid)
    assert filled.dtype == dtype
    np.testing.assert_allclose(filled[part], 5.5, rtol=1e-6)
    np.testing.assert_array_equal(filled[~part], values[~part])
    hidden = np.where(part, 1e4, values).astype(dtype)
    np.testing.assert_array_equal(fill.around(hidden, part, grid)[part], filled[part])
    with pytest.raises(MethodError, match="no surroundings"):
        fill.around(values, np.ones_like(part), grid)


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "SRA", "AIL", "IPR"])
@pytest.mark.parametrize(
    ("plane", "up", "left"),
    [("axial", "A", "R"), ("coronal", "S", "R"), ("sagittal", "S", "A")],
)
@pytest.mark.parametrize("which", ["up", "left"])
def test_slices_are_upright_on_any_grid(tmp_path, orientation, plane, up, left, which):
    """A network that repeats the pixel above (to the left) repeats the voxel that lies there."""
    kernel = np.zeros((2, 3, 3))
    kernel[(0, 0, 1) if which == "up" else (0, 1, 0)] = 1.0
    fill = conv(tmp_path / "net", kernel, 0.0, plane=plane)
    grid = oblique_grid((7, 9, 8), (0.7, 1.1, 2.3)).reorient(orientation)
    values = np.random.default_rng(1).uniform(-3, 9, grid.shape).astype(np.float32)
    part = np.zeros(grid.shape, bool)
    at = (3, 4, 4)
    part[at] = True
    letter = up if which == "up" else left
    opposite = dict(zip("RLAPSI", "LRPAIS", strict=True))
    axis = next(i for i, c in enumerate(grid.orientation) if c in (letter, opposite[letter]))
    beside = list(at)
    beside[axis] += 1 if grid.orientation[axis] == letter else -1
    x = np.clip(2 * (values[tuple(beside)] - LOW) / (HIGH - LOW) - 1, -1, 1)
    expected = LOW + (np.tanh(x) + 1) / 2 * (HIGH - LOW)
    assert fill.around(values, part, grid)[at] == pytest.approx(expected, rel=1e-5)


def test_the_edge_is_repeated_where_a_slice_is_padded(tmp_path):
    kernel = np.zeros((2, 3, 3))
    kernel[0, 2, 1] = 1.0  # from below
    fill = conv(tmp_path / "net", kernel, 0.0)
    values, part = np.full((11, 9), 3.0), np.zeros((11, 9), bool)
    values[-1, 4] = 6.0
    part[-1, 5] = True
    # below a hole in the last row is the hole itself, again
    assert fill.around(values, part, FLAT)[-1, 5] == pytest.approx(LOW + (HIGH - LOW) / 2, rel=1e-6)


def test_results_do_not_depend_on_the_batch_and_equal_single_slices(tmp_path, monkeypatch):
    fill = unet(tmp_path / "net")
    image, part = volume(GRID, seed=2), part_of(GRID.shape)
    found = []
    for batch in (1, 2, 50):
        monkeypatch.setattr(module, "_BATCH", batch)
        found.append(fill.around(image.data[0], part, GRID))
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    np.testing.assert_allclose(found[0], found[2], atol=1e-5)
    # the network called by hand: slices along the first axis, superior up, anterior left, in the
    # middle of a picture of (16, 32), air around; the hole's edge is soft outside of it
    assert fill.about.edge_px == 0.5
    scaled = np.clip(2 * (image.data[0] - LOW) / (HIGH - LOW) - 1, -1, 1)
    for i in np.flatnonzero(part.any(axis=(1, 2))):
        x, hole = (a[i].T[::-1, ::-1].astype(np.float32) for a in (scaled, part))
        soft = hole.copy()
        for at in np.argwhere(hole == 0):
            d = np.linalg.norm(np.argwhere(hole) - at, axis=1).min()
            soft[tuple(at)] = 1 / (1 + np.exp(3 * d - 3.75))
        seen = np.zeros((1, 2, 16, 32), np.float32)
        seen[0, 0] = -1
        seen[0, :, 4:12, 11:20] = (1 - soft) * x, soft
        with torch.no_grad():
            r = fill.network(torch.from_numpy(seen))[0, 0, 4:12, 11:20].tanh().numpy()
        own = (LOW + (r + 1) / 2 * (HIGH - LOW))[::-1, ::-1].T
        np.testing.assert_allclose(found[0][i][part[i]], own[part[i]], atol=1e-5)
    assert np.ptp(found[0][part]) > 1e-3


def test_slices_without_the_part_are_not_run(tmp_path, monkeypatch):
    fill = constant(tmp_path / "net", 1.0)
    n_run = []
    monkeypatch.setattr(
        LearnedInpainting, "_run", lambda self, x, h: n_run.append(len(x)) or np.zeros_like(x)
    )
    part = np.zeros(GRID.shape, bool)
    part[2, 3, 4] = part[5, 1, 6] = True
    fill.around(volume(GRID).data[0], part, GRID)
    assert sum(n_run) == 2
    box = Box((1, 2, 3), (3, 5, 6))
    assert fill.near(box, GRID) == Box((0, 0, 3), (7, 9, 6))
    assert fill.near(Box((1, 2), (3, 4)), FLAT) == Box.whole(FLAT.shape)


# -- in methods -----------------------------------------------------------------------
def pipeline_of(image, model):
    return open_pipeline(model, image, DOUBLE)


def test_shapley_values_of_a_linear_model(tmp_path):
    """φ of a region is w times Σ (x − c) over it, whatever else is absent."""
    image, regions = volume(GRID, seed=3), labels(GRID, 2, seed=4)
    model = describe(Linear([[0.0], [1.5], [0.0]]), window=(5, 6, 4))
    method = Shapley(fill=constant(tmp_path / "net", 0.25))
    result = explain(model, image, ALL, method, regions=regions, compute=DOUBLE)
    values = result.players.frame.set_index("player")["value"]
    for name in ("organ_1", "organ_2"):
        inside = image.data[0][regions.mask(name)].astype(np.float64)
        assert values[name] == pytest.approx(1.5 * (inside - 0.25).sum(), rel=1e-5)
    kept = result[ALL.name].provenance.parameters["fill"]
    assert kept == f"LearnedInpainting(made up, sha256={method.fill.sha256[:12]})"


def test_a_fill_does_not_depend_on_other_players(tmp_path):
    image, regions = volume(GRID, seed=3), labels(GRID, 2, seed=4)
    fill, model = unet(tmp_path / "net"), describe(SmallNet(3, seed=2), window=(4, 5, 6))
    found = []
    for known in (regions, LabelMap.from_masks({"organ_2": regions.mask("organ_2")}, GRID)):
        with pipeline_of(image, model) as pipeline:
            question = ask(pipeline, image, [ALL], known, seed=0)
            filled = fill_for(fill, question, players_of("regions", question))
            found.append(filled(pipeline.plan.inner())[0].numpy())
    inside = regions.mask("organ_2")
    np.testing.assert_array_equal(found[0][inside], found[1][inside])
    alone = fill.around(image.data[0], inside, GRID)
    np.testing.assert_allclose(found[0][inside], alone[inside], atol=1e-5)
    other = Volume(np.where(inside, image.data + 3, image.data), GRID)
    without = []
    for one in (image, other):
        result = explain(model, one, ALL, Ablation(fill=fill), regions=regions, compute=DOUBLE)
        lost = result.players.frame.set_index("player")["value"]["organ_2"]
        without.append(result.targets[0].score - lost)
    assert without[0] == pytest.approx(without[1], rel=1e-6)


@pytest.mark.parametrize("inpainted", [True, False])
@pytest.mark.parametrize("window", [(4, 5, 6), (2, 3, 2)])
def test_occlusion_inpaints_whole_boxes(tmp_path, inpainted, window):
    """Also where windows are smaller than the boxes, which overlap: each box is told apart."""
    image = volume(GRID, seed=3)
    fill: PartFill = Inpainted(2.0) if inpainted else unet(tmp_path / "net")
    model = describe(Linear([[0.0], [1.0], [0.0]]), window=window)
    result = explain(model, image, ALL, Occlusion(4, 2, fill=fill, paint="value"), compute=DOUBLE)
    values = image.data[0]
    expected, counts = np.zeros(GRID.shape), np.zeros(GRID.shape)
    for corner in np.ndindex(3, 4, 3):
        box = Box(tuple(2 * c for c in corner), tuple(2 * c + 4 for c in corner)).intersect(
            Box.whole(GRID.shape)
        )
        part = np.zeros(GRID.shape, bool)
        part[box.slices] = True
        lost = (values - fill.around(values, part, GRID))[part].sum(dtype=np.float64)
        expected[part] += lost
        counts[part] += 1
    np.testing.assert_allclose(result[ALL.name].values[0], expected / counts, rtol=1e-3, atol=1e-3)


def test_what_a_learned_fill_does_not_serve(tmp_path):
    fill = constant(tmp_path / "net", 0.25)
    image = volume(GRID, 2, seed=3)
    with pytest.raises(MethodError, match="learned on one channel, and the model takes 2"):
        explain(describe(SmallNet(3, 2), n_channels=2), image, ALL, Ablation(fill=fill))
    one = volume(GRID, seed=3)
    with pytest.raises(MethodError, match="removes no parts"):
        explain(describe(SmallNet(3)), one, ALL, InputXGradient(fill))
    with pytest.raises(MethodError, match="single voxels are removed"):
        AssessSettings(fill=fill)
    far = Volume(one.data * 100 + 400, GRID)
    for method in (Ablation(fill=fill), Occlusion(size=4, fill=fill)):
        with pytest.raises(MethodError, match=r"learned on intensities -2 to 8, and the image"):
            explain(describe(SmallNet(3)), far, ALL, method)
    fill.check(Volume(np.where(one.data > 1, one.data, 0), GRID))  # mostly background


@pytest.mark.parametrize(
    ("plane", "pixel"),
    [("axial", (1.0, 1.2)), ("coronal", (1.0, 1.4)), ("sagittal", (1.2, 1.4)), (None, (1.0, 1.2))],
)
@pytest.mark.parametrize("orientation", ["RAS", "SRA"])
def test_pixels_of_another_size_are_refused(tmp_path, plane, pixel, orientation):
    """Both sides of a pixel within 25 %, whichever axis of the array lies across the slices."""
    grid = oblique_grid((7, 9, 8), (1.0, 1.2, 1.4)).reorient(orientation)
    if plane is None:
        plane, grid = "axial", oblique_grid((11, 9), (1.0, 1.2))
    image, n_refused = volume(grid, seed=3), 0
    for pixel_mm in (0.5, 0.9, 0.97, 1.13, 1.24, 1.27, 1.48, 1.6, None):
        fill = constant(tmp_path / str(pixel_mm), 0.25, plane=plane, pixel_mm=pixel_mm)
        if pixel_mm is None or all(0.8 <= mm / pixel_mm <= 1.25 for mm in pixel):
            fill.check(image)
            continue
        n_refused += 1
        with pytest.raises(MethodError, match=rf"learned on pixels of {pixel_mm:g} mm, .*pixel_mm"):
            fill.check(image)
    assert n_refused == {"axial": 5, "coronal": 6, "sagittal": 4}[plane]
    far = Volume(image.data * 100 + 400, grid)
    with pytest.raises(MethodError, match=r"intensities -2 to 8(.|\n)*pixels of 9 mm"):
        constant(tmp_path / "far", 0.25, plane=plane, pixel_mm=9.0).check(far)


def test_a_spacing_that_is_no_length_is_refused(tmp_path):
    fill = constant(tmp_path / "net", 0.25, pixel_mm=-1.0)
    with pytest.raises(MethodError, match="does not describe an inpainting network"):
        fill.check(volume(GRID))


# -- words ----------------------------------------------------------------------------
def test_text_and_back(tmp_path):
    run = tmp_path / "generators" / "fill"
    constant(run / "inpainter", 0.25)
    fill = baseline_of(f"inpaint:{run}")
    assert isinstance(fill, LearnedInpainting)
    assert fill.place == run / "inpainter"
    assert baseline_of(fill.text) == fill
    assert baseline_of(fill_name(fill)) == fill
    assert baseline_of("inpaint:3") == Inpainted(3.0)
    (method,) = methods_of([f"shapley:fill={fill.text}"], "--methods").values()
    assert method == Shapley(fill=fill)
    assert text_of("x", method) == f"shapley:fill={fill.text}"
    same = LearnedInpainting(run / "inpainter")
    assert settings_of(method)["fill"] == str(same) == str(fill)
    other = constant(tmp_path / "other", 0.5)
    assert other.sha256 != fill.sha256
    assert str(other).startswith("LearnedInpainting(made up, sha256=")


def test_what_is_no_network(tmp_path):
    with pytest.raises(MethodError, match=r"inpaint:no-such: expected a width in mm, .* missing"):
        baseline_of("inpaint:no-such")
    fill = constant(tmp_path / "net", 0.25)
    known = json.loads((fill.place / "inpainter.json").read_text())
    image = volume(GRID)

    def opened(**about):
        (fill.place / "inpainter.json").write_text(json.dumps({**known, **about}))
        LearnedInpainting(fill.folder).around(image.data[0], part_of(GRID.shape), GRID)

    with pytest.raises(TrustError, match=r"os\.system"):
        opened(target="os.system", arguments={"command": "true"})
    with pytest.raises(ModelError, match="arguments do not fit"):
        opened(arguments={"wrong": 1})
    with pytest.raises(ModelError, match="weights do not fit"):
        opened(arguments={**known["arguments"], "kernel_size": 3})
    with pytest.raises(MethodError, match=r"inpainter\.json: does not describe"):
        opened(plane="oblique")
    with pytest.raises(MethodError, match="expected low < high, got 3 and 3"):
        opened(low=3, high=3)
    with pytest.raises(MethodError, match="should give one channel"):
        opened(arguments={**known["arguments"], "padding": 1})
    save_file(
        {"weight": torch.full((1, 2, 1, 1), torch.nan), "bias": torch.zeros(1)},
        fill.place / "weights.safetensors",
    )
    with pytest.raises(MethodError, match="gives NaN"):
        opened()


def test_loading_changes_no_random_state(tmp_path):
    fill = unet(tmp_path / "net")
    torch.manual_seed(11)
    before = torch.get_rng_state()
    assert not any(p.requires_grad for p in fill.network.parameters())
    assert torch.equal(torch.get_rng_state(), before)


# -- surroundings of lesions ----------------------------------------------------------
def lesion_case(grid: Grid, values):
    model = describe(
        Linear([[0.0], [1.0]], [0.0, -6.0]), rank=grid.rank, n_classes=2,
        window=(6, 7, 5)[: grid.rank],
    )  # fmt: skip
    within = LabelMap(np.ones((1, *grid.shape), np.uint8), grid, {1: "tissue"})
    return open_case(
        model, Volume(values[None].astype(np.float32), grid), within=within,
        settings=LesionSettings(class_name="class_1"), compute=DOUBLE,
    )  # fmt: skip


@pytest.mark.parametrize("grid", [oblique_grid((13, 11, 9)), oblique_grid((17, 14), (0.7, 1.1))])
def test_shells_around_lesions(tmp_path, grid):
    fill = conv(tmp_path / "net", [[[0.5]], [[0.0]]], 0.1, plane="coronal")
    learned = unet(tmp_path / "unet")
    values = np.random.default_rng(3).uniform(0, 5, grid.shape)
    at = tuple(n // 2 for n in grid.shape)
    other = (at[0] + 2, *at[1:])
    values[at], values[other] = 9.0, 8.0
    with lesion_case(grid, values) as case:
        lesion = next(one for one in case.lesions if one.box.start == at)
        own = lesion.on(grid.shape)
        near = dilate_mm(own, grid.spacing, 1.6)
        amount = Amount("remove", 1.6)
        for one in (fill, learned):
            around = Surroundings(case, lesion, ContextFill(case, one), [amount])
            removed = around.source(amount)(case.pipeline.plan.inner())[0].numpy()
            np.testing.assert_array_equal(removed[own], case.pipeline.image.data[0][own])
            np.testing.assert_array_equal(removed[~near], case.pipeline.image.data[0][~near])
            hole = near | (values > 6)
            expected = one.around(case.pipeline.image.data[0], hole, grid)
            np.testing.assert_allclose(removed[near & ~own], expected[near & ~own], atol=1e-5)
        frame = context(case, fill=fill, modes=("remove",), distances_mm=(1, 1.6))
        assert set(frame["fill"]) == {f"inpaint:{tmp_path / 'net'}"}
        assert frame["probability_mean"].notna().all()
        with pytest.raises(MethodError, match="nothing is left; take the mode remove"):
            context(case, fill=fill, modes=("keep",))
        with pytest.raises(MethodError, match="no healthy tissue is left"):
            context(case, fill=fill, modes=("remove",), distances_mm=(99,))


# -- agreement of fills ---------------------------------------------------------------
def test_pairs_of_fills(tmp_path):
    image, regions = volume(GRID, seed=3), labels(GRID, 3, seed=4)
    model = describe(SmallNet(3, seed=2), window=(4, 5, 6))
    fills = [MeanImage(), Blurred(3.0), Inpainted(2.0), unet(tmp_path / "net")]
    method = Ablation()
    with pipeline_of(image, model) as pipeline:
        question = ask(pipeline, image, [ALL], regions, seed=0)
        frame = fill_pairs(question, method, fills)
        assert tuple(frame.columns) == PAIRS
        assert len(frame) == 6
        assert frame["value"].between(-1, 1).all()
        assert list(frame["other_fill"][:3]) == ["blur:3", "inpaint:2", fills[3].text]
        swapped = fill_pairs(question, replace(method, fill=Blurred()), fills[::-1])
        for row in frame.itertuples():
            same = swapped[
                (swapped["fill"] == row.other_fill) & (swapped["other_fill"] == row.fill)
            ]
            assert same["value"].item() == pytest.approx(row.value, abs=1e-9)
        with pytest.raises(MethodError, match="two or more different fills, got mean, mean"):
            fill_pairs(question, method, [MeanImage(), MeanImage()])
        with pytest.raises(MethodError, match="gradient has no fill"):
            fill_pairs(question, Gradient(), fills)
