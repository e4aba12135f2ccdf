from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from voxplain.counterfactual import training_log
from voxplain.counterfactual.classifier import AbnormalLogit, Classifier
from voxplain.counterfactual.draw_seed import step_generator
from voxplain.counterfactual.generator import Batch, Generator, Repair
from voxplain.counterfactual.generator_config import (
    CoinConfig,
    ConditionalConfig,
    InpaintMaskConfig,
)
from voxplain.counterfactual.generator_training import train_generator
from voxplain.counterfactual.generators import KINDS, learner_of, open_generator, precision_of
from voxplain.counterfactual.interruption import asked_to_stop
from voxplain.counterfactual.precision import Precision
from voxplain.counterfactual.samples import COLUMNS, draw_samples, sample_places
from voxplain.counterfactual.slices import COLUMNS as TABLE
from voxplain.counterfactual.slices import Slices
from voxplain.counterfactual.training_log import TrainingLog, read_log
from voxplain.counterfactual.validation_loss import validation_loss, validation_order
from voxplain.errors import MissingExtraError, ModelError, TrainingError

CPU = torch.device("cpu")
CONFIG = CoinConfig(
    steps=23, batch=4, log_every=4, save_every=6, sample_every=10, validate_every=5, width=4
)
IDENTITY = {"seed": 3, "size": [6, 8], "data_sha256": "abc"}


class Stop(Exception):  # noqa: N818
    pass


class Scaling(Generator):
    """x' = tanh(BN(w·x + b)), with statistics of batches as more state."""

    multiple = 1

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.norm = nn.BatchNorm2d(1)

    def repair(self, images):
        return Repair(self.norm(self.conv(images)).tanh())


class Fake:
    """Learns to map noise to 0.3 with Adam, and averages its weights."""

    def __init__(self, config=CONFIG, n_steps=None, bad_step=None) -> None:
        self.seed, self.bad_step = 3, bad_step
        self.n_steps = n_steps or config.steps
        self.precision = Precision(CPU, None)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.learning, self.average = Scaling(), Scaling()
        self.average.load_state_dict(self.learning.state_dict())
        self.average.eval()
        self.networks = {"generator": self.average, "learning": self.learning}
        self.optimisers = {"adam": torch.optim.Adam(self.learning.parameters(), 0.05)}
        self.validated: list[int] = []

    @property
    def generator(self):
        return self.average

    def step(self, number):
        draws = step_generator(self.seed, "images", number)
        images = torch.rand((4, 1, 6, 8), generator=draws) * 2 - 1
        loss = (self.learning.repair(images).image - 0.3).abs().mean()
        self.precision.descend(loss, self.optimisers["adam"])
        with torch.no_grad():
            pairs = zip(
                self.average.state_dict().values(), self.learning.state_dict().values(), strict=True
            )
            for mean, new in pairs:
                mean.copy_(0.8 * mean + 0.2 * new)
        terms = {"l1": float(loss.detach()), "total": float(loss.detach())}
        if number % 5 == 0:
            terms["seldom"] = float(number)
        if number == self.bad_step:
            terms["l1"] = float("nan")
        return terms

    def loss(self, images, labels):
        self.validated.append(len(images))
        with torch.inference_mode():
            wrong = float((self.average.repair(images).image - 0.3).abs().mean())
        return {"l1": wrong, "total": wrong}


def slices(n: int = 20, size: tuple[int, int] = (6, 8)) -> Slices:
    rng = np.random.default_rng(5)
    labels = (np.arange(n) % 3 == 0).astype(np.int8)
    everywhere = np.ones((n, *size), bool)
    table = pd.DataFrame({"case": "a", "patient": 0, "plane": "axial", "index": range(n)})
    images = rng.uniform(-1, 1, (n, 1, *size)).astype(np.float32)
    return Slices(images, labels, ~everywhere, everywhere, everywhere, table[list(TABLE)])


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Rows of the log without times."""
    with (folder / "log.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def assert_same(folder: Path, other: Path) -> None:
    one, two = (load_file(place / "weights.safetensors") for place in (folder, other))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert rows_of(folder) == rows_of(other)
    names = [sorted(p.name for p in (place / "samples").iterdir()) for place in (folder, other)]
    assert names[0] == names[1]


def slow_training(folder: str) -> None:
    """Train in a process that will be killed."""
    torch.set_num_threads(1)
    train_generator(
        Fake(), CONFIG, slices(), Path(folder), IDENTITY, progress=lambda _: time.sleep(0.05)
    )


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    train_generator(Fake(), CONFIG, slices(), folder, IDENTITY)
    return folder


def test_what_a_training_leaves(straight):
    record = json.loads((straight / "generator.json").read_text())
    assert record["config"] == CONFIG.model_dump(mode="json")
    assert record["identity"]["seed"] == 3
    assert (record["size"], record["n_steps"], record["best_step"]) == ([6, 8], 23, 23)
    assert not record["stopped_early"]
    learner = Fake()
    for step in range(23):
        learner.step(step)
    weights = load_file(straight / "weights.safetensors")
    assert all(torch.equal(v, weights[k]) for k, v in learner.average.state_dict().items())
    left = {p.name for p in straight.iterdir()}
    assert left == {"weights.safetensors", "generator.json", "log.csv", "samples"}
    pictures = sorted(p.name for p in (straight / "samples").iterdir())
    assert pictures == ["step_000010.png", "step_000020.png", "step_000023.png"]
    with Image.open(straight / "samples" / pictures[0]) as picture:
        assert picture.size[0] > 800


def test_rows_are_means_since_the_row_before(straight):
    log = read_log(straight)
    assert list(log) == ["step", "l1", "total", "seldom", "val_l1", "val_total", "seconds"]
    assert list(log.step) == [4, 5, 8, 10, 12, 15, 16, 20, 23]
    learner = Fake()
    terms = [learner.step(step) for step in range(23)]
    begins = [0, *log.step[:-1]]
    for begin, row in zip(begins, log.itertuples(), strict=True):
        assert row.l1 == pytest.approx(np.mean([t["l1"] for t in terms[begin : row.step]]))
        some = [t["seldom"] for t in terms[begin : row.step] if "seldom" in t]
        assert np.isnan(row.seldom) if not some else row.seldom == np.mean(some)
    assert list(log.step[log.val_total.notna()]) == [5, 10, 15, 20, 23]


@pytest.mark.parametrize("at", [2, 6, 7, 17, 22])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(straight, tmp_path, at):
    def stop(now):
        if now.what == "training" and now.step == at:
            raise Stop

    with pytest.raises(Stop):
        train_generator(Fake(), CONFIG, slices(), tmp_path, IDENTITY, progress=stop)
    assert (tmp_path / "training" / "checkpoint.pt").exists() == (at >= 6)
    assert not (tmp_path / "generator.json").exists()
    torch.manual_seed(77)  # whatever else draws from the global generators
    told = []
    train_generator(Fake(), CONFIG, slices(), tmp_path, IDENTITY, progress=told.append)
    assert told[0].step == at // 6 * 6 + 1
    assert_same(tmp_path, straight)
    assert not (tmp_path / "training").exists()


@pytest.mark.slow
def test_a_killed_training_ends_as_an_uninterrupted_one(straight, tmp_path):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_counterfactual_training as t; "
        "t.slow_training(sys.argv[2])"
    )
    words = [sys.executable, "-c", program, str(Path(__file__).parent), str(tmp_path)]
    running = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (tmp_path / "training" / "checkpoint.pt").exists():
        assert running.poll() is None
        time.sleep(0.005)
    time.sleep(np.random.default_rng().uniform(0, 0.5))
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert not (tmp_path / "generator.json").exists()
    told = []
    train_generator(Fake(), CONFIG, slices(), tmp_path, IDENTITY, progress=told.append)
    assert told[0].step in (7, 13, 19)
    assert_same(tmp_path, straight)


def test_asked_to_stop_it_saves_its_state(straight, tmp_path):
    asked = iter([False, False, False, True])
    with pytest.raises(KeyboardInterrupt):
        train_generator(
            Fake(), CONFIG, slices(), tmp_path, IDENTITY, should_stop=lambda: next(asked)
        )
    told = []
    train_generator(Fake(), CONFIG, slices(), tmp_path, IDENTITY, progress=told.append)
    assert told[0].step == 5
    assert_same(tmp_path, straight)


def test_ctrl_c_ends_the_step_and_saves(straight, tmp_path):
    def press(now):
        if now.what == "training" and now.step in (3, 23):
            signal.raise_signal(signal.SIGINT)

    for at in (5, None):  # asked after the fourth step, and when the last one is done
        with pytest.raises(KeyboardInterrupt), asked_to_stop() as should_stop:
            train_generator(
                Fake(), CONFIG, slices(), tmp_path, IDENTITY, progress=press,
                should_stop=should_stop,
            )  # fmt: skip
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert (tmp_path / "generator.json").exists() == (at is None)
        assert (tmp_path / "training" / "checkpoint.pt").exists() == (at is not None)
    assert_same(tmp_path, straight)


def test_ctrl_c_twice_interrupts_at_once():
    reached = []

    def work():
        with asked_to_stop() as should_stop:
            reached.append(should_stop())
            signal.raise_signal(signal.SIGINT)
            reached.append(should_stop())
            signal.raise_signal(signal.SIGINT)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == [False, True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_programs_that_handle_ctrl_c_themselves_keep_their_handler():
    kept = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with asked_to_stop() as should_stop:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
            assert not should_stop()
    finally:
        signal.signal(signal.SIGINT, kept)
    answers = []

    def work():
        with asked_to_stop() as should_stop:
            answers.append(should_stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False]


def test_a_finished_training_is_recognised(straight):
    before = (straight / "generator.json").stat().st_mtime_ns
    learner, told = Fake(), []
    again = train_generator(learner, CONFIG, slices(), straight, IDENTITY, progress=told.append)
    assert not told
    assert (straight / "generator.json").stat().st_mtime_ns == before
    weights = load_file(straight / "weights.safetensors")
    assert torch.equal(learner.average.conv.weight, weights["conv.weight"])
    assert list(again.rows.step)[-1] == again.n_steps == again.best_step == 23


def test_another_identity_is_refused_until_begun_anew(tmp_path):
    other = {**IDENTITY, "data_sha256": "xyz"}

    def stop(now):
        if now.step == 7:
            raise Stop

    with pytest.raises(Stop):
        train_generator(Fake(), CONFIG, slices(), tmp_path, IDENTITY, progress=stop)
    message = "data_sha256 was 'abc', now 'xyz'"
    with pytest.raises(TrainingError, match=message) as caught:
        train_generator(Fake(), CONFIG, slices(), tmp_path, other)
    assert str(tmp_path) in str(caught.value)
    assert "--fresh" in str(caught.value)
    train_generator(Fake(), CONFIG, slices(), tmp_path, IDENTITY)
    faster = CONFIG.model_copy(update={"learning_rate": 0.1})
    with pytest.raises(TrainingError, match=r"config.learning_rate was 0.0005, now 0.1; data_sha"):
        train_generator(Fake(), faster, slices(), tmp_path, other)
    (tmp_path / "samples" / "step_000777.png").touch()
    (tmp_path / "tensorboard").mkdir()
    told = []
    train_generator(Fake(), CONFIG, slices(), tmp_path, other, resume=False, progress=told.append)
    assert told[0].step == 1
    assert not (tmp_path / "samples" / "step_000777.png").exists()
    assert not (tmp_path / "tensorboard").exists()


def test_how_often_is_logged_does_not_make_another_training(tmp_path, straight):
    def stop(now):
        if now.step == 7:
            raise Stop

    with pytest.raises(Stop):
        train_generator(Fake(), CONFIG, slices(), tmp_path, IDENTITY, progress=stop)
    other = CONFIG.model_copy(update={"log_every": 3, "save_every": 2, "sample_every": 9})
    told = []
    train_generator(Fake(), other, slices(), tmp_path, IDENTITY, progress=told.append)
    assert told[0].step == 7
    weights = [load_file(place / "weights.safetensors") for place in (tmp_path, straight)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    record = json.loads((tmp_path / "generator.json").read_text())
    assert record["config"] == other.model_dump(mode="json")
    told.clear()
    train_generator(Fake(), CONFIG, slices(), tmp_path, IDENTITY, progress=told.append)
    assert not told
    assert open_config(tmp_path) == other


def open_config(folder):
    record = json.loads((folder / "generator.json").read_text())
    return CoinConfig.model_validate(record["config"])


def test_damaged_results_are_told(tmp_path):
    train_generator(Fake(), CONFIG, slices(), tmp_path, IDENTITY)
    good = (tmp_path / "weights.safetensors").read_bytes()
    (tmp_path / "weights.safetensors").write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(TrainingError, match="differ from those that were trained"):
        train_generator(Fake(), CONFIG, slices(), tmp_path, IDENTITY)
    (tmp_path / "weights.safetensors").write_bytes(good[:9])
    with pytest.raises(TrainingError, match="--fresh"):
        train_generator(Fake(), CONFIG, slices(), tmp_path, IDENTITY)
    (tmp_path / "generator.json").write_text("{")
    with pytest.raises(TrainingError, match="cannot be read as the record"):
        train_generator(Fake(), CONFIG, slices(), tmp_path, IDENTITY)


@pytest.mark.parametrize("where", ["step", "validation"])
def test_a_term_that_is_no_number_ends_the_training(tmp_path, where):
    learner = Fake(bad_step=8 if where == "step" else None)
    if where == "validation":
        learner.loss = lambda images, labels: {"total": float("inf")}
    expected = {
        "step": "l1 = nan at step 9 of 23",
        "validation": "total = inf of the validation slices at step 5 of 23",
    }
    with pytest.raises(TrainingError, match=expected[where]) as caught:
        train_generator(learner, CONFIG, slices(), tmp_path, IDENTITY)
    assert "learning rate of 0.0005" in str(caught.value)
    assert "amp=off" in str(caught.value)
    assert (tmp_path / "training" / "checkpoint.pt").exists() == (where == "step")


def scripted(learner: Fake, totals: list[float]) -> Fake:
    """Give the learner's validations the totals of a script, by the number of its steps."""
    steps = [0]
    step = learner.step

    def counted(number):
        steps[0] = number + 1
        return step(number)

    learner.step = counted
    learner.loss = lambda images, labels: {"total": totals[steps[0] // 5 - 1]}
    return learner


@pytest.mark.parametrize("stop_at", [None, 14, 19])
def test_patience_keeps_the_best(tmp_path, stop_at):
    config = CONFIG.model_copy(update={"steps": 40, "patience": 2})
    totals = [3.0, 1.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0]

    def stop(now):
        if now.what == "training" and now.step == stop_at:
            raise Stop

    if stop_at is not None:
        learner = scripted(Fake(config), totals)
        with pytest.raises(Stop):
            train_generator(learner, config, slices(), tmp_path, IDENTITY, progress=stop)
    learner = scripted(Fake(config), totals)
    trained = train_generator(learner, config, slices(), tmp_path, IDENTITY)
    assert (trained.n_steps, trained.best_step, trained.stopped_early) == (20, 10, True)
    best = Fake(config)
    for step in range(10):
        best.step(step)
    weights = load_file(tmp_path / "weights.safetensors")
    for name, value in best.average.state_dict().items():
        assert torch.equal(weights[name], value)
        assert torch.equal(learner.average.state_dict()[name], value)


def test_patience_begins_with_the_last_stage(tmp_path):
    config = InpaintMaskConfig(
        inpaint_steps=20, steps=20, validate_every=5, patience=2, sample_every=100
    )
    totals = [1.0, 2.0, 2.0, 2.0, 9.0, 8.0, 8.0, 8.0]
    learner = scripted(Fake(config, n_steps=40), totals)
    trained = train_generator(learner, config, slices(), tmp_path, IDENTITY)
    assert (trained.n_steps, trained.best_step, trained.stopped_early) == (40, 30, False)
    with pytest.raises(TrainingError, match="no validation slice"):
        train_generator(learner, config, slices(0), tmp_path / "none", IDENTITY)


def test_without_validation_slices_there_is_neither_validation_nor_sample(tmp_path):
    trained = train_generator(Fake(), CONFIG, slices(0), tmp_path, IDENTITY)
    assert not [name for name in trained.rows if name.startswith("val_")]
    assert not (tmp_path / "samples").exists()


def test_validation_is_the_mean_over_slices():
    learner, some = Fake(), slices(70)
    found = validation_loss(learner, some)
    assert learner.validated == [32, 32, 6]
    with torch.inference_mode():
        repaired = learner.average.repair(torch.from_numpy(some.images)).image.numpy()
    assert found["total"] == pytest.approx(np.abs(repaired - 0.3).mean(), rel=1e-6)


def test_validation_batches_are_alike_and_at_most_256():
    labels = (np.arange(1000) % 4 == 0).astype(np.int8)
    order = validation_order(labels)
    assert len(order) == len(set(order.tolist())) == 256
    assert labels[order].reshape(8, 32).sum(axis=1).tolist() == [8] * 8
    assert np.diff(np.sort(order)).max() <= 12
    assert sorted(validation_order(labels[:50]).tolist()) == list(range(50))
    assert len(validation_order(labels[:0])) == 0


def test_samples_are_abnormal_first_and_leave_the_generator_as_it_was():
    some = slices(30)
    places = sample_places(some.labels)
    assert some.labels[places].tolist() == [1] * 5 + [0] * 3
    assert some.labels[sample_places(np.ones(30, np.int8))].shape == (8,)
    assert len(sample_places(np.zeros(4, np.int8))) == 4
    generator = Scaling()
    generator.norm.eval()
    before = {k: v.clone() for k, v in generator.state_dict().items()}
    drawing = draw_samples(generator, some, places)
    assert generator.training
    assert not generator.norm.training
    assert all(torch.equal(v, before[k]) for k, v in generator.state_dict().items())
    generator.eval()
    with torch.inference_mode():
        repaired = generator.repair(torch.from_numpy(some.images[places])).image.numpy()
    change = np.abs(repaired - some.images[places])[:, 0] / 2
    assert tuple(drawing.table) == COLUMNS
    np.testing.assert_allclose(drawing.table.mean_change, change.mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(drawing.table.largest_change, change.max(axis=(1, 2)), rtol=1e-5)
    assert len(drawing.figure.axes) == 3


def test_tensorboard_is_asked_for_and_may_be_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(training_log, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install tensorboard"):
        train_generator(Fake(), CONFIG, slices(), tmp_path, IDENTITY, tensorboard=True)
    calls: list[tuple] = []

    class Writer:
        def __init__(self, folder, purge_step):
            calls.append(("open", Path(folder).name, purge_step))

        def add_scalar(self, name, value, step):
            calls.append((name, value, step))

        def add_image(self, name, pixels, step, dataformats):
            calls.append((name, pixels.shape[-1], step, dataformats))

        def close(self):
            calls.append(("close",))

    monkeypatch.setattr(training_log, "find_spec", lambda name: object())
    fake = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setattr(training_log, "import_module", lambda name: fake)
    trained = train_generator(Fake(), CONFIG, slices(), tmp_path, IDENTITY, tensorboard=True)
    assert calls[0] == ("open", "tensorboard", 1)
    assert calls[-1] == ("close",)
    assert ("val_total", trained.rows.val_total[1], 5) in calls
    assert ("samples", 3, 20, "HWC") in calls


def test_a_torn_log_is_told(tmp_path):
    with pytest.raises(TrainingError, match=r"log\.csv: cannot be read"):
        read_log(tmp_path)
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    with pytest.raises(TrainingError, match=r"log\.csv: cannot be read"):
        read_log(tmp_path)
    log = TrainingLog(tmp_path)
    log.add({"l1": 0.1})
    log.add({"l1": 0.2})
    log.end_row(2, {"l1": 1 / 3})
    assert read_log(tmp_path).iloc[0].tolist() == [2, (0.1 + 0.2) / 2, 1 / 3, 0.0]


def classifier() -> Classifier:
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 1))
    nn.init.constant_(module[2].weight, 2.0)
    nn.init.constant_(module[2].bias, 0.1)
    network = AbnormalLogit(module, 0, False, 1.0, 0.0).eval().requires_grad_(False)
    return Classifier(network, "mean", "0")


class Noise:
    """A source of noise."""

    def batch(self, stream, step, n_normal, n_abnormal):
        n = n_normal + n_abnormal
        draws = step_generator(0, stream, step)
        images = torch.rand((n, 1, 16, 16), generator=draws) * 2 - 1
        labels = (torch.arange(n) >= n_normal).float()
        return Batch(images, labels, torch.ones_like(images))

    def mixed(self, stream, step, n):
        return self.batch(stream, step, n // 2, n - n // 2)


@pytest.mark.parametrize(
    "config",
    [
        CoinConfig(steps=3, batch=2, width=4, discriminator_width=4, save_every=2),
        InpaintMaskConfig(inpaint_steps=2, steps=2, batch=2, width=4, save_every=3),
        ConditionalConfig(
            steps=6,
            batch=2,
            widths=(4, 4),
            skips=1,
            discriminator_widths=(4, 4),
            save_every=4,
            generator_every=2,
        ),
    ],
    ids=lambda config: config.kind,
)
def test_a_real_generator_is_trained_interrupted_and_opened(config, tmp_path):
    def learner():
        return learner_of(config, classifier(), Noise(), (16, 16), 1, CPU, None)

    def stop(now):
        if now.step == config.save_every:
            raise Stop

    some = slices(6, (16, 16))
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    trained = train_generator(learner(), config, some, whole, IDENTITY)
    with pytest.raises(Stop):
        train_generator(learner(), config, some, torn, IDENTITY, progress=stop)
    last = learner()
    train_generator(last, config, some, torn, IDENTITY)
    assert_same(torn, whole)
    state = torch.get_rng_state()
    opened = open_generator(whole)
    assert torch.equal(torch.get_rng_state(), state)
    assert not opened.training
    assert not any(p.requires_grad for p in opened.parameters())
    images = torch.from_numpy(some.images)
    with torch.inference_mode():
        expected = last.generator.eval().repair(images).image
        assert torch.equal(opened.repair(images).image, expected)
    assert trained.sha256 == json.loads((torn / "generator.json").read_text())["sha256"]

    good = (whole / "weights.safetensors").read_bytes()
    (whole / "weights.safetensors").write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ModelError, match="differ from those that were trained"):
        open_generator(whole)
    (whole / "weights.safetensors").write_bytes(good[:20])
    with pytest.raises(ModelError, match="cannot be read as a trained generator"):
        open_generator(whole)
    (whole / "weights.safetensors").unlink()
    with pytest.raises(ModelError, match=r"weights\.safetensors are not there"):
        open_generator(whole)


def test_a_size_that_the_generator_cannot_take_is_told():
    config = CoinConfig(width=4, discriminator_width=4)
    with pytest.raises(TrainingError, match=r"divisible by 16: choose e\.g\. \[48, 64\]"):
        learner_of(config, classifier(), Noise(), (40, 64), 0, CPU, None)


def test_every_kind_has_a_learner_and_precision_follows_the_device():
    assert set(KINDS) == {"coin", "conditional", "inpaint-mask"}
    assert precision_of("auto", CPU) is None
    assert precision_of("auto", torch.device("cuda")) is torch.float16
    assert precision_of("bf16", CPU) is torch.bfloat16
    with pytest.raises(TrainingError, match="fp16 needs CUDA"):
        precision_of("fp16", CPU)
