"""Configurations: cards need their own pictures, and presets say what they claim."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from voxplain.attribution.score_cam import ScoreCam
from voxplain.attribution.words import methods_of
from voxplain.cli.counterfactual import TRAIN_EPILOG
from voxplain.counterfactual.classifier_loop import ClassifierLoop
from voxplain.counterfactual.classifier_networks import build, write_card
from voxplain.counterfactual.config import ClassifierConfig
from voxplain.counterfactual.config_file import read_config
from voxplain.counterfactual.generator import Batch
from voxplain.counterfactual.generators import build_generator
from voxplain.counterfactual.preparation import check_card
from voxplain.counterfactual.training import train_run
from voxplain.data import Cohort
from voxplain.errors import DataError, ModelError, TrainingError

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "counterfactuals.md"


class Window:
    def __init__(self, low: float, high: float) -> None:
        self.size, self.low, self.high = (32, 32), low, high


@pytest.fixture
def cards(tmp_path: Path) -> tuple[str, str, str]:
    """Two classifiers that prepare images alike, and one that does not."""
    made = []
    for name, high in (("one", 1.0), ("alike", 1.0), ("other", 2.0)):
        write_card(tmp_path / name, build("small"), "small", Window(0, high), name)
        made.append(str(tmp_path / name))
    return made[0], made[1], made[2]


def test_a_card_without_the_model_that_makes_its_pictures_is_refused() -> None:
    with pytest.raises(TrainingError) as caught:
        read_config("quick", ["classifier.card=one", "judge.card=two"])
    for name, card in (("classifier", "one"), ("judge", "two")):
        assert f"{name}.card: pictures" in str(caught.value)
        assert f"set data.intensity.model={card} too" in str(caught.value)
    made = read_config("quick", ["classifier.card=one", "data.intensity.model=one"])
    assert made.classifier.card == "one"


def test_pictures_of_another_preparation_than_the_cards_are_refused(cards, tmp_path) -> None:
    one, alike, other = cards
    check_card(one, one, "classifier.card")
    check_card(alike, one, "judge.card")
    with pytest.raises(DataError, match=r"judge\.card: .*other prepares .*one \(intensity\)"):
        check_card(other, one, "judge.card")
    with pytest.raises(ModelError, match="nowhere"):
        check_card("nowhere", one, "judge.card")
    settings = read_config("quick", [f"judge.card={other}", f"data.intensity.model={one}"])
    nobody = Cohort(tmp_path, "manifest", ())
    with pytest.raises(DataError, match=r"judge\.card"):
        train_run(settings, nobody, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", [TRAIN_EPILOG, HOW_TO.read_text(encoding="utf-8")])
def test_recipes_for_a_card_give_its_model_and_its_window(text: str) -> None:
    """Chest-xray's window is of grey levels: prepared images need another."""
    commands = [c for c in re.sub(r"\\\n", " ", text).split("\n") if "classifier.card=" in c]
    assert len(commands) == 1
    changes = re.findall(r"--set (?:\"([^\"]+)\"|(\S+))", commands[0])
    made = read_config("chest-xray", [quoted or plain for quoted, plain in changes])
    assert made.data.intensity.model == made.classifier.card == "my_classifier"
    assert made.data.intensity.window == (-1, 1)


def test_the_papers_preset_is_the_papers_where_it_says_so() -> None:
    made = read_config("coin-paper")
    assert made.amp == "off"
    assert made.data.intensity.foreground == ("kidney*",)
    assert made.classifier.schedule == "constant"
    methods = methods_of(made.evaluation.methods, "methods")
    assert methods["score_cam"] == ScoreCam(weights="probability")
    coin = made.generators["coin"]
    assert (coin.save_every, coin.validate_every, coin.sample_every) == (5000, 15000, 15000)
    assert read_config("kits").data.abnormal.between == "leave_out"


SMALL = "widths: [4, 4, 8], skips: 0"


@pytest.mark.parametrize(
    ("generator", "multiple"),
    [("{kind: coin}", 16), ("{kind: inpaint-mask}", 16), (f"{{kind: conditional, {SMALL}}}", 8)],
)
def test_pictures_that_a_generator_cannot_halve_are_refused_at_once(
    generator: str, multiple: int
) -> None:
    own = f"generators={{own: {generator}}}"
    fits = read_config("quick", [own, f"data.size=[{3 * multiple}, {multiple}]"])
    assert build_generator(fits.generators["own"]).multiple == multiple
    with pytest.raises(TrainingError) as caught:
        read_config("quick", [own, f"data.size=[{multiple + 1}, {multiple}]"])
    assert f"divisible by {multiple}: choose e.g. [{2 * multiple}, {multiple}]" in str(caught.value)


def test_the_advised_size_suits_every_generator() -> None:
    more = "generators.more={kind: conditional}"
    with pytest.raises(TrainingError) as caught:
        read_config("quick", [more, "data.size=[40, 40]"])
    assert str(caught.value).count("choose e.g. [64, 64]") == 2
    assert read_config("quick", [more, "data.size=[64, 64]"]).data.size == (64, 64)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.organ=liver", "data.organ: expected a list, e.g. data.organ=[liver], got 'liver'"),
        ("data.size=64", "data.size: expected a list"),
        (
            "generators.con.steps=3",
            "no 'con' in generators; did you mean 'coin'? Known: coin; for a new one give "
            "generators.con.kind: coin, conditional or inpaint-mask",
        ),
        (
            "generators={x: {steps: 3}}",
            "generators.x: has no kind; give generators.x.kind: coin, conditional or inpaint-mask",
        ),
        (
            "generators.coin.kind=con",
            "generators.coin.kind: expected coin, conditional or inpaint-mask, got 'con'",
        ),
        ("generators.coin.steps=x", " generators.coin.steps: should be a valid integer"),
        ("generators.coin.step=1", "unknown key 'step' in generators.coin; did you mean 'steps'"),
        ("data.organ=[1.5]", "data.organ.0: should be a valid integer"),
        ("data.abnormal={column: a, normal: [no]}", "write the word in quotes"),
    ],
)
def test_faults_are_told_in_the_words_of_the_file(change: str, words: str) -> None:
    with pytest.raises(TrainingError) as caught:
        read_config("quick", [change])
    assert words in str(caught.value)


class Noise:
    """The same pictures in every step."""

    def batch(self, stream: str, step: int, n_normal: int, n_abnormal: int) -> Batch:
        labels = torch.tensor([0.0] * n_normal + [1.0] * n_abnormal)
        images = torch.from_numpy(np.random.default_rng(0).normal(size=(len(labels), 1, 32, 32)))
        return Batch(images.float(), labels, images.float())

    def mixed(self, stream: str, step: int, n: int) -> Batch:
        return self.batch(stream, step, n, 0)


@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_a_constant_rate_stays_and_the_other_rises_and_falls(schedule: str) -> None:
    config = ClassifierConfig(schedule=schedule, steps=8, batch=4, learning_rate=1e-3)
    loop = ClassifierLoop(config, Noise(), "classifier", 0, "off", torch.device("cpu"))
    rates = []
    for step in range(7):
        rates.append(loop.optimiser.param_groups[0]["lr"])
        loop.step(step)
    if schedule == "constant":
        assert rates == [1e-3] * 7
    else:
        assert max(rates) == pytest.approx(1e-3, rel=0.1)
        assert rates[0] == pytest.approx(4e-5)
        assert rates[-1] < 2e-4


@pytest.mark.parametrize(
    "change",
    [
        "data.intensity.window=[5, 5]",
        "data.intensity.window=[0, .inf]",
        "data.intensity={percentiles: [-1, 99]}",
        "data.intensity={percentiles: [50, 50]}",
    ],
)
def test_a_window_without_width_is_refused(change: str) -> None:
    with pytest.raises(TrainingError, match=r"data\.intensity"):
        read_config("quick", [change])
