"""The training of a generator: steps, validations, samples and states, until it is finished."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from voxplain.counterfactual.generator import Learner
from voxplain.counterfactual.generator_config import GeneratorConfig
from voxplain.counterfactual.generators import RECORD
from voxplain.counterfactual.samples import draw_samples, sample_places
from voxplain.counterfactual.slices import Slices
from voxplain.counterfactual.trained_generator import (
    SAMPLES,
    STATE,
    TrainedGenerator,
    clear,
    read_trained,
    write_trained,
)
from voxplain.counterfactual.training_log import TrainingLog
from voxplain.counterfactual.validation_loss import validation_loss
from voxplain.errors import TrainingError
from voxplain.inference.heap import kept_heap
from voxplain.space.write import atomic_file
from voxplain.train.state import State, read_state

FREE = ("log_every", "save_every", "sample_every")
"""Settings of a generator that its weights do not depend on: a training continues with others."""


@dataclass(frozen=True)
class Moment:
    """How far the training of a generator is.

    Parameters
    ----------
    what
        ``training`` or ``validating``.
    step, n_steps
        Steps done, and at most in all.
    terms
        Of the last step; when validating, those of the step before.
    """

    what: str
    step: int
    n_steps: int
    terms: Mapping[str, float]


def train_generator(
    learner: Learner,
    config: GeneratorConfig,
    validation: Slices,
    folder: Path,
    identity: Mapping[str, Any],
    *,
    resume: bool = True,
    progress: Callable[[Moment], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    tensorboard: bool = False,
) -> TrainedGenerator:
    """Train a generator, or continue its training, or recognise that it is finished.

    Afterwards `learner.generator` has the weights that are kept.

    Parameters
    ----------
    learner
        New, with its first weights.
    config
        What the learner was made with: schedule of log, states, samples and validations.
    validation
        Slices of the validation part; may be empty if ``config.patience`` is None.
    folder
        Of this generator. ``training/`` in it holds the state while it is trained.
    identity
        What else the weights depend on (seed, size, hashes of data and of the classifier,
        precision), as plain values.
    resume
        Continue what an interrupted training left; on a CPU the weights are then those of an
        uninterrupted training, to the last bit. False begins anew.
    progress
        Called after every step, and before every validation.
    should_stop
        Asked after every step; if true, the state is saved and KeyboardInterrupt is raised.
    tensorboard
        Also write events for TensorBoard.

    Returns
    -------
    TrainedGenerator
        Also if the training was finished before.

    Raises
    ------
    TrainingError
        If a term of the loss is not a number, memory of the GPU does not suffice, there are no
        validation slices for ``config.patience``, or `folder` holds another training.
    MissingExtraError
        If TensorBoard is asked for and not installed.
    KeyboardInterrupt
        If `should_stop` said so; the training can be continued.
    """
    if config.patience is not None and not len(validation):
        raise TrainingError(
            f"patience={config.patience} ends a training by its validation, and there is no "
            "validation slice; give data.split.validation a share, or set patience=null"
        )
    full = _plain({"config": config.model_dump(mode="json", exclude=set(FREE)), **identity})
    if resume and (folder / RECORD).is_file():
        return read_trained(folder, full, learner.generator)
    if not resume:
        clear(folder)
    training = _Training(learner, config, validation, folder, full, tensorboard)
    try:
        with kept_heap(), _memory_said_plainly(config):
            training.run(progress or (lambda _: None), should_stop or (lambda: False))
        return training.finish()
    finally:
        training.log.close()


class _Training:
    """A learner, what is known of its training so far, and the steps that are left."""

    def __init__(
        self, learner: Learner, config: GeneratorConfig, validation: Slices,
        folder: Path, identity: Mapping[str, Any], tensorboard: bool,
    ) -> None:  # fmt: skip
        self.learner, self.config, self.validation = learner, config, validation
        self.folder, self.identity = folder, identity
        folder.mkdir(parents=True, exist_ok=True)
        state = read_state(folder / STATE, identity)
        self.step, self.best = state.epoch, dict(state.best)
        self.log = TrainingLog(
            folder, state.rows, state.parts.get("since"), tensorboard=tensorboard
        )
        if state.parts:
            self._restore(state.parts)
            self.log.write()  # rows after the state are made again
        self.shown = sample_places(validation.labels)

    @property
    def is_stalled(self) -> bool:
        """Whether validation has not improved for too long."""
        return self.config.patience is not None and self.best.get("n_worse", 0) >= (
            self.config.patience
        )

    def run(self, progress: Callable[[Moment], None], should_stop: Callable[[], bool]) -> None:
        """Train the steps that are left."""
        config, n_steps = self.config, self.learner.n_steps
        began = time.perf_counter()
        while self.step < n_steps and not self.is_stalled:
            terms = self.learner.step(self.step)
            self.step += 1
            self._check(terms, "")
            self.log.add(terms)
            is_last = self.step == n_steps
            measured: dict[str, float] = {}
            if len(self.validation) and (is_last or self.step % config.validate_every == 0):
                progress(Moment("validating", self.step, n_steps, terms))
                measured = validation_loss(self.learner, self.validation)
                self._check(measured, " of the validation slices")
                self._judge(measured["total"])
            is_last = is_last or self.is_stalled
            now = time.perf_counter()
            self.log.spend(now - began)
            began = now
            if measured or is_last or self.step % config.log_every == 0:
                self.log.end_row(self.step, measured)
            if len(self.shown) and (is_last or self.step % config.sample_every == 0):
                self._draw()
            stops = not is_last and should_stop()
            if stops or (not is_last and self.step % config.save_every == 0):
                self._save()
            progress(Moment("training", self.step, n_steps, terms))
            if stops:
                raise KeyboardInterrupt(f"stopped after step {self.step}; it can be continued")

    def finish(self) -> TrainedGenerator:
        """Write the kept weights and the record, and remove the state."""
        generator, best_step = self.learner.generator, self.step
        if self.best:
            generator.load_state_dict(self.best["weights"])
            best_step = int(self.best["step"])
        return write_trained(
            self.folder, self.identity, generator, self.log.rows,
            config=self.config.model_dump(mode="json"),
            size=self.validation.images.shape[2:], n_steps=self.step, best_step=best_step,
            stopped_early=self.step < self.learner.n_steps,
        )  # fmt: skip

    def _check(self, terms: Mapping[str, float], where: str) -> None:
        wrong = [f"{name} = {value}" for name, value in terms.items() if not math.isfinite(value)]
        if wrong:
            raise TrainingError(
                f"{', '.join(wrong)}{where} at step {self.step} of {self.learner.n_steps}. Causes: "
                f"(a) the learning rate of {self.config.learning_rate:g} is too high, try a tenth "
                "of it; (b) 16-bit floats overflow, try amp=bf16 or amp=off; (c) a weight of the "
                "loss (weight_…) is too large, or intensities are not in [-1, 1]. "
                f"The last saved state in {self.folder / STATE} was not changed"
            )

    def _judge(self, total: float) -> None:
        """Keep the best weights; stages before the last have another loss and do not count."""
        if self.config.patience is None or self.step <= self.learner.n_steps - self.config.steps:
            return
        if self.best and not total < self.best["total"]:
            self.best["n_worse"] += 1
            return
        weights = {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in self.learner.generator.state_dict().items()
        }
        self.best = {"step": self.step, "total": total, "n_worse": 0, "weights": weights}

    def _draw(self) -> None:
        drawing = draw_samples(self.learner.generator, self.validation, self.shown)
        with atomic_file(self.folder / SAMPLES / f"step_{self.step:06d}.png") as path:
            path.write_bytes(drawing.png(dpi=100))
        self.log.show(self.step, drawing)

    def _save(self) -> None:
        parts: dict[str, Any] = {
            "networks": {k: v.state_dict() for k, v in self.learner.networks.items()},
            "optimisers": {k: v.state_dict() for k, v in self.learner.optimisers.items()},
            "precision": dict(self.learner.precision.state()),
            "since": self.log.since,
        }
        State(self.identity, self.step, parts, self.log.rows, self.best).write(self.folder / STATE)

    def _restore(self, parts: Mapping[str, Any]) -> None:
        for name, network in self.learner.networks.items():
            network.load_state_dict(parts["networks"][name])
        for name, optimiser in self.learner.optimisers.items():
            optimiser.load_state_dict(parts["optimisers"][name])
        self.learner.precision.restore(parts["precision"])


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives them back: tuples become lists."""
    return dict(json.loads(json.dumps(values)))


@contextmanager
def _memory_said_plainly(config: GeneratorConfig) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"memory of the GPU does not suffice for a step of this training: batch is "
            f"{config.batch}, try {max(1, config.batch // 2)}, fewer channels (width, widths), a "
            "smaller data.size, or amp=fp16"
        ) from error
