from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from voxplain.data import Case
from voxplain.errors import GridError, ImageError
from voxplain.models.intensity import apply_steps
from voxplain.models.metatensor import to_metatensor
from voxplain.space import LabelMap, Volume, read_image, write_nifti
from voxplain.testing import phantoms
from voxplain.train.cases import MOST_CENTRES, Prepared, Reader
from voxplain.train.classes import Joining
from voxplain.train.preparation import preparation, reading
from voxplain.train.recipe import CropRecipe, InputRecipe

# MONAI's LoadImage asks for a decoder of DICOM that may not be there; no DICOM is read here
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")
JOINING = Joining({1: "left", 2: "right"}, ("background", "left", "right"), {1: 1, 2: 2})
HU = [{"clip": [-200, 300]}, {"scale": {"from": [-200, 300], "to": [-1, 2]}}]


def parsed(transforms):
    return ConfigParser({"all": transforms}).get_parsed_content("all")


def run(transforms, sample):
    for transform in parsed(transforms):
        sample = transform(sample)
    return sample


@pytest.mark.parametrize(
    "steps",
    [
        HU,
        [{"clip": [-20, 30]}],
        [{"clip": [-float("inf"), 3.5]}],
        [{"scale": {"from": [-5, 5]}}],
        ["zscore"],
        [{"zscore": {"over": "nonzero"}}],
        [{"zscore": {"mean": 3.0, "std": 2.0}}],
        [{"percentiles": {"low": 5, "high": 80, "to": [0, 4]}}],
        [{"clip": [-20, 30]}, {"scale": {"from": [-10, 30]}}, "zscore"],
    ],
    ids=str,
)
def test_each_step_is_what_a_model_card_does(steps):
    recipe = InputRecipe.model_validate({"intensity": steps})
    image = phantoms.volume(n_channels=2)
    image.data[:, 0] = 0
    wanted = apply_steps(image, recipe.intensity).data
    found = run(preparation(recipe)[1:], {"image": to_metatensor(image)})["image"]
    assert np.allclose(np.asarray(found), wanted, atol=1e-4)


@pytest.fixture
def case(tmp_path: Path) -> tuple[Case, Volume, LabelMap]:
    grid = phantoms.oblique_grid((9, 12, 7)).reorient("PIL")
    image = phantoms.volume(grid)
    image = image.with_data(image.data * 300)
    labels = LabelMap.of(
        np.digitize(image.data[0], np.quantile(image.data, [0.8, 0.95])).astype(np.uint8), grid
    )
    write_nifti(tmp_path / "a.nii.gz", image.data, grid)
    write_nifti(tmp_path / "a_labels.nii.gz", labels.layers, grid)
    return Case("a", (tmp_path / "a.nii.gz",), tmp_path / "a_labels.nii.gz"), image, labels


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "SRA"])
def test_training_sees_what_the_bundle_will_see(case, orientation):
    recipe = InputRecipe.model_validate(
        {"orientation": orientation, "spacing": [1.3, 0.9, 1.9], "intensity": HU}
    )
    reader = Reader(recipe, JOINING, ("ct",))
    kept = Prepared([case[0]], ["x"], reader, "none", 0)[0]["image"]
    bundle = run([*reading(), *preparation(recipe)], {"image": str(case[0].images[0])})["image"]
    assert kept.shape == bundle.shape
    assert float((kept - torch.as_tensor(bundle)).abs().max()) == 0


def test_labels_stay_on_their_voxels(case):
    recipe = InputRecipe.model_validate({"orientation": "RAS"})
    sample = Prepared([case[0]], ["x"], Reader(recipe, JOINING, ("ct",)), "none", 0)[0]
    low, high = np.quantile(case[1].data, [0.8, 0.95])
    assert np.array_equal(sample["label"], np.digitize(sample["image"], [low, high]))
    assert not isinstance(sample["image"], MetaTensor)


def test_two_files_are_two_channels_in_both(case, tmp_path):
    second = tmp_path / "b.nii.gz"
    write_nifti(second, case[1].data * 2, case[1].grid)
    files = (*case[0].images, second)
    recipe = InputRecipe.model_validate({"spacing": [1, 1, 1], "intensity": ["zscore"]})
    both = Case("a", files, case[0].labels)
    kept = Prepared([both], ["x"], Reader(recipe, JOINING, ("a", "b")), "none", 0)[0]["image"]
    names = {"image": [str(file) for file in files]}
    bundle = run([*reading(), *preparation(recipe)], names)["image"]
    assert torch.equal(kept, torch.as_tensor(bundle))
    assert torch.allclose(kept[0], kept[1], atol=1e-5)


def test_a_training_case_is_cut_to_its_foreground_and_padded_to_the_crop(case, tmp_path):
    image, labels = case[1], case[2]
    shape = (23, 7, 9)
    empty, truth = np.zeros((1, *shape), np.float32), np.zeros(shape, np.uint8)
    empty[:, 5:17], truth[5:17] = image.data, labels.layers[0]
    grid = phantoms.oblique_grid(shape)
    write_nifti(tmp_path / "c.nii.gz", empty, grid)
    write_nifti(tmp_path / "c_labels.nii.gz", truth, grid)
    wide = Case("c", (tmp_path / "c.nii.gz",), tmp_path / "c_labels.nii.gz")
    crop = CropRecipe(size=(4, 4, 10), centre="class")
    sample = Prepared([wide], ["x"], Reader(InputRecipe(), JOINING, ("ct",), crop), "none", 0)[0]
    assert sample["image"].shape == (1, 12, 7, 10)
    assert np.count_nonzero(sample["label"]) == np.count_nonzero(truth)
    for index, centres in enumerate(sample["centres"]):
        assert (sample["label"].flatten()[centres] == index).all()
        assert len(centres) == min(MOST_CENTRES, np.count_nonzero(sample["label"] == index))


def test_centres_of_any_foreground_voxel_are_of_all_classes_as_one(case):
    crop = CropRecipe(size=(4, 4, 4), centre="voxel")
    reader = Reader(InputRecipe(), JOINING, ("ct",), crop)
    sample = Prepared([case[0]], ["x"], reader, "none", 0)[0]
    assert len(sample["centres"]) == 2
    assert len(sample["centres"][1]) == np.count_nonzero(case[2].layers)


@pytest.mark.parametrize("cache", ["memory", "disk", "too little memory"])
def test_a_case_that_was_kept_is_the_same(case, tmp_path, cache):
    crop = CropRecipe(size=(4, 4, 4))
    reader = Reader(InputRecipe(), JOINING, ("ct",), crop)
    place = tmp_path / "cache" if cache == "disk" else "memory"
    most = 0 if cache == "too little memory" else 10**9
    plain = Prepared([case[0]], ["x"], reader, "none", 0)[0]
    kept = Prepared([case[0]], ["x"], reader, place, most)
    for sample in (kept[0], kept[0]):
        assert all(torch.equal(sample[key], plain[key]) for key in ("image", "label"))
        assert all(map(np.array_equal, sample["centres"], plain["centres"]))
    assert len(list((tmp_path / "cache").glob("*.pt"))) == (cache == "disk")


def test_what_is_on_disk_is_found_again_only_for_the_same_case_and_recipe(case, tmp_path):
    for recipe in (InputRecipe(), InputRecipe(orientation="LPS")):
        for key in ("x", "x", "y"):
            Prepared([case[0]], [key], Reader(recipe, JOINING, ("ct",)), tmp_path / "c", 0)[0]
    assert len(list((tmp_path / "c").iterdir())) == 4


def test_a_fault_of_a_case_is_told_plainly(case, tmp_path):
    reader = Reader(InputRecipe(), JOINING, ("flair", "t1"))
    for cache in ("memory", "none"):
        with pytest.raises(ImageError, match=r"a: expected 2 channels \(flair, t1\), got 1"):
            Prepared([case[0]], ["x"], reader, cache, 10**9)[0]
    elsewhere = phantoms.oblique_grid(case[2].grid.shape)
    write_nifti(tmp_path / "a_labels.nii.gz", case[2].layers, elsewhere)
    with pytest.raises(GridError, match="a: labels and image are on different grids"):
        Prepared([case[0]], ["x"], Reader(InputRecipe(), JOINING, ("ct",)), "none", 0)[0]


def test_pictures_are_refused(tmp_path):
    from PIL import Image

    Image.fromarray(np.eye(5, dtype=np.uint8)).save(tmp_path / "a.png")
    flat = Case("a", (tmp_path / "a.png",), tmp_path / "a.png")
    assert read_image(flat.images).grid.rank == 2
    with pytest.raises(ImageError, match="a recipe trains on 3D images"):
        Prepared([flat], ["x"], Reader(InputRecipe(), JOINING, ("ct",)), "none", 0)[0]
