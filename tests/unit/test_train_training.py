from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.inferers import sliding_window_inference
from monai.metrics import compute_dice
from torch.nn.functional import one_hot

from voxplain.data import Case, Cohort, read_data
from voxplain.space import write_nifti
from voxplain.testing.phantoms import oblique_grid
from voxplain.train import Recipe, TrainingError, plan, read_recipe, train
from voxplain.train import loop as loop_module
from voxplain.train.loop import amp_type
from voxplain.train.memory import guess_bytes, out_of_memory_said_plainly
from voxplain.train.recipe import OptimiserRecipe
from voxplain.train.schedule import rate
from voxplain.train.state import CHECKPOINT, State, read_state
from voxplain.train.validation import dice

# MONAI's LoadImage asks for a decoder of DICOM that may not be there; no DICOM is read here
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")
SET = [
    "network.name=unet", "crop.size=[12, 12, 8]", "crop.per_case=2", "batch=2", "epochs=3",
    "validation.every=2",
    "network.arguments={channels: [4, 6, 8], strides: [2, 2], norm: instance, dropout: 0.2}",
    "input.intensity=[zscore]", "augmentation={zoom: .5, rotate90: .5, shift: .5}",
]  # fmt: skip


def write_data(folder: Path, n: int = 4) -> Path:
    """Cases in nnU-Net's raw layout: two bright blobs in noise, on oblique grids."""
    names = {"background": 0, "left": 1, "right": 2}
    for i in range(n):
        rng = np.random.default_rng(i)
        grid = oblique_grid((17, 14, 11), (1.1, 1.3, 2.0), seed=i)
        labels = np.zeros(grid.shape, np.uint8)
        labels[2:7, 3 : 8 + i % 2, 2:6] = 1
        labels[10:15, 5:10, 4 : 8 + i % 3] = 2
        image = rng.normal(size=grid.shape) + 3 * labels
        for sub, name, data in (("imagesTr", "_0000", image), ("labelsTr", "", labels)):
            (folder / sub).mkdir(parents=True, exist_ok=True)
            write_nifti(folder / sub / f"case_{i}{name}.nii.gz", data, grid)
    about = {"channel_names": {"0": "ct"}, "labels": names, "numTraining": n}
    (folder / "dataset.json").write_text(json.dumps({**about, "file_ending": ".nii.gz"}))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "Dataset001")


@pytest.fixture(scope="module")
def cohort(data: Path) -> Cohort:
    return read_data(data)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return read_recipe("unet", SET)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, cohort: Cohort, recipe: Recipe) -> Path:
    """The bundle of an uninterrupted training."""
    out = tmp_path_factory.mktemp("whole") / "bundle"
    train(recipe, cohort, out, device="cpu")
    return out


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "models" / "model.pt", weights_only=True)


def assert_equal_weights(one: Path, other: Path) -> None:
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def log_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "training" / "log.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


class Stop(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize(("epoch", "step"), [(0, 1), (1, 1), (2, 2)])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(
    bundle, cohort, recipe, tmp_path, epoch, step
):
    def stop(now):
        if (now.epoch, now.step) == (epoch, step):
            raise Stop

    out = tmp_path / "bundle"
    with pytest.raises(Stop):
        train(recipe, cohort, out, device="cpu", progress=stop)
    assert not (out / "models").exists()
    assert (out / "training" / CHECKPOINT).exists() == (epoch > 0)
    torch.manual_seed(77)  # whatever else draws from the global generators
    np.random.rand(5)  # noqa: NPY002
    train(recipe, cohort, out, device="cpu", cache="none")
    assert_equal_weights(out, bundle)
    assert log_of(out) == log_of(bundle)
    assert not (out / "training" / CHECKPOINT).exists()


@pytest.mark.slow
def test_a_killed_training_ends_as_an_uninterrupted_one(bundle, data, recipe, tmp_path):
    from voxplain.train import recipe_text

    (tmp_path / "recipe.yaml").write_text(recipe_text(recipe))
    program = (
        "import sys, time; from voxplain.train import *; from voxplain.data import read_data\n"
        "import torch; torch.set_num_threads(1)\n"
        "train(read_recipe('recipe.yaml'), read_data(sys.argv[1]), 'bundle', device='cpu',"
        "      progress=lambda now: time.sleep(float(sys.argv[2])))"
    )
    words = [sys.executable, "-c", program, str(data)]
    running = subprocess.Popen([*words, "0.5"], cwd=tmp_path)
    checkpoint = tmp_path / "bundle" / "training" / CHECKPOINT
    while not checkpoint.exists():
        assert running.poll() is None
        time.sleep(0.01)
    time.sleep(0.3)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert not (tmp_path / "bundle" / "models").exists()
    subprocess.run([*words, "0"], cwd=tmp_path, check=True)
    assert_equal_weights(tmp_path / "bundle", bundle)


def test_a_finished_training_is_not_done_again(bundle, cohort, recipe):
    told = []
    before = (bundle / "models" / "model.pt").stat().st_mtime_ns
    again = train(recipe, cohort, bundle, device="cpu", progress=told.append)
    assert (bundle / "models" / "model.pt").stat().st_mtime_ns == before
    assert [now.doing for now in told] == ["reading"]
    record = json.loads((bundle / "training" / "record.json").read_text())
    assert again.record == record
    assert again.dice == max(float(row["dice"]) for row in log_of(bundle) if row["dice"])
    assert log_of(bundle)[again.best_epoch - 1]["dice"] == str(again.dice)


def test_another_recipe_or_other_data_do_not_continue_a_training(bundle, cohort, recipe, tmp_path):
    other = recipe.model_copy(update={"batch": 3})
    with pytest.raises(TrainingError, match="holds a finished training with other recipe"):
        train(other, cohort, bundle, device="cpu")

    def stop(now):
        if now.epoch == 1:
            raise Stop

    with pytest.raises(Stop):
        train(recipe, cohort, tmp_path, device="cpu", progress=stop)
    with pytest.raises(TrainingError, match=r"recipe\.batch was 2, now 3.*--fresh"):
        train(other, cohort, tmp_path, device="cpu")
    fewer = replace(cohort, cases=cohort.cases[1:])
    with pytest.raises(TrainingError, match="data_sha256 was"):
        train(recipe, fewer, tmp_path, device="cpu")
    (tmp_path / "training" / CHECKPOINT).write_bytes(b"torn")
    with pytest.raises(TrainingError, match="cannot be read as the state of a training"):
        train(recipe, cohort, tmp_path, device="cpu")
    train(recipe, cohort, tmp_path, device="cpu", resume=False)
    assert_equal_weights(tmp_path, bundle)


def test_a_checkpoint_holds_plain_values_only(tmp_path):
    state = State({"recipe": {"batch": 2}}, 1, {"network": {"w": torch.ones(2)}}, ({"epoch": 1},))
    state.write(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]
    again = read_state(tmp_path, {"recipe": {"batch": 2}})
    assert (again.epoch, again.rows) == (1, ({"epoch": 1},))
    assert torch.equal(again.parts["network"]["w"], torch.ones(2))


def test_a_loss_that_is_no_number_stops_with_advice(cohort, recipe, tmp_path, monkeypatch):
    class Broken(torch.nn.Module):
        def forward(self, logits, labels):
            return logits.mean() * float("nan")

    monkeypatch.setattr(loop_module, "build_loss", lambda recipe, counts: Broken())
    with pytest.raises(
        TrainingError, match=r"the loss became nan in epoch 1, step 1.*learning rate"
    ):
        train(recipe, cohort, tmp_path / "b", device="cpu")
    assert not (tmp_path / "b").exists()


def test_too_little_memory_gives_advice(recipe):
    with (
        pytest.raises(TrainingError, match=r"batch=1, or a smaller crop\.size"),
        out_of_memory_said_plainly(recipe),
    ):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
    with pytest.raises(RuntimeError, match="something else"), out_of_memory_said_plainly(recipe):
        raise RuntimeError("something else")


def test_a_plan_counts_without_computing(cohort, recipe):
    made = plan(recipe, cohort)
    assert (len(made.division.training), len(made.division.validation)) == (3, 1)
    assert made.n_steps == 3 * 3  # 3 cases × 2 crops in batches of 2, 3 epochs
    assert plan(recipe, cohort, 2).n_steps == 2 * 3
    network = ConfigParser(
        {"_target_": "monai.networks.nets.UNet", "spatial_dims": 3, "in_channels": 1,
         "out_channels": 3, "channels": [4, 6, 8], "strides": [2, 2]}
    ).get_parsed_content()  # fmt: skip
    assert made.n_parameters == sum(p.numel() for p in network.parameters())
    assert made.memory_bytes > 4 * 4 * made.n_parameters


def test_the_guess_of_memory_is_of_what_the_backward_pass_keeps():
    recipe = Recipe.model_validate({"crop": {"size": [8, 8, 8]}, "batch": 3})
    layers = [torch.nn.Conv3d(1, 5, 1, bias=False), torch.nn.ReLU()]
    kept = (1 + 5) * 512 * 4 + 5 * 4  # input and weight of the convolution, output of the ReLU
    found = guess_bytes(torch.nn.Sequential(*layers), recipe, 1)
    assert found == int(4 * 5 * 4 + 1.3 * 3 * kept)


def test_crops_that_a_network_cannot_take_are_refused(cohort):
    with pytest.raises(TrainingError, match=r"swin_unetr cannot take crops of .*multiples of 32"):
        plan(read_recipe("agg2exp", ["crop.size=[40, 40, 40]"]), cohort)
    with pytest.raises(TrainingError, match=r"network.arguments do not fit .*UNet"):
        plan(read_recipe("unet", ["network={name: unet, arguments: {chanels: 3}}"]), cohort)


def test_the_rate_rises_linearly_then_falls_as_half_a_cosine():
    recipe = OptimiserRecipe(warmup=0.2)
    rates = [rate(step, 100, recipe) for step in range(101)]
    assert np.allclose(np.diff(rates[:20]), 1 / 21)
    assert rates[20] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)
    assert {rate(s, 100, OptimiserRecipe(schedule="constant")) for s in range(100)} == {1.0}


def test_mixed_precision_is_off_on_a_cpu_unless_asked_for():
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    assert amp_type("auto", cpu) is None
    assert amp_type("auto", cuda) is torch.float16
    assert amp_type("bf16", cpu) is torch.bfloat16
    assert amp_type("off", cuda) is None
    with pytest.raises(TrainingError, match="amp=fp16 needs CUDA"):
        amp_type("fp16", cpu)


def test_bf16_trains_on_a_cpu(cohort, recipe, tmp_path):
    half = recipe.model_copy(update={"amp": "bf16", "epochs": 1})
    assert 0 <= train(half, cohort, tmp_path, device="cpu").dice <= 1


def test_dice_is_that_of_monai():
    generator = torch.Generator().manual_seed(0)
    found, truth = (torch.randint(0, 4, (5, 7, 11), generator=generator) for _ in range(2))
    truth[truth == 2] = 1
    each, is_there = dice(found, truth, 4)
    masks = (one_hot(part, 4).movedim(-1, 0)[None] for part in (found, truth))
    wanted = compute_dice(*masks, ignore_empty=True)[0].double()
    assert is_there.tolist() == [1, 1, 0, 1]
    assert torch.allclose(each[is_there > 0], wanted[is_there > 0])


def test_no_class_in_the_validation_cases_is_told(cohort, recipe, tmp_path):
    empty = tmp_path / "empty.nii.gz"
    first, *others = cohort.cases
    grid = first.read_image().grid
    write_nifti(empty, np.zeros(grid.shape, np.uint8), grid)
    cases = (
        Case(first.name, first.images, empty, "validation"),
        *(replace(case, split="train") for case in others),
    )
    with pytest.raises(TrainingError, match="no validation case has a voxel of any class"):
        train(recipe, replace(cohort, cases=cases), tmp_path / "b", device="cpu")


def test_the_log_has_a_row_an_epoch(bundle):
    rows = log_of(bundle)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [bool(row["dice"]) for row in rows] == [False, True, True]
    assert [*rows[0]] == ["epoch", "loss", "learning_rate", "dice", "dice_left", "dice_right"]


def test_the_dice_of_the_log_is_that_of_the_weights(bundle, cohort, recipe):
    """MONAI alone, from the files of the bundle, finds the Dice that the record tells."""
    config = ConfigParser()
    config.read_config(bundle / "configs" / "inference.json")
    network = config.get_parsed_content("network_def").eval()
    network.load_state_dict(weights_of(bundle))
    (case,) = plan(recipe, cohort).division.validation
    image = config.get_parsed_content("preprocessing")({"image": str(case.images[0])})["image"]
    with torch.inference_mode():
        logits = sliding_window_inference(
            image[None], recipe.crop.size, 1, network, overlap=0.25, mode="gaussian"
        )
    found = torch.as_tensor(logits)[0].argmax(0)
    truth = torch.from_numpy(cohort.read_labels(case).layers[0].astype(np.int64))
    record = json.loads((bundle / "training" / "record.json").read_text())
    each = dice(found, truth, 3)[0].tolist()[1:]
    assert each == pytest.approx(list(record["dice_of"].values()), abs=1e-6)


def test_several_gpus_are_refused_where_they_are_not(cohort, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(TrainingError, match="2 GPUs were asked for, and torch sees 1"):
        train(recipe, cohort, tmp_path, processes=2)
    with pytest.raises(TrainingError, match="at least one process"):
        train(recipe, cohort, tmp_path, processes=0)


@pytest.mark.slow
def test_two_processes_train_one_model(data, recipe, tmp_path):
    from voxplain.train import recipe_text

    (tmp_path / "recipe.yaml").write_text(recipe_text(recipe))
    program = tmp_path / "go.py"
    program.write_text(
        "import hashlib, os, sys, torch\n"
        "from voxplain.data import read_data\n"
        "from voxplain.train import read_recipe, train, loop\n"
        "kept = loop.Loop.run\n"
        "def run(self, *more):\n"
        "    state = kept(self, *more)\n"
        "    total = b''.join(p.detach().numpy().tobytes() for p in self.network.parameters())\n"
        "    word = hashlib.sha256(total).hexdigest()\n"
        "    open(f'rank{self.rank.index}_{os.path.basename(sys.argv[2])}', 'w').write(word)\n"
        "    return state\n"
        "loop.Loop.run = run\n"
        "if __name__ == '__main__':\n"
        "    train(read_recipe('recipe.yaml'), read_data(sys.argv[1]), sys.argv[2], device='cpu',\n"
        "          processes=int(sys.argv[3]))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for start, n, out in ((torchrun, "1", "run"), ([sys.executable], "2", "spawned")):
        words = [*start, str(program), str(data), out, n]
        subprocess.run(words, cwd=tmp_path, check=True, env=environment)
        assert (tmp_path / out / "models" / "model.pt").is_file()
    digests = [p.read_text() for p in tmp_path.glob("rank*_run")]
    assert len(digests) == 2
    assert len(set(digests)) == 1
    assert_equal_weights(tmp_path / "run", tmp_path / "spawned")
    record = json.loads((tmp_path / "run" / "training" / "record.json").read_text())
    assert record["processes"] == 2


@pytest.mark.slow
def test_a_fault_in_one_of_several_processes_ends_all(data, recipe, tmp_path):
    from voxplain.train import recipe_text

    (tmp_path / "recipe.yaml").write_text(recipe_text(recipe.model_copy(update={"amp": "fp16"})))
    program = tmp_path / "go.py"
    program.write_text(
        "import sys\nfrom voxplain.data import read_data\nfrom voxplain.train import *\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        train(read_recipe('recipe.yaml'), read_data(sys.argv[1]), 'b', device='cpu',\n"
        "              processes=2)\n"
        "    except TrainingError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, str(program), str(data)],
        cwd=tmp_path, check=True, capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stdout == "amp=fp16 needs CUDA; on a CPU use amp=bf16 or amp=off\n"
