"""What a folder holds of a run already: whether it can go on, and what is removed to begin anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from voxplain.counterfactual.classifier_loop import FOLDER as CLASSIFIER_STATE
from voxplain.counterfactual.classifier_loop import LOG
from voxplain.counterfactual.classifier_networks import WEIGHTS
from voxplain.counterfactual.classifier_training import CALIBRATION, RELIABILITY
from voxplain.counterfactual.config import Config
from voxplain.counterfactual.config_file import read_config
from voxplain.counterfactual.generator_training import FREE
from voxplain.counterfactual.generators import RECORD as RECORD_OF_ONE
from voxplain.counterfactual.inpaint_mask import FOLDER as INPAINTER
from voxplain.counterfactual.run import CONFIG, DATA, PREPARATION, RECORD, THRESHOLD
from voxplain.counterfactual.trained_generator import STATE, clear
from voxplain.errors import OutputError, TrainingError
from voxplain.models.card_file import CARD
from voxplain.train.state import CHECKPOINT, differences

CLASSIFIERS = ("classifier", "judge")


def check_place(out: Path) -> None:
    """Refuse a place that cannot become a run, or holds something else; nothing is changed.

    Raises
    ------
    OutputError
        If `out` or a part of its path is a file, or it is a folder with files (hidden ones do
        not count) but neither slices nor a preparation.
    """
    first = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not first.is_dir():
        raise OutputError(f"cannot write results to {out}: {first} is a file, not a folder")
    if first != out or (out / PREPARATION).is_file() or (out / "slices").is_dir():
        return
    if others := sorted(p.name for p in out.iterdir() if not p.name.startswith(".")):
        raise OutputError(
            f"{out} holds other files ({', '.join(others[:3])}{', …' if len(others) > 3 else ''}) "
            "and no run; choose an empty or a new folder for --out"
        )


def check_kept(out: Path, config: Config, identity: Mapping[str, str]) -> bool:
    """Tell whether a folder holds the slices of this run; nothing is changed.

    Parameters
    ----------
    out
        Of the run.
    config
        What it is to be trained with now.
    identity
        Hashes that the slices depend on.

    Raises
    ------
    TrainingError
        If the folder holds a run of other data, or parts that were begun with other settings:
        all that differs is named.
    """
    if not (out / DATA).is_file():
        return False
    found = json.loads((out / DATA).read_text(encoding="utf-8"))["identity"]
    names = dict.fromkeys([*found, *identity])
    other = " and ".join(key for key in names if found.get(key) != identity.get(key))
    if other:
        raise TrainingError(
            f"{out} holds a run of other {other}; choose another --out, or begin anew with --fresh"
        )
    differing = list(_differing(out, read_config(str(out / CONFIG)), config))
    if differing:
        raise TrainingError(
            f"{out} holds a run that was begun differently: {'; '.join(differing)}. Continue it "
            "with its own settings, begin anew with --fresh, or choose another --out"
        )
    return True


def check_trained(place: Path, identity: Mapping[str, Any]) -> None:
    """Refuse a finished generator that was trained with other data, classifier or precision.

    Parameters
    ----------
    place
        Of the generator; it may not be there.
    identity
        What it must have been trained with, besides its own settings.

    Raises
    ------
    TrainingError
        If something differs.
    """
    if not (place / RECORD_OF_ONE).is_file():
        return
    record = json.loads((place / RECORD_OF_ONE).read_text(encoding="utf-8"))
    before = {key: record["identity"].get(key) for key in identity}
    differing = differences(before, identity)
    if differing:
        raise TrainingError(
            f"{place} holds a generator that was trained differently: {'; '.join(differing)}. "
            "Begin anew with --fresh, or choose another --out"
        )


def clear_run(out: Path) -> None:
    """Remove what an earlier run wrote of each part; what marks it as finished goes first."""
    for name in (RECORD, DATA):
        (out / name).unlink(missing_ok=True)
    for name in CLASSIFIERS:
        (out / name / CLASSIFIER_STATE / CHECKPOINT).unlink(missing_ok=True)
        for file in (CARD, WEIGHTS, LOG, CALIBRATION, RELIABILITY):
            (out / name / file).unlink(missing_ok=True)
    for place in (out / "generators").glob("*"):
        (place / THRESHOLD).unlink(missing_ok=True)
        clear(place)
        if (place / INPAINTER).is_dir():
            shutil.rmtree(place / INPAINTER)


def _differing(out: Path, before: Config, now: Config) -> Iterator[str]:
    """Say what of the settings of parts that were begun is another one now."""
    generators = [
        name for name in before.generators if name in now.generators and _is_begun(out, name)
    ]
    trained = [
        name for name in CLASSIFIERS if (out / name / CLASSIFIER_STATE / CHECKPOINT).is_file()
    ]
    if generators or trained:
        yield from differences({"amp": before.amp}, {"amp": now.amp})
    for name in CLASSIFIERS:
        one, other = getattr(before, name), getattr(now, name)
        # every generator was trained against the classifier, wherever that is from
        counts = name in trained or (name == "classifier" and generators)
        if counts and one is not None and other is not None:
            old, new = (part.model_dump(mode="json") for part in (one, other))
            yield from differences(old, new, f"{name}.")
    for name in generators:
        old, new = (
            config.generators[name].model_dump(mode="json", exclude=set(FREE))
            for config in (before, now)
        )
        yield from differences(old, new, f"generators.{name}.")


def _is_begun(out: Path, name: str) -> bool:
    place = out / "generators" / name
    return (place / RECORD_OF_ONE).is_file() or (place / STATE / CHECKPOINT).is_file()
