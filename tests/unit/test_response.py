"""Answers to inserted lesions: equal to predicting the whole image, at the price that was told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from voxplain.errors import LabelError, MethodError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.lesions.case import LesionSettings, open_case
from voxplain.lesions.insert import LesionShape
from voxplain.lesions.intensity import LesionIntensity
from voxplain.lesions.places import healthy_places, tissue_on_image
from voxplain.lesions.response import Inserted, learn_intensity, prepared_input, response
from voxplain.models import wrap
from voxplain.records.lesion_tables import RESPONSE
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import Linear, Recorder, SmallNet
from voxplain.testing.phantoms import oblique_grid

DOUBLE = Compute("cpu", "float64", 1)
WINDOW = WindowSettings((8, 9, 10), overlap=0.5)
LOOK = LesionIntensity(
    ("flair", "t1"), (3.0, -1.0), (0.3, 0.1), (-2.0, 0.0, 2.0), (1.0, 0.6, 0.0), (1.0, 1.0), 1, 9
)
CLASSES = ("background", "lesion")


def brain(grid: Grid | None = None, seed: int = 0) -> tuple[Volume, LabelMap]:
    """Noise in an ellipsoid, exactly 0 around it, with one bright lesion; and the lesion."""
    grid = oblique_grid((26, 24, 22), (1.1, 1.0, 1.3), seed=seed) if grid is None else grid
    rng = np.random.default_rng(seed)
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    middle = (np.asarray(grid.shape) - 1) / 2
    inside = (((index - middle) / (0.47 * np.asarray(grid.shape))) ** 2).sum(-1) < 1
    lesion = LesionShape.draw(grid.to_world(middle + 4), 4).voxels(grid)
    data = 10 + rng.normal(0, 0.3, (2, *grid.shape))
    data += np.multiply.outer([4.0, -1.0], lesion)
    image = Volume(np.where(inside, data, 0.0), grid, ("flair", "t1"), "brain")
    return image, LabelMap(lesion[None].astype(np.uint8), grid, {1: "lesion"})


ZSCORE = ({"zscore": {"over": "nonzero"}},)


def threshold_model(bias: float = -6.0, rank: int = 3, window=None, intensity=ZSCORE):
    """A voxel is lesion where its z-score in channel 0 is above -bias/2."""
    net = Linear([[0.0, 0.0], [2.0, 0.0]], [0.0, bias])
    return wrap(
        net, classes=CLASSES, channels=("flair", "t1"), rank=rank, window=window,
        intensity=intensity, check=False,
    )  # fmt: skip


def small_model(net: torch.nn.Module, spacing):
    return wrap(
        net, classes=CLASSES, channels=("flair", "t1"), window=WINDOW, intensity=ZSCORE,
        spacing=spacing, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("spacing", [None, (1.4, 1.2, 1.5)])
def test_rows_equal_the_prediction_of_the_whole_inserted_image(spacing) -> None:
    net = Recorder(SmallNet(3, 2, 2, seed=3))
    model = small_model(net, spacing=spacing)
    image, truth = brain()
    made: list[Inserted] = []
    told: list[tuple[int, int]] = []
    with open_case(model, image, truth=truth, settings=LesionSettings(threshold=0.999), seed=4,
                   compute=DOUBLE) as case:  # fmt: skip
        _ = case.logits
        net.clear()
        frame = response(
            case, LOOK, diameters_mm=(3, 6), contrasts=(0.5, 2, 0), n_places=2, margin_mm=1,
            irregularity=0.2, progress=lambda a, b: told.append((a, b)), on_image=made.append,
        )  # fmt: skip
        n_run = net.n_windows
        pipeline = case.pipeline
        grid = case.grid
        clean = case.logits
        n_wanted = 0
        n_all = pipeline.n_passes
        changed = []
        for one in made:
            with open_pipeline(model, one.image, DOUBLE) as whole:
                logits = whole.logits(whole.clean, whole.inner)
            changed.append((one.row, logits))
        for row, logits in [
            *changed,
            *((r, clean) for r in frame[frame.contrast == 0].to_dict("records")),
        ]:
            # the same border: it is drawn from the place alone
            rng = case.noise.generator(0x5E, row["place"] - 1)
            shape = LesionShape.draw(
                (row["x_mm"], row["y_mm"], row["z_mm"]), row["diameter_mm"], 0.2, rng
            )
            mask = shape.voxels(grid)
            probability = torch.softmax(logits, 0)[1].numpy()[mask]
            assert row["n_voxels"] == mask.sum() > 0
            assert row["probability_mean"] == pytest.approx(probability.mean(), abs=1e-12)
            assert row["probability_max"] == pytest.approx(probability.max(), abs=1e-12)
            assert row["is_detected"] == (probability >= 0.999).any()
            if row["contrast"]:
                index = np.argwhere(mask)
                box = type(pipeline.inner)(
                    tuple(index.min(0).tolist()), tuple((index.max(0) + 1).tolist())
                )
                n_wanted += len(pipeline.windows_for(case.padded(box)))
    assert tuple(frame.columns) == RESPONSE
    assert len(frame) == 2 * 2 * 3
    assert len(made) == 2 * 2 * 2
    assert n_run == n_wanted < len(made) * n_all
    assert told[-1][0] == told[-1][1]
    assert frame["probability_mean"].nunique() == len(frame)
    for one in made:
        # the background stays exactly 0
        assert not one.image.data[:, image.data[0] == 0].any()


def test_a_threshold_model_detects_what_is_brighter_than_its_threshold() -> None:
    """Without z-scores a lesion is seen from (threshold - tissue) / difference on."""
    image, truth = brain(seed=6)
    data = np.where(image.data[0] != 0, 10.0, 0.0)[None].repeat(2, 0)
    flat = image.with_data(data)
    model = threshold_model(bias=-2 * 13.0, intensity=[])
    look = LesionIntensity(
        ("flair", "t1"), (4.0, 0.0), (0.0, 0.0), (0.0, 1e-9), (1.0, 0.0), (1.0, 1.0)
    )
    with open_case(model, flat, truth=truth, compute=DOUBLE) as case:
        frame = response(case, look, diameters_mm=(3, 5), contrasts=(0.5, 0.7, 0.8, 1),
                         n_places=4, margin_mm=2)  # fmt: skip
    # 10 + 4 · contrast > 13
    assert (frame["is_detected"] == (frame["contrast"] > 0.75)).all()
    np.testing.assert_allclose(
        frame["probability_max"], 1 / (1 + np.exp(-(2 * (10 + 4 * frame["contrast"]) - 26)))
    )


def test_two_dimensions() -> None:
    grid = oblique_grid((30, 34), (0.9, 1.2), seed=2)
    image, truth = brain(grid, seed=2)
    model = threshold_model(rank=2, window=(12, 14))
    with open_case(model, image, truth=truth, compute=DOUBLE) as case:
        look = learn_intensity(case, from_truth=True)
        frame = response(case, look, diameters_mm=(4,), contrasts=(3,), n_places=3, margin_mm=2)
    assert look.difference[0] == pytest.approx(4, rel=0.1)
    assert (frame["z_mm"] == 0).all()
    assert frame.loc[frame["contrast"] == 3, "is_detected"].all()


def test_places_are_in_tissue_and_away_from_lesions() -> None:
    image, truth = brain(seed=7)
    with open_case(threshold_model(), image, truth=truth, seed=1, compute=DOUBLE) as case:
        reach, margin = 2.5, 3.0
        places = healthy_places(case, 40, reach, margin)
        again = healthy_places(case, 40, reach, margin)
        avoid = case.truth | case.detected(case.logits)
        body = case.tissue
        spacing = np.asarray(case.grid.spacing)
    np.testing.assert_array_equal(places, again)
    assert len({tuple(p) for p in places}) == 40
    all_index = np.argwhere(np.ones_like(body))
    for place in places:
        mm = np.linalg.norm((all_index - place) * spacing, axis=1)
        near = tuple(all_index[mm <= reach].T)
        assert body[near].all()
        assert mm[avoid[tuple(all_index.T)]].min() > reach + margin
        assert (place * spacing >= reach - spacing).all()
    with open_case(threshold_model(), image, truth=truth, seed=2, compute=DOUBLE) as case:
        assert not np.array_equal(healthy_places(case, 40, reach, margin), places)


def test_every_fitting_voxel_is_drawn_alike() -> None:
    image, truth = brain(seed=8)
    with open_case(threshold_model(), image, truth=truth, compute=DOUBLE) as case:
        with pytest.raises(LabelError, match="healthy places were asked for") as error:
            healthy_places(case, 10**6, 3.0, 2.0)
        n = int(str(error.value).split(" asked for, ")[1].split()[0])
        assert n > 40
        assert len(healthy_places(case, n, 3.0, 2.0)) == n


def test_what_is_learned_from_predicted_and_true_lesions() -> None:
    image, truth = brain(seed=9)
    with open_case(threshold_model(-8.0), image, truth=truth, compute=DOUBLE) as case:
        for from_truth in (True, False):
            look = learn_intensity(case, from_truth=from_truth)
            assert look.difference[0] == pytest.approx(4, rel=0.15)
            assert look.difference[1] == pytest.approx(-1, rel=0.3)
            assert look.n_lesions == 1
        assert not (tissue_on_image(case) & (image.data[0] == 0)).any()
    with open_case(threshold_model(-800.0), image, compute=DOUBLE) as case:
        with pytest.raises(LabelError, match="predicts no lesion to learn from"):
            learn_intensity(case, from_truth=False)
        with pytest.raises(LabelError, match="give a truth"):
            learn_intensity(case, from_truth=True)


def test_no_place_fits_and_bad_settings() -> None:
    image, truth = brain()
    with open_case(threshold_model(), image, truth=truth, compute=DOUBLE) as case:
        with pytest.raises(LabelError, match="room for one of 60 mm"):
            response(case, LOOK, diameters_mm=(3, 60))
        for settings, words in (
            ({"diameters_mm": ()}, "diameters are one or more"),
            ({"diameters_mm": (0,)}, "above 0 mm"),
            ({"contrasts": (0,)}, "not all 0"),
            ({"contrasts": (float("nan"),)}, "factors"),
            ({"n_places": 0}, "at least 1"),
            ({"margin_mm": -1}, "at least 0 mm"),
            ({"irregularity": 0.7}, "0 .balls. to 0.5"),
        ):
            with pytest.raises(MethodError, match=words):
                response(case, LOOK, **settings)  # type: ignore[arg-type]


def test_the_seed_decides() -> None:
    image, truth = brain()
    frames = []
    for seed in (1, 1, 2):
        with open_case(threshold_model(), image, truth=truth, seed=seed, compute=DOUBLE) as case:
            frames.append(response(case, LOOK, diameters_mm=(3,), contrasts=(1,), n_places=3,
                                   margin_mm=1, patient="A"))  # fmt: skip
    pd.testing.assert_frame_equal(frames[0], frames[1])
    assert not frames[0].equals(frames[2])
    assert set(frames[0]["patient"]) == {"A"}
    assert set(frames[0]["case"]) == {"brain"}


def test_an_input_of_another_grid_is_refused() -> None:
    image, truth = brain()
    smaller = Volume(image.data[:, :-3], image.grid.crop((0, 0, 0), (23, 24, 22)), image.channels)
    with (
        open_case(threshold_model(), image, truth=truth, compute=DOUBLE) as case,
        pytest.raises(LabelError, match="prepared to another grid"),
    ):
        prepared_input(case.pipeline, smaller)
