"""Synthetic anomalies: closed forms of g, of its area and of the change; frozen sets."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import label

from voxplain.counterfactual.blobs import frozen as frozen_into
from voxplain.counterfactual.blobs import has_room, insert
from voxplain.counterfactual.config import BlobConfig
from voxplain.counterfactual.slices import Slices, read_slices
from voxplain.errors import DataError

ROUND = BlobConfig(elongation=(1, 1))
SIZE = (48, 60)


@pytest.fixture
def frozen(tmp_path_factory):
    """Freeze slices into a folder of their own."""
    return lambda *given: frozen_into(*given, tmp_path_factory.mktemp("frozen") / "part")


def disc(size=SIZE, centre=(22, 31), radius=8):
    rows, columns = np.ogrid[: size[0], : size[1]]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


def flat(value=-0.8, size=SIZE):
    return np.full(size, value, np.float32)


def rng(*key):
    return np.random.default_rng([5, *key])


def some_slices(n=24, seed=0):
    table = pd.DataFrame({
        "case": [f"case_{i // 4}" for i in range(n)], "patient": [i // 4 for i in range(n)],
        "plane": "axial", "index": [i % 4 for i in range(n)],
    })  # fmt: skip
    noise = np.random.default_rng(seed).uniform(-0.6, 0.2, (n, 1, *SIZE)).astype(np.float32)
    organ = np.stack([disc(radius=2 if i % 4 == 0 else 8) for i in range(n)])
    inside = np.ones((n, *SIZE), np.bool_)
    inside[:, 31:] = False
    assert not (organ & ~inside).any()
    return Slices(noise, np.zeros(n, np.int8), np.zeros_like(inside), organ, inside, table)


@pytest.mark.parametrize("level", [0.1, 0.25, 0.6])
def test_g_is_one_at_the_centre_and_the_level_at_the_radius(level):
    config = BlobConfig(elongation=(1, 1), radius_px=(5, 5), mask_level=level)
    blob = insert(flat(), disc(), config, (0.4, 0.4), rng(1))
    row, column = blob.centre
    g = (blob.image + 0.8) / 2 / 0.4
    assert disc()[row, column]
    assert g[row, column] == pytest.approx(1, abs=1e-6)
    for at in [(row + 5, column), (row - 5, column), (row, column + 5), (row + 3, column - 4)]:
        assert g[at] == pytest.approx(level, abs=1e-6)
    sigma = 5 / np.sqrt(2 * np.log(1 / level))
    assert g[row + 2, column + 1] == pytest.approx(np.exp(-5 / (2 * sigma**2)), abs=1e-6)


def test_every_pixel_is_as_in_the_formula_when_stretched_turned_and_bent():
    config = BlobConfig(elongation=(1.3, 2.0), distortion=0.6)
    bent = 0
    for i in range(12):
        blob = insert(flat(), disc(), config, (0.5, 0.5), rng(2, i))
        rows, columns = np.indices(SIZE) - np.array(blob.centre)[:, None, None]
        along = rows * np.cos(blob.angle) + columns * np.sin(blob.angle)
        across = columns * np.cos(blob.angle) - rows * np.sin(blob.angle)
        v, u = along / blob.radii[0], across / blob.radii[1]
        u = u + blob.bend * np.sin(np.pi * v / 2) ** 2
        g = 0.25 ** (u**2 + v**2)
        np.testing.assert_allclose(blob.image, -0.8 + 2 * 0.5 * g, atol=1e-6)
        assert np.array_equal(blob.truth, g > 0.25)
        assert 1.3 <= blob.radii[0] / blob.radii[1] <= 2.0
        assert 0 <= blob.angle < np.pi
        assert abs(blob.bend) <= 0.6
        bent += blob.bend != 0
    assert 0 < bent < 12


@pytest.mark.parametrize("distortion", [0.0, 0.5])
def test_area_is_that_of_a_circle_of_the_radius(distortion):
    config = BlobConfig(radius_px=(7, 7), elongation=(1, 1.8), distortion=distortion)
    big = (90, 90)
    for i in range(20):
        blob = insert(flat(size=big), disc(big, (45, 45), 9), config, (0.5, 0.5), rng(3, i))
        assert blob.truth.sum() == pytest.approx(np.pi * 49, rel=0.1)
        assert np.prod(blob.radii) == pytest.approx(49)
        assert label(blob.truth)[1] == 1


def test_bright_tissue_is_clipped_and_truth_does_not_care():
    blob = insert(flat(0.9), disc(), ROUND, (0.6, 0.6), rng(4))
    dim = insert(flat(-0.9), disc(), ROUND, (0.6, 0.6), rng(4))
    assert blob.image.max() == 1
    assert (blob.image - 0.9).max() == pytest.approx(0.1, abs=1e-6)
    assert np.array_equal(blob.truth, dim.truth)
    np.testing.assert_allclose(blob.image, np.minimum(dim.image + 1.8, 1), atol=1e-6)


def test_dark_takes_away_what_bright_adds():
    bright = insert(flat(0), disc(), ROUND, (0.3, 0.5), rng(5))
    dark = insert(flat(0), disc(), BlobConfig(elongation=(1, 1), sign="dark"), (0.3, 0.5), rng(5))
    np.testing.assert_allclose(dark.image, -bright.image, atol=1e-7)
    assert dark.amplitude == -bright.amplitude
    assert 0.3 <= bright.amplitude <= 0.5
    assert dark.image.min() == pytest.approx(2 * dark.amplitude)
    both = BlobConfig(sign="both")
    signs = [insert(flat(0), disc(), both, (0.5, 0.5), rng(6, i)).amplitude for i in range(60)]
    assert 18 < sum(sign < 0 for sign in signs) < 42


def test_inputs_stay_and_the_far_away_is_left_to_the_bit():
    image = np.random.default_rng(1).uniform(-1, 1, SIZE).astype(np.float32)
    before, organ = image.copy(), disc()
    blob = insert(image, organ, ROUND, (0.5, 0.5), rng(7))
    assert np.array_equal(image, before)
    assert np.array_equal(organ, disc())
    rows, columns = np.indices(SIZE) - np.array(blob.centre)[:, None, None]
    far = np.hypot(rows, columns) > 3.5 * blob.radii[0]
    assert far.any()
    assert np.array_equal(blob.image[far], before[far])
    assert blob.image.dtype == np.float32


def test_a_blob_at_the_border_is_the_part_of_it_that_is_there():
    config = BlobConfig(elongation=(1, 1), radius_px=(5, 5))
    organ = np.zeros(SIZE, np.bool_)
    organ[:1, :40] = True
    blob = insert(flat(), organ, config, (0.5, 0.5), rng(8))
    rows, columns = np.indices(SIZE) - np.array(blob.centre)[:, None, None]
    np.testing.assert_allclose(
        blob.image, -0.8 + 0.25 ** ((rows**2 + columns**2) / 25), atol=1e-6
    )  # fmt: skip
    assert blob.centre[0] == 0


def test_cut_off_at_the_organ_or_at_the_padding():
    cut = BlobConfig(radius_px=(6, 6), inside_only=True)
    whole = insert(flat(), disc(), BlobConfig(radius_px=(6, 6)), (0.5, 0.5), rng(9))
    blob = insert(flat(), disc(), cut, (0.5, 0.5), rng(9))
    assert np.array_equal(blob.truth, whole.truth & disc())
    assert np.array_equal(blob.image[disc()], whole.image[disc()])
    assert (blob.image[~disc()] == np.float32(-0.8)).all()
    inside = np.zeros(SIZE, np.bool_)
    inside[:22] = True
    padded = insert(flat(), disc(), BlobConfig(radius_px=(6, 6)), (0.5, 0.5), rng(9), inside)
    assert np.array_equal(padded.truth, whole.truth & inside)
    assert (padded.image[~inside] == np.float32(-0.8)).all()


def test_the_two_largest_parts_get_them_equally_often_and_all_over():
    organ = disc(centre=(12, 12), radius=7) | disc(centre=(12, 45), radius=4)
    organ |= disc(centre=(38, 12), radius=3.2)
    least = int(disc(radius=3.2).sum())
    config = BlobConfig(min_organ_px=least)
    centres = np.array([
        insert(flat(), organ, config, (0.5, 0.5), rng(10, i)).centre for i in range(600)
    ])  # fmt: skip
    assert (centres[:, 0] < 25).all()
    in_second = centres[:, 1] > 30
    assert abs(in_second.mean() - 0.5) < 4 * 0.5 / np.sqrt(600)
    of_first = centres[~in_second] - (12, 12)
    assert np.abs(of_first.mean(0)).max() < 1
    # a uniform disc of radius 7 has a mean squared distance of 7²/2
    assert (of_first**2).sum(1).mean() == pytest.approx(24.5, rel=0.15)


def test_parts_that_touch_at_a_corner_are_one():
    organ = np.zeros(SIZE, np.bool_)
    organ[10:14, 10:14] = organ[14:18, 14:18] = True
    assert has_room(organ, BlobConfig(min_organ_px=32))
    assert not has_room(organ, BlobConfig(min_organ_px=33))


def test_none_where_no_part_is_large_enough():
    least = int(disc().sum())
    assert insert(flat(), disc(), BlobConfig(min_organ_px=least + 1), (0.5, 0.5), rng(11)) is None
    assert insert(flat(), disc(), BlobConfig(min_organ_px=least), (0.5, 0.5), rng(11)) is not None
    empty = np.zeros(SIZE, np.bool_)
    assert insert(flat(), empty, BlobConfig(min_organ_px=0), (0.5, 0.5), rng(11)) is None


def test_another_setting_leaves_the_other_draws_as_they_were():
    plain = insert(flat(), disc(), ROUND, (0.5, 0.5), rng(12))
    stretched = insert(flat(), disc(), BlobConfig(elongation=(1.4, 1.4)), (0.5, 0.5), rng(12))
    assert plain.centre == stretched.centre
    assert np.prod(plain.radii) == pytest.approx(np.prod(stretched.radii))


# -- frozen ---------------------------------------------------------------------------
def test_frozen_slices_hold_what_was_put_in_and_what_was_there(frozen):
    slices = some_slices()
    done = frozen(slices, BlobConfig(), 3, "test")
    has_place = np.arange(24) % 4 != 0
    is_abnormal = done.labels == 1
    assert is_abnormal.any()
    assert not is_abnormal[~has_place].any()
    assert np.array_equal(done.clean, slices.images)
    assert np.array_equal((done.images != done.clean).any((1, 2, 3)), is_abnormal)
    assert np.array_equal(done.truth.any((1, 2)), is_abnormal)
    assert not (done.truth & ~slices.inside).any()
    assert not slices.labels.any()
    # min(2·0.6, 1 − 0.2) is the least change at a centre
    assert ((done.images - done.clean)[is_abnormal].max((1, 2, 3)) >= 0.8 - 1e-6).all()


def test_frozen_depends_on_neither_order_nor_company(frozen):
    slices = some_slices()
    done = frozen(slices, BlobConfig(), 3, "test")
    order = np.random.default_rng(0).permutation(24)
    turned = frozen(slices.at(order), BlobConfig(), 3, "test")
    assert np.array_equal(turned.images, done.images[order])
    assert np.array_equal(turned.truth, done.truth[order])
    few = [2, 5, 7, 9, 13, 14]
    assert 0 < done.labels[few].sum() < len(few)
    part = frozen(slices.at(few), BlobConfig(), 3, "test")
    assert np.array_equal(part.images, done.images[few])


def test_seed_and_part_give_others(frozen):
    slices = some_slices()
    first = frozen(slices, BlobConfig(), 3, "test")
    for seed, part in [(4, "test"), (3, "validation")]:
        assert not np.array_equal(first.images, frozen(slices, BlobConfig(), seed, part).images)


def test_frozen_from_disk_is_the_same(tmp_path, frozen):
    slices = some_slices()
    slices.write(tmp_path / "slices")
    done = frozen(read_slices(tmp_path / "slices"), BlobConfig(), 3, "test")
    assert np.array_equal(done.images, frozen(slices, BlobConfig(), 3, "test").images)


def test_as_many_as_asked_for(frozen):
    slices = some_slices(800)
    share = frozen(slices, BlobConfig(probability=0.3), 0, "test").labels[np.arange(800) % 4 > 0]
    assert abs(share.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 600)


def test_faults_of_frozen_slices_say_what_to_do(frozen):
    slices = some_slices()
    with pytest.raises(DataError, match=r"none of 24 slices.*at least 900 pixels.*min_organ_px"):
        frozen(slices, BlobConfig(min_organ_px=900), 0, "test")
    with pytest.raises(DataError, match=r"24 slices, 18 with room.*got an anomaly.*raise"):
        frozen(slices, BlobConfig(probability=0), 0, "test")
    with pytest.raises(DataError, match=r"stayed normal; lower synthetic.probability"):
        frozen(slices.at([1, 2, 3]), BlobConfig(probability=1), 0, "validation")
    with pytest.raises(DataError, match="test: there are no slices"):
        frozen(slices.at(np.arange(0)), BlobConfig(), 0, "test")
    with pytest.raises(DataError, match="abnormal before anomalies are put in"):
        frozen(frozen(slices, BlobConfig(), 0, "test"), BlobConfig(), 0, "test")


def test_frozen_into_the_folder_it_reads_without_memory_that_grows(tmp_path):
    peaks = []
    for n in (64, 64, 512):
        folder = tmp_path / str(n) / "test"
        some_slices(n).write(folder)
        before = read_slices(folder)
        tracemalloc.start()
        done = frozen_into(before, BlobConfig(), 3, "test", folder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert np.array_equal(done.clean, some_slices(n).images)
        assert {path.name for path in folder.parent.iterdir()} == {"test"}
    assert peaks[2] - peaks[1] < 0.05 * done.images.nbytes


def test_what_cannot_be_frozen_leaves_what_was_there(tmp_path):
    some_slices().write(tmp_path / "test")
    with pytest.raises(DataError, match="got an anomaly"):
        frozen_into(
            read_slices(tmp_path / "test"), BlobConfig(probability=0), 0, "test",
            tmp_path / "test",
        )  # fmt: skip
    kept = read_slices(tmp_path / "test")
    assert kept.clean is None
    assert np.array_equal(kept.images, some_slices().images)
