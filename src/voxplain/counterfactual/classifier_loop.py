"""The steps of a classifier's training."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from voxplain.counterfactual.augmentation import augmented
from voxplain.counterfactual.classifier import auroc, picture_logits
from voxplain.counterfactual.classifier_networks import build
from voxplain.counterfactual.config import ClassifierConfig
from voxplain.counterfactual.draw_seed import seeded, step_generator
from voxplain.counterfactual.generator import Batch, Source
from voxplain.counterfactual.precision import Precision
from voxplain.counterfactual.slices import Slices
from voxplain.errors import TrainingError
from voxplain.space.write import atomic_file
from voxplain.train.loop import amp_type
from voxplain.train.settings_file import Amp
from voxplain.train.state import State

FOLDER = "training"
LOG = "log.csv"
LOG_COLUMNS = ("step", "loss", "rate", "auroc", "seconds")
"""Of the log, one row a validation: steps done, mean loss since the last row, learning rate,
AUROC of the validation slices, seconds since the last row."""

Progress = Callable[[int, int, float], None]
"""Called with steps done, steps in all, and the loss."""


class ClassifierLoop:
    """A network, what changes it, and its steps.

    Parameters
    ----------
    config, source, name, amp, device
        As in `voxplain.counterfactual.classifier_training.train_classifier`.
    seed
        Of weights, augmentation and dropout.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        source: Source,
        name: str,
        seed: int,
        amp: Amp,
        device: torch.device,
    ) -> None:
        self.config, self.source, self.name, self.seed = config, source, name, seed
        self.device = device
        self.precision = Precision(device, amp_type(amp, device))
        with _seeded(seed, f"{name} weights", 0, device):
            network = build(config.network)
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.schedule: torch.optim.lr_scheduler.LRScheduler
        if config.schedule == "constant":
            self.schedule = torch.optim.lr_scheduler.ConstantLR(self.optimiser, 1.0, 0)
        else:
            self.schedule = torch.optim.lr_scheduler.OneCycleLR(
                self.optimiser, config.learning_rate, total_steps=config.steps,
                cycle_momentum=False,
            )  # fmt: skip

    def run(self, state: State, validation: Slices, out: Path, progress: Progress | None) -> State:
        """Take the steps that are left; the state is written after each validation."""
        steps, every = self.config.steps, self.config.validate_every
        losses: list[float] = []
        began = time.perf_counter()
        for step in range(state.epoch, steps):
            losses.append(self.step(step))
            if progress is not None:
                progress(step + 1, steps, losses[-1])
            if (step + 1) % every and step + 1 < steps:
                continue
            self.network.eval()
            area = auroc(
                picture_logits(self.network, validation.images), validation.labels, "validation"
            )
            best: Mapping[str, Any] = state.best
            if not best or area >= best["auroc"]:
                best = {"step": step + 1, "auroc": area, "network": self._weights()}
            now = time.perf_counter()
            values = (
                step + 1, float(np.mean(losses)), float(self.schedule.get_last_lr()[0]), area,
                round(now - began, 2),
            )  # fmt: skip
            row: dict[str, float | int | None] = dict(zip(LOG_COLUMNS, values, strict=True))
            state = replace(
                state, epoch=step + 1, parts=self._parts(), rows=(*state.rows, row), best=best
            )
            state.write(out / FOLDER)
            with atomic_file(out / LOG) as path:
                pd.DataFrame(list(state.rows), columns=list(LOG_COLUMNS)).to_csv(path, index=False)
            losses, began = [], now
        return state

    def batch(self, step: int) -> Batch:
        """Slices of a step, not yet changed at random."""
        n = self.config.batch
        if self.config.balanced:
            return self.source.batch(self.name, step, n - n // 2, n // 2)
        return self.source.mixed(self.name, step, n)

    def step(self, step: int) -> float:
        """Learn from one batch; return its loss."""
        batch = self.batch(step)
        rng = np.random.default_rng([self.seed, _number(f"{self.name} augmentation"), step])
        images = augmented(batch.images, self.config.augmentation, rng)
        self.network.train()
        with _seeded(self.seed, f"{self.name} dropout", step, self.device):
            with self.precision.autocast():
                logits = self.network(images.contiguous(memory_format=torch.channels_last))
            loss = binary_cross_entropy_with_logits(logits[:, 0].float(), batch.labels.float())
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(
                    f"{self.name}: the loss became {value} in step {step + 1}. Causes: (a) the "
                    f"learning rate of {self.config.learning_rate:g} is too high, try a tenth of "
                    "it; (b) 16-bit floats overflow, try amp=bf16 or amp=off; (c) the images "
                    "hold values that are no numbers, run voxplain data check --full"
                )
            scale = self.precision.scaler.get_scale()
            self.precision.descend(loss, self.optimiser)
        if self.precision.scaler.get_scale() >= scale:  # else the step was left out
            self.schedule.step()
        return value

    def restore(self, state: State, size: tuple[int, int]) -> None:
        """Begin where a state left off; check that the network can take pictures of this size."""
        try:
            self.network.eval()
            picture_logits(self.network, np.zeros((1, 1, *size), np.float32))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise TrainingError(
                f"{self.config.network} cannot take pictures of {size} pixels ({reason}); "
                "data.size of at least [32, 32] fits all of these networks"
            ) from error
        if not state.parts:
            return
        self.network.load_state_dict(state.parts["network"])
        self.optimiser.load_state_dict(state.parts["optimiser"])
        self.schedule.load_state_dict(state.parts["schedule"])
        self.precision.restore(state.parts["scaler"])

    def _parts(self) -> dict[str, Any]:
        last = {key: getattr(self.schedule, key) for key in ("last_epoch", "_last_lr")}
        return {
            "network": self._weights(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": last,
            "scaler": dict(self.precision.state()),
        }

    def _weights(self) -> dict[str, torch.Tensor]:
        return {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in self.network.state_dict().items()
        }


def _seeded(
    seed: int, stream: str, step: int, device: torch.device
) -> AbstractContextManager[None]:
    return seeded(step_generator(seed, stream, step).initial_seed(), device)


def _number(stream: str) -> int:
    return zlib.crc32(stream.encode())
