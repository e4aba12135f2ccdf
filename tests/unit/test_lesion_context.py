"""Context of a lesion: equal to changing the whole image by hand, and where a cue was planted."""

from __future__ import annotations

import itertools
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from voxplain.attribution import Blurred, Constant, Inpainted, MeanImage, NoiseFill
from voxplain.attribution.methods import baseline_of
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.lesions.case import LesionSettings, open_case
from voxplain.lesions.context import DISTANCES_MM, PAPER_STEPS, context
from voxplain.lesions.context_inputs import Amount, ContextFill, Surroundings, fill_name
from voxplain.lesions.rows import instance_row
from voxplain.models import wrap
from voxplain.records.lesion_tables import CONTEXT
from voxplain.regions.distances import dilate_mm, dilate_steps
from voxplain.regions.lesion import Lesion
from voxplain.space import LabelMap, Volume
from voxplain.space.box import Box
from voxplain.space.windows import WindowSettings
from voxplain.study.context_need import context_need
from voxplain.testing import models, phantoms

FLOAT64 = Compute(device="cpu", precision="float64")
SETTINGS = LesionSettings(class_name="class_1")


def blob(shape, rng, at=None, name="P1", kind="lesion"):
    """Lesion of some voxels in a box of 2 or 3 a side."""
    size = [min(n, int(rng.integers(2, 4))) for n in shape]
    start = [int(rng.integers(0, n - k + 1)) for n, k in zip(shape, size, strict=True)]
    start = start if at is None else at
    mask = rng.random(size) < 0.6
    mask.flat[0] = mask.flat[-1] = True
    box = Box(tuple(start), tuple(a + k for a, k in zip(start, size, strict=True)))
    return Lesion(name, kind, box, mask)


@contextmanager
def opened(module, shape, *, window, seed, n_channels=2, compute=FLOAT64, **case):
    grid = phantoms.oblique_grid(shape, (0.7, 1.1, 2.3)[: len(shape)], seed)
    model = (
        module
        if hasattr(module, "info")
        else models.describe(module, rank=len(shape), n_channels=n_channels, window=window)
    )
    image = phantoms.volume(grid, n_channels, seed)
    case = {"settings": SETTINGS, **case}
    with open_case(model, image, compute=compute, **case) as one:
        yield one


def probabilities(case, changed):
    """(*shape) of the class in a whole changed image (n_channels, *shape), by all windows."""
    pipeline = case.pipeline
    padded = pipeline.clean(Box.whole(pipeline.plan.padded_shape)).clone()
    padded[(slice(None), *pipeline.plan.inner().slices)] = torch.as_tensor(changed).to(padded.dtype)
    logits = pipeline.logits(lambda box: padded[(slice(None), *box.slices)], pipeline.inner)
    return torch.softmax(logits, 0)[case.class_index].numpy(), logits.argmax(0) == case.class_index


def by_hand(case, lesion, mode, near, fill):
    """Whole image in which `near` is kept or removed."""
    image = case.pipeline.image.data.astype(float)
    own = lesion.on(case.grid.shape)
    stands = near if mode == "keep" else ~near | own
    return np.where(stands, image, fill)


def fill_by_hand(case, fill):
    inner = case.pipeline.plan.inner()
    return fill.input(case.question([]))(inner).numpy()


WINDOWS = [
    ((9, 11, 7), WindowSettings((4, 5, 6), 0.5), models.SmallNet(3, 2, 3)),
    ((9, 4, 7), WindowSettings((6, 7, 4), 0.25, "constant", pad_value=0.5), models.SmallNet(3, 2)),
    ((13, 8), WindowSettings((5, 6), 0.5), models.SmallNet(2, 2, 3)),
    ((9, 8, 7), None, models.SmallNet(3, 2, 3)),
]


@pytest.mark.parametrize(
    "fill", [Constant(), Constant(0.7), MeanImage(), Blurred(1.5), NoiseFill()]
)
@pytest.mark.parametrize("windows", WINDOWS, ids=["overlap", "padded", "2D", "one window"])
def test_equals_changing_the_whole_image(windows, fill):
    shape, window, module = windows
    rng = np.random.default_rng(len(shape) + shape[0])
    distances = (0, 0.8, 1.5, 3, 4.7, 40)
    if window is None:
        module = wrap(
            module, classes=("background", "class_1", "class_2"), channels=("a", "b"), rank=3
        )
    with opened(module, shape, window=window, seed=int(rng.integers(99))) as case:
        ends = blob(shape, rng, [0] * len(shape), "P2")  # on the border
        lesions = [blob(shape, rng), ends]
        frame = context(
            case, distances_mm=distances, fill=fill, modes=("keep", "remove"), lesions=lesions
        )
        assert tuple(frame.columns) == CONTEXT
        filled = fill_by_hand(case, fill)
        assert len(frame) == 2 * (7 + 6)
        for row in frame.to_dict("records"):
            lesion = next(one for one in lesions if one.name == row["instance"])
            own = lesion.on(shape)
            near = dilate_mm(own, case.grid.spacing, row["distance_mm"])
            expected, found = probabilities(case, by_hand(case, lesion, row["mode"], near, filled))
            assert row["probability_mean"] == pytest.approx(expected[own].mean(), abs=1e-10)
            assert row["probability_max"] == pytest.approx(expected[own].max(), abs=1e-10)
            assert row["n_detected_voxels"] == int(found.numpy()[own].sum())
            assert row["is_detected"] == (row["n_detected_voxels"] > 0)
            assert row["n_voxels"] == lesion.n_voxels
        kept = frame[frame["mode"] == "keep"]["probability_mean"]
        assert kept.nunique() > 4  # the surroundings do matter here


def test_the_whole_image_is_the_prediction_to_the_last_bit():
    rng = np.random.default_rng(1)
    float32 = Compute(device="cpu")
    module = models.SmallNet(3, 2, 3)
    with opened(module, (9, 11, 7), window=(4, 5, 6), seed=3, compute=float32) as case:
        lesion = blob((9, 11, 7), rng)
        frame = context(case, modes=("keep", "remove"), lesions=[lesion], distances_mm=(1, 2))
        whole = instance_row(case, lesion)  # from the stitched prediction
        keep, remove = frame[frame["mode"] == "keep"], frame[frame["mode"] == "remove"]
        assert keep["distance_mm"].tolist() == [1, 2, np.inf]
        assert remove["distance_mm"].tolist() == [0, 1, 2]
        for row in (keep.iloc[-1], remove.iloc[0]):
            assert row["probability_mean"] == whole["probability_mean"]
            assert row["probability_max"] == whole["probability_max"]


def test_voxel_steps_of_the_paper():
    assert tuple(range(1, 35)) == PAPER_STEPS
    shape, rng = (9, 11, 7), np.random.default_rng(5)
    module = models.SmallNet(3, 2, 3, seed=2)
    with opened(module, shape, window=WindowSettings((5, 6, 7), 0.5), seed=8) as case:
        lesion = blob(shape, rng)
        frame = context(case, steps=[2, 1, 4], modes=("keep", "remove"), lesions=[lesion])
        assert frame["n_steps"].fillna(-1).tolist() == [1, 2, 4, -1, 0, 1, 2, 4]
        own = lesion.on(shape)
        for row in frame.dropna(subset="n_steps").to_dict("records"):
            near = dilate_steps(own, row["n_steps"])
            changed = by_hand(case, lesion, row["mode"], near, 0)
            expected = probabilities(case, changed)[0][own].mean()
            assert row["probability_mean"] == pytest.approx(expected, abs=1e-10)
            # the distance that the table tells: all within it is near
            assert row["distance_mm"] == pytest.approx(row["n_steps"] * 0.7)
            assert not (dilate_mm(own, case.grid.spacing, row["distance_mm"]) & ~near).any()


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_runs_each_content_of_a_window_once(is_mirrored):
    shape, rng = (12, 10, 9), np.random.default_rng(7)
    recorder = models.Recorder(models.SmallNet(3, 2, 3))
    window = WindowSettings((5, 6, 7), 0.5)
    model = (
        models.Mirrored([recorder], [0, 2], rank=3, n_channels=2, window=window)
        if is_mirrored
        else models.describe(recorder, n_channels=2, window=window)
    )
    distances = (0, 0.1, 0.8, 1.5, 2.5, 6.0, 6.05, 9, 40)
    with opened(model, shape, window=None, seed=11) as case:
        lesions = [blob(shape, rng, [0, 0, 0]), blob(shape, rng, name="P2")]
        _ = case.logits
        recorder.clear()
        done = []
        frame = context(
            case, distances_mm=distances, modes=("keep", "remove"), lesions=lesions,
            progress=lambda *now: done.append(now),
        )  # fmt: skip
        n_run = recorder.n_windows
        plan, expected, most = case.pipeline.plan, 0, 0
        for lesion in lesions:
            own = lesion.on(shape)
            holding = [w for w in range(len(plan)) if own[plan.box(w).slices].any()]
            contents = set()
            for mode, d in itertools.product(("keep", "remove"), (*distances, np.inf)):
                if mode == "remove" and d == np.inf:
                    continue
                near = dilate_mm(own, case.grid.spacing, d)
                changed = by_hand(case, lesion, mode, near, 0)
                seen = {(w, changed[(slice(None), *plan.box(w).slices)].tobytes()) for w in holding}
                clean = case.pipeline.image.data.astype(float)
                if any(
                    (changed[(slice(None), *plan.box(w).slices)]
                     != clean[(slice(None), *plan.box(w).slices)]).any()
                    for w in holding
                ):  # fmt: skip
                    contents |= seen
            expected += len(contents)
            most += len(holding) * len(frame) // len(lesions)
        assert n_run == expected * case.pipeline.model.n_views
        assert expected < 0.9 * most  # of all windows at all distances
        assert done[-1][0] == done[-1][1]
        assert [n for n, _ in done] == sorted(n for n, _ in done)
        assert len({total for _, total in done}) == 1


def test_cost_does_not_grow_with_the_image():
    counts = []
    for shape in ((16, 12, 9), (32, 24, 9)):
        recorder = models.Recorder(models.SmallNet(3, 2, 3))
        with opened(recorder, shape, window=WindowSettings((6, 6, 6), 0.5), seed=1) as case:
            _ = case.logits
            recorder.clear()
            lesion = Lesion("P1", "lesion", Box((4, 4, 4), (5, 5, 5)), np.ones((1, 1, 1), bool))
            context(case, distances_mm=(0, 1, 2), lesions=[lesion])
            counts.append(recorder.n_windows)
    assert counts[0] == counts[1] > 0


def test_large_lesions_are_done_in_parts(monkeypatch):
    rng = np.random.default_rng(2)
    with opened(models.SmallNet(3, 2, 3), (9, 11, 7), window=(4, 5, 6), seed=3) as case:
        lesions = [blob((9, 11, 7), rng), blob((9, 11, 7), rng, name="P2")]
        asked = {"lesions": lesions, "modes": ("keep", "remove"), "distances_mm": (0, 1, 2, 3)}
        at_once = context(case, **asked)
        monkeypatch.setattr("voxplain.lesions.context._MOST_NUMBERS", 40)
        in_parts = context(case, **asked)
    for column in ("probability_mean", "probability_max"):
        np.testing.assert_allclose(in_parts[column], at_once[column], rtol=0, atol=1e-12)


def test_all_lesions_of_the_case_and_the_patient():
    with opened(models.SmallNet(3, 2, 3), (9, 11, 7), window=(4, 5, 6), seed=3) as case:
        frame = context(case, distances_mm=(0,), patient="p1")
        assert frame["instance"].unique().tolist() == [one.name for one in case.lesions]
        assert len(case.lesions) > 0
        assert set(frame["patient"]) == {"p1"}
        none = context(case, lesions=[])
        assert len(none) == 0
        assert tuple(none.columns) == CONTEXT
        assert none["n_steps"].dtype == frame["n_steps"].dtype == "Int64"


def test_threshold_decides_what_is_detected():
    rng = np.random.default_rng(4)
    settings = LesionSettings(class_name="class_1", threshold=0.4)
    with opened(
        models.SmallNet(3, 2, 3), (9, 11, 7), window=(4, 5, 6), seed=3, settings=settings
    ) as case:
        lesion = blob((9, 11, 7), rng)
        frame = context(case, lesions=[lesion], distances_mm=(0, 1, 2, 4))
    assert (frame["is_detected"] == (frame["probability_max"] >= 0.4)).all()


# -- inpainting from healthy tissue ---------------------------------------------------
def healthy_case(values, tissue, seed=0):
    """An image of given values in which bright voxels (> 6) are lesions."""
    grid = phantoms.oblique_grid(values.shape, (0.7, 1.1, 2.3)[: values.ndim], seed)
    module = models.Linear([[0.0], [1.0]], [0.0, -6.0])
    model = models.describe(module, rank=values.ndim, n_classes=2, window=(6, 7, 5)[: values.ndim])
    within = LabelMap(tissue[None].astype(np.uint8), grid, {1: "tissue"})
    image = Volume(values[None].astype(np.float32), grid, name="flat")
    return open_case(model, image, within=within, settings=SETTINGS, compute=FLOAT64)


@pytest.mark.parametrize("shape", [(13, 11, 9), (17, 14)])
def test_inpainting_takes_healthy_tissue_only(shape):
    values = np.full(shape, 5.0)
    tissue = np.ones(shape, bool)
    tissue[0] = False
    values[0] = -70.0  # not tissue
    centre = tuple(n // 2 for n in shape)
    other = (centre[0] + 2, *centre[1:])
    values[centre], values[other] = 9.0, 8.0
    with healthy_case(values, tissue) as case:
        lesion = next(one for one in case.lesions if one.box.start == centre)
        fill = ContextFill(case, Inpainted(2.0))
        inner = case.pipeline.plan.inner()
        keep, remove = Amount("keep", 0.1), Amount("remove", 1.6)
        around = Surroundings(case, lesion, fill, [keep, remove])
        kept = around.source(keep)(inner)[0].numpy()
        expected = np.full(shape, 5.0)
        expected[centre] = 9.0
        np.testing.assert_allclose(kept, expected, atol=1e-6)
        # a shell that holds the other lesion becomes healthy; all else stands
        removed = around.source(remove)(inner)[0].numpy()
        near = dilate_mm(lesion.on(shape), case.grid.spacing, 1.6) & ~lesion.on(shape)
        assert near[other]
        np.testing.assert_allclose(removed, np.where(near, 5.0, values), atol=1e-6)


def test_an_inpainted_shell_does_not_know_what_it_replaces():
    rng = np.random.default_rng(3)
    shape = (13, 11, 9)
    first = rng.uniform(0, 5, shape)
    lesion_at = (6, 5, 4)
    first[lesion_at] = 9
    second = first.copy()
    own = np.zeros(shape, bool)
    own[lesion_at] = True
    filled = []
    for values in (first, second):
        with healthy_case(values, np.ones(shape, bool)) as case:
            near = dilate_mm(own, case.grid.spacing, 1.7)
            amount = Amount("remove", 1.7)
            source = Surroundings(
                case, case.lesions[0], ContextFill(case, Inpainted(1.0)), [amount]
            ).source(amount)
            filled.append(source(case.pipeline.plan.inner())[0].numpy())
        second[near & ~own] = rng.uniform(0, 5, int((near & ~own).sum()))
    assert not np.array_equal(first, second)
    np.testing.assert_allclose(filled[0][near], filled[1][near], atol=1e-6)
    shell = filled[0][near & ~own]
    assert first[~near].min() < shell.min() <= shell.max() < first[~near].max()


def test_inpainting_needs_tissue():
    values = np.full((7, 6, 5), 5.0)
    values[3, 3, 2] = 9.0
    with (
        healthy_case(values, np.ones(values.shape, bool)) as case,
        pytest.raises(MethodError, match="no healthy tissue is left around a lesion"),
    ):
        context(case, fill=Inpainted(), modes=("remove",), distances_mm=(99,))


def test_inpainting_in_windows_equals_the_whole_image():
    rng = np.random.default_rng(6)
    shape = (13, 11, 9)
    values = rng.uniform(0, 5, shape)
    values[6, 5, 3:5] = 9.0
    grid = phantoms.oblique_grid(shape, (0.7, 1.1, 2.3), 0)
    model = models.describe(models.SmallNet(3, 1, 3), window=WindowSettings((3, 4, 3), 0.5))
    image = Volume(values[None].astype(np.float32), grid, name="random")
    with open_case(model, image, settings=SETTINGS, compute=FLOAT64) as case:
        lesion = Lesion("P1", "lesion", Box((6, 5, 3), (7, 6, 5)), np.ones((1, 1, 2), bool))
        # at 6 and at 7 mm a window is filled whole, but from farther away
        asked = {"lesions": [lesion], "modes": ("keep", "remove"), "distances_mm": (0, 1, 3, 6, 7)}
        frame = context(case, fill=Inpainted(1.0), **asked)
        amounts = [Amount(m, d) for m, d in zip(frame["mode"], frame["distance_mm"], strict=True)]
        around = Surroundings(case, lesion, ContextFill(case, Inpainted(1.0)), amounts)
        own = lesion.on(shape)
        for amount, p in zip(amounts, frame["probability_mean"], strict=True):
            changed = around.source(amount)(case.pipeline.plan.inner())
            assert p == pytest.approx(probabilities(case, changed)[0][own].mean(), abs=1e-10)


# -- planted truth --------------------------------------------------------------------
class Cue(torch.nn.Module):
    """Lesion where channel 0 is bright and channel 1 has a cue less than `reach` voxels away."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, windows):
        size = 2 * self.reach + 1
        cue = functional.max_pool3d(windows[:, 1:], size, 1, self.reach)
        lesion = 8 * windows[:, :1] * cue - 4
        return torch.cat([torch.zeros_like(lesion), lesion], 1)


@pytest.mark.parametrize("offset", [(5, 0, 0), (0, 4, 0), (0, 0, -2), (3, -3, 2)])
def test_the_curve_steps_where_the_cue_was_planted(offset):
    shape, spacing = (31, 25, 17), (0.8, 1.1, 2.2)
    grid = phantoms.oblique_grid(shape, spacing, 4)
    own = np.zeros(shape, bool)
    own[15:17, 12, 8] = True
    data = np.zeros((2, *shape), np.float32)
    data[0][own] = 1
    place = np.array((16 if offset[0] > 0 else 15, 12, 8)) + offset
    data[1][tuple(place)] = 1
    # from the affine alone
    away = np.linalg.norm(grid.to_world(np.argwhere(own)) - grid.to_world(place), axis=1).min()
    model = models.describe(Cue(6), n_channels=2, n_classes=2, window=shape)
    image = Volume(data, grid, name="cue")
    with open_case(model, image, settings=SETTINGS, compute=FLOAT64) as case:
        assert [one.n_voxels for one in case.lesions] == [2]
        frame = context(case, distances_mm=range(16))
    detected = frame[frame["is_detected"]]["distance_mm"]
    assert detected.min() == np.ceil(away)
    need = context_need(frame).iloc[0]
    assert np.ceil(away) - 1 < need["need_mm"] <= np.ceil(away)
    assert abs(need["need_mm"] - away) <= 1


def rings(rng, n, size, k_mm, spacing):
    """Pictures with two discs, of which one is a lesion: a ring lies k mm from its border."""
    pixels = rng.normal(0, 0.15, (n, *size))
    truth = np.zeros((n, *size), bool)
    index = np.moveaxis(np.indices(size), 0, -1) * np.asarray(spacing)
    length = np.asarray(size) * spacing
    for i in range(n):
        while True:
            centres = rng.uniform(0.28, 0.72, (2, 2)) * length
            if np.linalg.norm(centres[0] - centres[1]) > 10:
                break
        for which, centre in enumerate(centres):
            away = np.linalg.norm(index - centre, axis=-1) - 2.5
            pixels[i][away <= 0] += 1
            if which == 0:
                truth[i] = away <= 0
                pixels[i][abs(away - k_mm) < 0.5] += 1
    return pixels.astype(np.float32), truth


class RingNet(torch.nn.Module):
    """Convolutions that see 15 pixels far."""

    def __init__(self) -> None:
        super().__init__()
        layers, n_in = [], 1
        for dilation in (1, 2, 4, 8):
            layers += [
                torch.nn.Conv2d(n_in, 16, 3, padding=dilation, dilation=dilation),
                torch.nn.ReLU(),
            ]
            n_in = 16
        self.layers = torch.nn.Sequential(*layers, torch.nn.Conv2d(16, 2, 1))

    def forward(self, windows):
        return self.layers(windows)


@pytest.mark.slow
@pytest.mark.parametrize("k_mm", [5.0, 8.0])
def test_a_trained_network_shows_the_cue_that_it_learned(k_mm):
    size, spacing = (44, 52), (1.1, 0.9)
    rng = np.random.default_rng(int(k_mm))
    torch.manual_seed(0)
    network = RingNet()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
    weight = torch.tensor([1.0, 8.0])
    for _ in range(250):
        pixels, truth = rings(rng, 12, size, k_mm, spacing)
        logits = network(torch.from_numpy(pixels)[:, None])
        loss = functional.cross_entropy(logits, torch.from_numpy(truth).long(), weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model = wrap(network, classes=("background", "lesion"), channels=("x",), window=(40, 40))
    tables = []
    for i, (pixels, truth) in enumerate(zip(*rings(rng, 6, size, k_mm, spacing), strict=True)):
        grid = phantoms.oblique_grid(size, spacing, i)
        image = Volume(pixels[None], grid, name=f"p{i}")
        labels = LabelMap(truth[None].astype(np.uint8), grid, {1: "lesion"})
        with open_case(model, image, truth=labels, compute=Compute(device="cpu")) as case:
            true = [one for one in case.lesions if one.type == "TP" and one.n_voxels > 8]
            tables.append(context(case, lesions=true, distances_mm=np.arange(0, 13, 0.5)))
    frame = pd.concat(tables)
    half = context_need(frame, share=0.5)
    assert len(half) >= 5
    assert half["is_reached"].all()
    assert abs(half["first_mm"].median() - k_mm) <= 1


# -- what is refused ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"distances_mm": ()}, "distances are at least 0 mm.*none"),
        ({"distances_mm": (1, -2)}, r"distances are at least 0 mm.*-2"),
        ({"distances_mm": (1, float("nan"))}, "distances are at least 0 mm.*nan"),
        ({"steps": ()}, "steps are whole numbers.*none"),
        ({"steps": (1, 2.5)}, "steps are whole numbers.*2.5"),
        ({"steps": (-1,)}, "steps are whole numbers.*-1"),
        ({"modes": ()}, "keep and remove, got none"),
        ({"modes": ("keep", "shrink")}, "keep and remove.*shrink"),
    ],
)
def test_bad_settings(asked, message):
    with (
        opened(models.SmallNet(3, 2, 3), (5, 6, 7), window=(4, 5, 6), seed=3) as case,
        pytest.raises(MethodError, match=message),
    ):
        context(case, **asked)


@pytest.mark.parametrize(
    "fill", [Constant(0.25), MeanImage(), Blurred(3), NoiseFill(2), Inpainted(4)]
)
def test_a_fill_in_the_table_can_be_asked_for(fill):
    assert baseline_of(fill_name(fill)) == fill


def test_default_distances_rise_from_zero():
    assert DISTANCES_MM[0] == 0
    assert list(DISTANCES_MM) == sorted(set(DISTANCES_MM))
