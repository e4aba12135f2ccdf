"""A generator on an image: what it changes lands on the right voxels, in the right unit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from voxplain.cli.counterfactual_apply import EPILOG, apply
from voxplain.cli.faults import PlainFaults
from voxplain.counterfactual.applied import finished, write_applied
from voxplain.counterfactual.apply import COLUMNS, apply_image
from voxplain.counterfactual.classifier import AbnormalLogit, Classifier
from voxplain.counterfactual.config import PostFilterConfig
from voxplain.counterfactual.cut import planes_of
from voxplain.counterfactual.generator import Generator, Repair
from voxplain.counterfactual.preparation import Preparation
from voxplain.errors import DataError, OutputError
from voxplain.models import Model
from voxplain.models.model import ModelInfo
from voxplain.records.provenance import Provenance
from voxplain.space import Grid, Volume, read_image, resample, write_nifti
from voxplain.testing.phantoms import oblique_grid

NONE = PostFilterConfig()
LOW, HIGH = -100.0, 300.0
BLOB = 260.0


class Capped(Generator):
    """Brings everything above a cap (in [−1, 1]) down to it."""

    multiple = 1

    def __init__(self, cap: float) -> None:
        super().__init__()
        self.cap = torch.nn.Parameter(torch.tensor(cap))

    def repair(self, images):
        assert not self.training
        assert not self.cap.requires_grad
        return Repair(torch.minimum(images, self.cap))


class Same(Generator):
    multiple = 1

    def repair(self, images):
        return Repair(images.clone())


class Shifted(Generator):
    """Changes every pixel, padding too, by as much as its slice is bright."""

    multiple = 1

    def repair(self, images):
        return Repair(images - 0.1 - 0.1 * images.amax((1, 2, 3), keepdim=True).abs())


class Brightest(torch.nn.Module):
    """Logit 20·(max x − 0.5): abnormal where there is a blob."""

    def forward(self, x):
        return 20 * (x.amax((1, 2, 3))[:, None] - 0.5)


def classifier() -> Classifier:
    return Classifier(AbnormalLogit(Brightest(), 0, False, 1.0, 0.0), "brightest", "0" * 64)


def preparation(plane: str = "axial", size=(32, 32), pixel_mm: float | None = None) -> Preparation:
    return Preparation(plane, size, pixel_mm, LOW, HIGH)


def phantom(grid: Grid | None = None) -> tuple[Volume, np.ndarray]:
    """Smooth intensities up to 60 with voxels beyond the window, and a bright box."""
    grid = grid or oblique_grid((9, 12, 7), (1.0, 1.0, 1.0), seed=2)
    blob = np.zeros(grid.shape, bool)
    blob[2:5, 3:8, 2:4] = True
    data = np.random.default_rng(1).uniform(-50, 60, grid.shape).astype(np.float32)
    data[blob] = BLOB
    data[0, 0, 0] = -1000
    return Volume(data[None], grid, name="phantom"), blob


def run(image, generator, plane="axial", *, prepared=None, threshold=0.25, **options):
    return apply_image(
        image, prepared or preparation(plane), generator, classifier(),
        threshold=threshold, post=options.pop("post", NONE), **options,
    )  # fmt: skip


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SRA", "PIR"])
def test_the_difference_lands_on_the_lesion(plane, orientation):
    """At the slices' own pixel size nothing is interpolated: a closed form, exactly."""
    grid = oblique_grid((9, 12, 7), (1.0, 1.0, 1.0), seed=2).reorient(orientation)
    image, _ = phantom(grid)
    blob = image.data[0] == BLOB
    cap = 0.0  # intensity 100
    found = run(image, Capped(cap), plane, prepared=preparation(plane, pixel_mm=1.0))
    expected = np.where(blob, 100 - BLOB, 0)
    np.testing.assert_allclose(found.difference, expected, atol=1e-4)
    np.testing.assert_array_equal(found.mask, blob)
    np.testing.assert_array_equal(found.counterfactual[~blob], image.data[0][~blob])
    np.testing.assert_allclose(found.counterfactual[blob], 100, atol=1e-4)
    assert (found.unit, found.mask.dtype, found.difference.dtype) == ("image", "u1", "f4")
    planes = planes_of(grid, plane)
    counts = [int(p.take(blob).sum()) for p in planes]
    table = found.table
    assert tuple(table.columns) == COLUMNS
    assert list(table["slice"]) == list(range(len(planes)))
    assert list(table["position"]) == [p.title for p in planes]
    assert list(table["changed_px"]) == counts
    has_blob = np.array(counts) > 0
    x = 2 * (BLOB - LOW) / (HIGH - LOW) - 1
    np.testing.assert_allclose(table["logit_before"][has_blob], 20 * (x - 0.5), atol=1e-4)
    np.testing.assert_allclose(table["logit_after"][has_blob], 20 * (cap - 0.5), atol=1e-4)
    np.testing.assert_allclose(
        table["probability_before"], 1 / (1 + np.exp(-table["logit_before"])), atol=1e-6
    )
    area = planes[0].take(blob).size
    np.testing.assert_allclose(table["mean_change"], np.array(counts) * x / 2 / area, atol=1e-6)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_an_anisotropic_oblique_lesion_stays_in_its_place(plane):
    grid = oblique_grid((20, 26, 15), (0.7, 1.1, 2.3), seed=4)
    blob = np.zeros(grid.shape, bool)
    blob[6:14, 8:16, 4:9] = True
    image = Volume(np.where(blob, BLOB, 20.0).astype(np.float32)[None], grid)
    found = run(image, Capped(-0.4), plane, prepared=preparation(plane, (96, 96)))
    intersection = (found.mask & blob).sum()
    assert intersection / (found.mask.astype(bool) | blob).sum() > 0.95
    centre = np.argwhere(blob).mean(0)
    weights = -found.difference
    assert (weights >= 0).all()
    own = np.stack(np.indices(grid.shape), -1).reshape(-1, 3).T @ weights.ravel() / weights.sum()
    np.testing.assert_allclose(own, centre, atol=0.05)
    np.testing.assert_allclose(found.difference[9:11, 11:13, 6], 20 - BLOB, rtol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (16, 40)])
def test_the_identity_changes_nothing_and_marks_nothing(size):
    image, _ = phantom()
    before = image.data.copy()
    found = run(image, Same(), prepared=preparation("coronal", size), threshold=0.0)
    np.testing.assert_array_equal(found.counterfactual, image.data[0])
    np.testing.assert_array_equal(image.data, before)
    assert not found.difference.any()
    assert not found.mask.any()
    assert list(found.table["mean_change"]) == [0.0] * len(found.table)


def test_the_batch_size_moves_no_result_and_networks_come_back():
    image, _ = phantom()
    generator = Capped(0.1).train()
    judged = [run(image, generator, batch=n) for n in (1, 3, 100)]
    for other in judged[1:]:
        np.testing.assert_array_equal(other.difference, judged[0].difference)
        np.testing.assert_array_equal(other.mask, judged[0].mask)
        pd.testing.assert_frame_equal(other.table, judged[0].table)
    assert generator.training
    assert generator.cap.requires_grad


def test_only_chosen_slices_are_changed():
    image, blob = phantom()
    seen = []
    found = run(image, Shifted(), slices=[1, 3], progress=seen.append)
    inside = np.zeros_like(blob)
    inside[:, :, [1, 3]] = True  # the phantom's last axis is S
    assert not found.difference[~inside].any()
    assert (found.difference[inside] < 0).all()
    assert list(found.table["slice"]) == [1, 3]
    assert seen == [1, 2]


def test_a_gate_leaves_normal_slices_alone():
    image, blob = phantom()
    with_blob = blob.any(axis=(0, 1))
    everywhere = run(image, Shifted(), threshold=0.01)
    gated = run(image, Shifted(), threshold=0.01, gate=True)
    assert everywhere.mask.any(axis=(0, 1)).all()
    np.testing.assert_array_equal(gated.mask.any(axis=(0, 1)), with_blob)
    np.testing.assert_array_equal(gated.difference.any(axis=(0, 1)), with_blob)
    np.testing.assert_array_equal(
        gated.difference[..., with_blob], everywhere.difference[..., with_blob]
    )
    left = gated.table[~with_blob]
    np.testing.assert_array_equal(left["logit_before"], left["logit_after"])


def test_padding_is_never_changed_and_cropped_parts_stay():
    image, _ = phantom()
    whole = run(image, Shifted(), prepared=preparation(size=(40, 24)))
    assert (whole.table["mean_change"] > 0.04).all()
    cropped = run(image, Shifted(), prepared=preparation(size=(6, 6), pixel_mm=1.0))
    untouched = cropped.difference == 0
    assert (~untouched).sum() == 6 * 6 * image.data.shape[-1]
    np.testing.assert_array_equal(cropped.counterfactual[untouched], image.data[0][untouched])


def test_the_filter_acts_on_every_slice():
    image, blob = phantom()
    image.data[0, 7, 10, :] = BLOB  # one pixel in each slice
    exact = preparation(pixel_mm=1.0)
    plain = run(image, Capped(0.0), prepared=exact)
    opened = run(image, Capped(0.0), prepared=exact, post=PostFilterConfig(open_close=True))
    np.testing.assert_array_equal(opened.mask, blob)
    assert plain.mask.sum() == blob.sum() + image.data.shape[-1]


def test_wrong_thresholds_and_slices_are_refused():
    image, _ = phantom()
    with pytest.raises(DataError, match=r"\[0, 1\), got 1"):
        run(image, Same(), threshold=1.0)
    with pytest.raises(DataError, match="no slice 99"):
        run(image, Same(), slices=[99])
    with pytest.raises(DataError, match="no slice was chosen"):
        run(image, Same(), slices=[])


class Doubling(Model):
    """Prepares twice the intensity in pixels half as large."""

    def __init__(self, rank: int) -> None:
        names = (("image",), ("abnormal",))
        self.info = ModelInfo("m", "classification", rank, *names, "sigmoid", None, "0")

    def prepare(self, image: Volume) -> Volume:
        finer = image.grid.resize([2 * n for n in image.grid.shape])
        made = resample(image, finer, order=0)
        return made.with_data(2 * made.data)


def test_a_3d_models_intensities_are_kept_on_the_images_grid(monkeypatch):
    monkeypatch.setattr("voxplain.counterfactual.preparation.load_model", lambda _: Doubling(3))
    image, blob = phantom()
    prepared = Preparation("coronal", (32, 32), 0.5, 2 * LOW, 2 * HIGH, model="m")
    found = run(image, Capped(0.0), prepared=prepared)
    assert found.unit == "prepared"
    assert len(found.table) == 2 * image.grid.shape[1]
    np.testing.assert_array_equal(found.mask, blob)
    np.testing.assert_allclose(found.difference, np.where(blob, 200 - 2 * BLOB, 0), atol=1e-3)
    expected = np.where(blob, 200, 2 * image.data[0])
    np.testing.assert_allclose(found.counterfactual, expected, atol=1e-3)


def test_a_2d_model_prepares_each_slice_and_the_rest_is_not_known(monkeypatch, tmp_path):
    monkeypatch.setattr("voxplain.counterfactual.preparation.load_model", lambda _: Doubling(2))
    grid = oblique_grid((20, 24, 6), (1.0, 1.0, 2.0), seed=2)
    blob = np.zeros(grid.shape, bool)
    blob[5:14, 6:17, 2:4] = True
    image = Volume(np.where(blob, BLOB, 10.0).astype(np.float32)[None], grid)
    shape = planes_of(grid, "axial")[0].take(blob).shape
    size = (2 * shape[0], 2 * shape[1])
    prepared = Preparation("axial", size, None, 2 * LOW, 2 * HIGH, model="m")
    found = run(image, Capped(0.0), prepared=prepared, slices=[1, 2])
    chosen = np.isin(np.arange(6), [1, 2])
    np.testing.assert_array_equal(found.mask[..., chosen], blob[..., chosen])
    assert not found.mask[..., ~chosen].any()
    np.testing.assert_array_equal(np.isnan(found.counterfactual).all((0, 1)), ~chosen)
    assert np.isfinite(found.counterfactual[..., chosen]).all()
    np.testing.assert_allclose(found.counterfactual[8:11, 9:14, 2], 200, atol=1e-3)
    np.testing.assert_allclose(found.counterfactual[..., 1], 20, atol=1e-3)
    np.testing.assert_allclose(found.difference[8:11, 9:14, 2], 200 - 2 * BLOB, atol=1e-3)
    write_applied(found, tmp_path, "case", record(image))
    assert finished(tmp_path, "case", record(image))


def record(image: Volume, **parameters) -> Provenance:
    return Provenance(
        "brightest", "0" * 64, image.name, image.sha256(), "counterfactual capped", parameters
    )


def test_a_volume_becomes_nifti_files_in_its_place(tmp_path: Path):
    image, _ = phantom()
    found = run(image, Capped(0.0))
    said = record(image, threshold=0.25, device="cpu")
    names = write_applied(found, tmp_path / "out", "phantom", said)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(names)
    for what, values in (
        ("counterfactual", found.counterfactual),
        ("difference", found.difference),
        ("mask", found.mask),
    ):
        read = read_image(tmp_path / "out" / f"phantom_{what}.nii.gz")
        assert read.grid.matches(image.grid)
        np.testing.assert_array_equal(read.data[0], values)
    table = pd.read_csv(tmp_path / "out" / "phantom_slices.csv")
    pd.testing.assert_frame_equal(table, found.table, rtol=1e-12)
    assert json.loads((tmp_path / "out" / "phantom.json").read_text())["unit"] == "image"


def test_a_result_is_known_by_what_was_asked_and_by_its_files(tmp_path: Path):
    image, _ = phantom()
    said = record(image, threshold=0.25, device="cpu")
    assert not finished(tmp_path, "phantom", said)
    write_applied(run(image, Capped(0.0)), tmp_path, "phantom", said)
    assert finished(tmp_path, "phantom", said)
    assert finished(tmp_path, "phantom", record(image, threshold=0.25, device="cuda:1"))
    assert not finished(tmp_path, "phantom", record(image, threshold=0.3, device="cpu"))
    other = image.with_data(image.data + 1)
    assert not finished(tmp_path, "phantom", record(other, threshold=0.25, device="cpu"))
    torn = tmp_path / "phantom_difference.nii.gz"
    whole = torn.read_bytes()
    torn.write_bytes(whole[:-1])
    assert not finished(tmp_path, "phantom", said)
    torn.write_bytes(whole)
    assert finished(tmp_path, "phantom", said)
    (tmp_path / "phantom.json").write_text("{")
    assert not finished(tmp_path, "phantom", said)


def test_a_picture_stays_a_picture(tmp_path: Path):
    stored = np.random.default_rng(0).integers(0, 90, (24, 31)).astype(np.uint8)
    stored[5:11, 20:27] = 240
    Image.fromarray(stored).save(tmp_path / "xray.png")
    image = read_image(tmp_path / "xray.png")
    prepared = Preparation("axial", (32, 40), 1.0, 0.0, 255.0)
    found = run(image, Capped(-0.2), prepared=prepared, threshold=0.1)
    np.testing.assert_array_equal(found.mask, stored == 240)
    assert list(found.table["position"]) == ["image"]
    said = record(image)
    write_applied(found, tmp_path / "out", "xray", said, is_8_bit=True)
    repaired = np.asarray(Image.open(tmp_path / "out" / "xray_counterfactual.png"))
    np.testing.assert_array_equal(repaired, np.minimum(stored, 102))
    mask = np.asarray(Image.open(tmp_path / "out" / "xray_mask.png"))
    np.testing.assert_array_equal(mask, 255 * (stored == 240))
    difference = np.load(tmp_path / "out" / "xray_difference.npy")
    np.testing.assert_allclose(difference, np.where(stored == 240, 102 - 240, 0), atol=1e-4)
    drawn = np.asarray(Image.open(tmp_path / "out" / "xray_difference.png"))
    assert drawn.shape[2] in (3, 4)
    write_applied(found, tmp_path / "float", "xray", said)
    exact = read_image(tmp_path / "float" / "xray_counterfactual.tif")
    np.testing.assert_array_equal(exact.data[0], found.counterfactual)
    assert finished(tmp_path / "float", "xray", said)


class StubRun:
    """What the program asks of a run."""

    names = ("capped", "same")
    folder = Path("run")

    def __init__(self, tuned: float | None) -> None:
        self.preparation = preparation(pixel_mm=1.0)
        post = PostFilterConfig(min_pixels=2)
        self.config = SimpleNamespace(evaluation=SimpleNamespace(post_filter=post))
        self.tuned = tuned

    def generator(self, name: str) -> Generator:
        return {"capped": Capped(0.0), "same": Same()}[name]

    def classifier(self) -> Classifier:
        return classifier()

    def threshold(self, name: str) -> float | None:
        del name
        return self.tuned


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Images to repair, and the verb on a run whose generator is known."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "dumb")
    image, _ = phantom()
    for name in ("a", "b"):
        write_nifti(tmp_path / "scans" / f"{name}.nii.gz", image.data, image.grid)
    app = typer.Typer(cls=PlainFaults, rich_markup_mode="rich")
    app.callback()(lambda: None)
    app.command(epilog=EPILOG, no_args_is_help=True)(apply)

    def call(*words: str, tuned: float | None = 0.3):
        monkeypatch.setattr("voxplain.counterfactual.run.open_run", lambda folder: StubRun(tuned))
        return CliRunner().invoke(app, ["apply", "--run", "run", "--device", "cpu", *words])

    return call


def said_of(path: str) -> dict[str, Any]:
    return json.loads(Path(path).read_text())["provenance"]["parameters"]


def test_a_folder_is_repaired_once(program):
    done = program("--image", "scans", "--out", "out")
    assert done.exit_code == 0, done.output
    assert "generator capped, threshold 0.3 (tuned on the validation slices)" in done.stdout
    assert len(list(Path("out").iterdir())) == 10
    _, blob = phantom()
    np.testing.assert_array_equal(read_image("out/a_mask.nii.gz").data[0], blob)
    assert said_of("out/a.json")["post_filter"]["min_pixels"] == 2
    times = {p.name: p.stat().st_mtime_ns for p in Path("out").iterdir()}
    Path("out/b_mask.nii.gz").unlink()
    again = program("--image", "scans", "--out", "out")
    assert "1 of 2 images were finished before" in again.stdout
    now = {p.name: p.stat().st_mtime_ns for p in Path("out").iterdir()}
    assert now.keys() == times.keys()
    assert {name for name in now if now[name] != times[name]} == {n for n in now if n[0] == "b"}
    assert "2 of 2" in program("--image", "scans", "--out", "out").stdout


def test_options_reach_the_result(program):
    one = ("--image", "scans/a.nii.gz", "--quiet")
    done = program(*one, "--slices", "1,3:5", "--post", "paper", "--gate", "--threshold", "0.1",
                   "--min-pixels", "7", "--generator", "same")  # fmt: skip
    assert (done.exit_code, done.output) == (0, "")
    said = said_of("run/applied/same/a.json")
    assert said["slices"] == [1, 3, 4]
    assert said["post_filter"] == {"open_close": True, "min_pixels": 7, "largest_only": True}
    assert (said["gate"], said["threshold"]) == (True, 0.1)
    assert list(pd.read_csv("run/applied/same/a_slices.csv")["slice"]) == [1, 3, 4]
    program(*one, "--post", "none", "--out", "plain")
    assert said_of("plain/a.json")["post_filter"] == PostFilterConfig().model_dump()


def test_a_run_without_truth_takes_the_papers_threshold_and_says_so(program):
    done = program("--image", "scans/a.nii.gz", "--out", "out", tuned=None)
    assert "threshold 0.25 (the paper's" in done.stdout
    assert said_of("out/a.json")["threshold"] == 0.25


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--threshold", "tuned"), "the run knew no truth"),
        (("--threshold", "1.5"), "a number from 0 to below 1, got '1.5'"),
        (("--threshold", "high"), "got 'high'"),
        (("--slices", "5:5"), "numbers such as 3,4 or 10:20"),
        (("--slices", "a"), "numbers such as 3,4 or 10:20"),
        (("--slices", "70"), "no slice 70"),
    ],
)
def test_wrong_options_end_with_one_line(program, words, said):
    done = program("--image", "scans/a.nii.gz", "--out", "out", *words, tuned=None)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not Path("out").exists()


def test_a_bad_image_does_not_stop_the_others(program):
    Path("scans/aa.nii.gz").write_bytes(b"no image")
    broken, _ = phantom()
    values = broken.data.copy()
    values[0, 1, 1, 1] = np.nan
    write_nifti(Path("scans/nan.nii.gz"), values, broken.grid)
    done = program("--image", "scans", "--image", "gone.nii.gz", "--out", "out")
    assert done.exit_code == 2
    assert "3 of 5 images could not be repaired" in done.stderr
    for words in ("aa.nii.gz", "1 of 756 voxels are NaN", "no such file: gone.nii.gz"):
        assert words in done.stderr
    assert {p.name[0] for p in Path("out").iterdir()} == {"a", "b"}
    assert len(list(Path("out").iterdir())) == 10


def test_two_images_of_one_name_are_refused(program):
    shutil.copytree("scans", "others")
    done = program("--image", "scans", "--image", "others", "--out", "out")
    assert done.exit_code == 2
    assert "are both called a; rename or move one" in done.stderr


def test_an_8_bit_picture_gives_one(program):
    stored = np.full((20, 20), 30, np.uint8)
    stored[8:12, 8:12] = 200
    Image.fromarray(stored).save("x.png")
    done = program("--image", "x.png", "--out", "out")
    assert done.exit_code == 0, done.output
    repaired = np.asarray(Image.open("out/x_counterfactual.png"))
    np.testing.assert_array_equal(repaired, np.minimum(stored, 100))


@pytest.mark.parametrize(("plane", "said"), [("picture", "pictures (2D)"), ("axial", "3D")])
def test_an_image_of_another_rank_is_refused(program, plane, said):
    table = Path("run/slices/train/slices.csv")
    table.parent.mkdir(parents=True)
    table.write_text(f"case,patient,plane,index\na,0,{plane},0\n")
    Image.fromarray(np.full((20, 20), 30, np.uint8)).save("x.png")
    image = {"picture": "scans/a.nii.gz", "axial": "x.png"}[plane]
    done = program("--image", image, "--out", "out")
    assert done.exit_code == 2
    assert said in done.stderr
    assert "give images like those it was trained on" in done.stderr
    assert not Path("out").exists()


@pytest.mark.parametrize(("scale", "is_outside"), [(1, False), (200, True)])
def test_an_image_outside_of_the_window_is_told(program, scale, is_outside):
    image, _ = phantom()
    values = (image.data + 1100) * scale if is_outside else image.data
    write_nifti(Path("c.nii.gz"), values, image.grid)
    done = program("--image", "c.nii.gz", "--out", "out")
    assert done.exit_code == 0, done.output
    assert ("the window of the run is -100 to 300" in done.stdout) == is_outside
    assert len(json.loads(Path("out/c.json").read_text())["notes"]) == is_outside


def test_a_constant_image_is_told():
    image, _ = phantom()
    found = run(image.with_data(np.full_like(image.data, 20)), Same())
    assert found.notes == ("all intensities are equal",)


def test_a_manifest_gives_its_cases(program):
    Path("scans/manifest.csv").write_text("case,image,label\nann,a.nii.gz,b.nii.gz\n")
    for given in ("scans", "scans/manifest.csv"):
        done = program("--image", given, "--out", given.replace("/", "-"))
        assert done.exit_code == 0, done.output
        assert f"{given}: 1 image, read as manifest" in done.stdout
    assert {p.name[:3] for p in Path("scans-manifest.csv").iterdir()} == {"ann"}


def test_a_folder_tells_what_is_left_out(program):
    shutil.copy("scans/a.nii.gz", "scans/segmentation.nii.gz")
    Path("scans/read.txt").write_text("")
    Path("scans/more").mkdir()
    done = program("--image", "scans", "--out", "out")
    assert done.exit_code == 0, done.output
    assert "scans: 2 images, read as images; left out:" in done.stdout
    for name in ("read.txt", "more", "segmentation: named like a label map"):
        assert name in done.stdout
    assert {p.name[0] for p in Path("out").iterdir()} == {"a", "b"}


def test_a_foreign_record_is_not_replaced(program):
    Path("out").mkdir()
    Path("out/b.json").write_text('{"mine": 1}')
    done = program("--image", "scans", "--out", "out")
    assert done.exit_code != 0
    assert "no record of a repaired image; it is not replaced" in done.stderr
    assert [p.read_text() for p in Path("out").iterdir()] == ['{"mine": 1}']
    image, _ = phantom()
    with pytest.raises(OutputError, match="choose another --out"):
        write_applied(run(image, Same()), Path("out"), "b", record(image))


def test_a_long_name_is_shown_whole(program, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    name = "patient_with_a_name_of_many_letters_" * 2
    shutil.copy("scans/a.nii.gz", f"{name}1.nii.gz")
    done = program("--image", f"{name}1.nii.gz", "--out", "out")
    assert "…" not in done.stdout
