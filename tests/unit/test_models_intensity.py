from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from voxplain.errors import ImageError
from voxplain.models.intensity import Clip, Percentiles, Scale, Step, ZScore, apply_steps
from voxplain.space.grid import Grid
from voxplain.space.volume import Volume

SHAPE = (5, 7, 11)
AFFINE = np.diag([0.7, 1.1, 2.3, 1.0])


def volume(data: object) -> Volume:
    array = np.asarray(data)
    return Volume(array, Grid(array.shape[1:], AFFINE), ("flair", "t1")[: len(array)])


def random_volume(n_channels: int = 2, dtype: type = np.float64) -> Volume:
    rng = np.random.default_rng(3)
    data = rng.normal(20, 50, (n_channels, *SHAPE)).astype(dtype)
    data[rng.random(data.shape) < 0.3] = 0
    return volume(data)


def step(raw: object) -> object:
    return TypeAdapter(Step).validate_python(raw)


def test_clip_limits_and_leaves_open_sides() -> None:
    image = volume(np.arange(8.0).reshape(1, 2, 2, 2))
    assert Clip(bounds=(2, 5)).apply(image).data.ravel().tolist() == [2, 2, 2, 3, 4, 5, 5, 5]
    assert step({"clip": [3, float("inf")]}).apply(image).data.max() == 7


def test_scale_is_the_line_through_two_points_and_does_not_clip() -> None:
    image = volume(np.array([-1024.0, 0, 1024, 2048]).reshape(1, 1, 2, 2))
    scaled = step({"scale": {"from": [-1024, 1024], "to": [0, 1]}}).apply(image)
    assert scaled.data.ravel().tolist() == [0, 0.5, 1, 1.5]


@pytest.mark.parametrize("over", ["all", "nonzero"])
def test_zscore_is_monai_normalize_intensity(over: str) -> None:
    from monai.transforms import NormalizeIntensity

    image = random_volume(dtype=np.float32)
    expected = NormalizeIntensity(nonzero=over == "nonzero", channel_wise=True)(image.data)
    found = step({"zscore": {"over": over}}).apply(image).data
    np.testing.assert_allclose(found, np.asarray(expected), rtol=2e-5, atol=2e-6)


def test_percentiles_are_monai_scale_intensity_range_percentiles() -> None:
    from monai.transforms import ScaleIntensityRangePercentiles

    image = random_volume()
    monai = ScaleIntensityRangePercentiles(5, 95, -1, 1, clip=True, channel_wise=True)
    found = step({"percentiles": {"low": 5, "high": 95, "to": [-1, 1]}}).apply(image).data
    np.testing.assert_allclose(found, np.asarray(monai(image.data)), atol=1e-6)


def test_percentiles_over_nonzero_leave_zero_where_it_is() -> None:
    image = random_volume(1)
    found = Percentiles(low=10, high=90, over="nonzero", to=(1, 2)).apply(image).data
    low, high = np.percentile(image.data[image.data != 0], [10, 90])
    expected = np.clip(1 + (image.data - low) / (high - low), 1, 2)
    np.testing.assert_allclose(found, np.where(image.data == 0, 0, expected))


def test_fixed_statistics_are_one_for_all_or_one_a_channel() -> None:
    image = random_volume()
    one = step({"zscore": {"mean": 3, "std": 2}}).apply(image).data
    each = step({"zscore": {"mean": [3, 5], "std": [2, 4]}}).apply(image).data
    np.testing.assert_allclose(one, (image.data - 3) / 2)
    np.testing.assert_allclose(each[1], (image.data[1] - 5) / 4)


def test_a_step_can_be_for_one_channel_only() -> None:
    image = random_volume()
    found = step({"scale": {"from": [0, 1], "to": [0, 10]}, "channels": ["t1"]}).apply(image).data
    np.testing.assert_array_equal(found[0], image.data[0])
    np.testing.assert_allclose(found[1], 10 * image.data[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "raw", [{"clip": [0, 9]}, {"scale": {"from": [0, 9]}}, "zscore", "percentiles"]
)
def test_steps_keep_the_type_and_do_not_change_their_argument(raw: object, dtype: type) -> None:
    image = random_volume(dtype=dtype)
    before = image.data.copy()
    found = step(raw).apply(image)
    assert found.data.dtype == dtype
    assert found.grid == image.grid
    assert not np.array_equal(found.data, before)
    np.testing.assert_array_equal(image.data, before)


def test_steps_run_in_order() -> None:
    image = volume(np.array([0.0, 10.0]).reshape(1, 1, 1, 2))
    steps = [Scale(from_=(0, 1), to=(0, 2)), Clip(bounds=(0, 5))]
    assert apply_steps(image, steps).data.ravel().tolist() == [0, 5]
    assert apply_steps(image, steps[::-1]).data.ravel().tolist() == [0, 10]


@given(a=st.floats(0.1, 50), b=st.floats(-100, 100))
def test_zscore_and_percentiles_do_not_see_a_change_of_unit(a: float, b: float) -> None:
    image = random_volume()
    other = image.with_data(a * image.data + b)
    for one in (ZScore(), Percentiles()):
        np.testing.assert_allclose(one.apply(image).data, one.apply(other).data, atol=1e-8)


@pytest.mark.parametrize("raw", ["zscore", {"zscore": {"over": "nonzero"}}, "percentiles"])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_channel_is_an_error_not_a_guess(raw: object, value: float) -> None:
    image = volume(np.full((1, 2, 3, 4), value))
    with pytest.raises(ImageError, match=r"'flair'.*is the channel empty"):
        step(raw).apply(image)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"clip": [5, 2]}, "low < high"),
        ({"clip": [1]}, "clip.bounds.1"),
        ({"scale": {"to": [0, 1]}}, "from"),
        ({"scale": {"from": [0, 0]}}, "low < high"),
        ({"scale": {"from": [0, float("inf")]}}, "finite"),
        ({"zscore": {"mean": 3}}, "both mean and std"),
        ({"zscore": {"mean": 3, "std": 0}}, "std is above 0"),
        ({"zscore": {"over": "some"}}, "'all' or 'nonzero'"),
        ({"percentiles": {"low": 60, "high": 50}}, "low is below high"),
        ({"percentiles": {"high": 101}}, "less than or equal to 100"),
        ({"zscoer": {}}, "did you mean 'zscore'"),
        ({"clip": [0, 1], "zscore": {}}, "one step an item"),
        ({"zscore": [1, 2]}, "name: value"),
        (7, "expected a step such as"),
    ],
)
def test_a_wrong_step_is_refused(raw: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        step(raw)
