from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from voxplain.train import PRESETS, Recipe, TrainingError, read_recipe, recipe_text
from voxplain.train.networks import NETWORKS, network_definition


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_written_and_read_back_is_equal(name, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_text(PRESETS[name]))
    assert read_recipe(path) == read_recipe(name) == PRESETS[name]


@given(
    rate=st.floats(1e-7, 1.0),
    size=st.tuples(*[st.integers(1, 200)] * 3),
    spacing=st.none() | st.tuples(*[st.floats(0.1, 9.0)] * 3),
    classes=st.none() | st.just({"ribs": ["rib_*", 7]}),
)
def test_any_recipe_written_and_read_back_is_equal(tmp_path_factory, rate, size, spacing, classes):
    recipe = Recipe.model_validate(
        {
            "optimiser": {"learning_rate": rate},
            "crop": {"size": size},
            "input": {"spacing": spacing, "intensity": ["zscore", {"clip": [-3, float("inf")]}]},
            "classes": classes,
        }
    )
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(recipe_text(recipe))
    assert read_recipe(path) == recipe


def test_agg2exp_is_what_the_paper_trained():
    recipe = PRESETS["agg2exp"]
    assert network_definition(recipe.network.name, {}, 1, 17, recipe.crop.size) == {
        "_target_": "monai.networks.nets.SwinUNETR", "spatial_dims": 3, "in_channels": 1,
        "out_channels": 17, "feature_size": 48, "use_v2": True, "use_checkpoint": True,
    }  # fmt: skip
    assert (recipe.optimiser.learning_rate, recipe.optimiser.weight_decay) == (1e-4, 1e-5)
    assert (recipe.loss.name, recipe.optimiser.schedule, recipe.batch) == ("dice_ce", "cosine", 2)
    assert (recipe.epochs, recipe.validation.every, recipe.crop.size) == (250, 3, (96, 96, 96))
    assert (recipe.crop.foreground, recipe.crop.to_foreground) == (0.5, True)
    change = recipe.augmentation
    assert (change.zoom, change.zoom_range, change.rotate90) == (0.3, (1.3, 1.5), 0.1)
    assert (change.shift, change.shift_range) == (0.2, 0.1)
    assert (recipe.input.orientation, recipe.input.spacing) == ("RAS", (1.5, 1.5, 1.5))
    assert (recipe.validation.overlap, recipe.validation.blend) == (0.25, "constant")


def test_ies_is_what_the_paper_trained():
    recipe = PRESETS["ies"]
    assert (recipe.loss.name, recipe.validation.blend) == ("ndice_focal", "gaussian")
    assert [(s.step, s.over) for s in recipe.input.intensity] == [("zscore", "nonzero")]
    unet = network_definition("unet", {}, 2, 2, recipe.crop.size)
    assert unet["channels"] == [32, 64, 128, 256, 512]
    assert (unet["strides"], unet["norm"], unet["num_res_units"]) == ([2, 2, 2, 2], "batch", 0)
    assert unet["in_channels"] == 2


def test_a_file_changes_a_preset_and_the_command_line_changes_both(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("preset: agg2exp\nepochs: 9\noptimiser: {learning_rate: 2e-3}\n")
    recipe = read_recipe(path, ["epochs=4", "crop.size=[32, 32, 64]", "input.spacing=null"])
    assert (recipe.epochs, recipe.crop.size, recipe.input.spacing) == (4, (32, 32, 64), None)
    assert recipe.optimiser.learning_rate == 2e-3
    assert recipe.network == PRESETS["agg2exp"].network
    assert recipe.optimiser.weight_decay == 1e-5


def test_another_network_does_not_keep_the_arguments_of_the_first(tmp_path):
    assert read_recipe("unet").network.arguments
    assert read_recipe("unet", ["network.name=unetr"]).network.arguments == {}
    assert read_recipe("unet", ["network.name=unet"]).network == PRESETS["unet"].network
    path = tmp_path / "mine.yaml"
    path.write_text("preset: unet\nnetwork: {name: dynunet}\n")
    assert read_recipe(path).network.arguments == {}


def test_classes_come_from_a_file_of_their_own(tmp_path):
    path = tmp_path / "classes.yaml"
    path.write_text("ribs: rib_*\nlungs: [lung_left, 14]\n")
    recipe = read_recipe("unet", (), path)
    assert recipe.classes == {"ribs": ("rib_*",), "lungs": ("lung_left", 14)}
    assert read_recipe("unet", ["classes.heart=heart"], path).classes["heart"] == ("heart",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("epoch=3", "unknown key 'epoch'; did you mean 'epochs'"),
        ("crop.sise=3", "unknown key 'sise' in crop; did you mean 'size'"),
        ("batch=0", "batch: should be greater than 0, got 0"),
        ("network.name=resnet", "network.name"),
        ("network.arguments.in_channels=2", "in_channels follow from the data"),
        ("crop.size=[32, 64, 64]", "rotate90 turns the first two axes"),
        ("augmentation.zoom_range=[2, 1]", "zoom_range rises"),
        ("input.orientation=RAA", "one letter each of"),
        ("input.intensity=[{clip: [0, 1], channels: [ct]}]", "every channel alike"),
        ("input.intensity=[{percentiles: {over: nonzero}}]", "over all voxels"),
        ("input.intensity=[{zscore: {mean: [1, 2], std: [1, 2]}}]", "one mean and std"),
        ("classes={background: 3}", "the background is what no class holds"),
        ("classes={}", "name at least one class"),
        ("epochs.x=3", "epochs is a value and has no parts"),
        ("epochs", "--set takes KEY=VALUE"),
        ("crop.size=[3", "not valid YAML"),
    ],
)
def test_a_wrong_setting_is_told(change, words):
    with pytest.raises(TrainingError, match=words.replace("[", r"\[").replace("*", r"\*")):
        read_recipe("agg2exp", [change])


def test_all_faults_come_together():
    with pytest.raises(TrainingError) as error:
        read_recipe("unet", ["batch=0", "epoch=3", "loss.gamma=-1"])
    assert "3 faults" in str(error.value)


def test_a_recipe_that_is_not_there_is_told(tmp_path):
    with pytest.raises(TrainingError, match="no recipe 'xyzzy'; known: "):
        read_recipe("xyzzy")
    with pytest.raises(TrainingError, match=r"did you mean 'agg2exp'.*or give a \.yaml file"):
        read_recipe("agg2expp")
    with pytest.raises(TrainingError, match="there is no such file"):
        read_recipe(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text(yaml.safe_dump([1, 2]))
    with pytest.raises(TrainingError, match="expected a mapping"):
        read_recipe(tmp_path / "list.yaml")
    (tmp_path / "preset.yaml").write_text("preset: unett\n")
    with pytest.raises(TrainingError, match="did you mean 'unet'"):
        read_recipe(tmp_path / "preset.yaml")


def test_every_network_has_a_class_in_monai():
    from monai.networks import nets

    assert all(hasattr(nets, kind.target) for kind in NETWORKS.values())
