"""The epochs of a training."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from voxplain.errors import TrainingError
from voxplain.inference.heap import kept_heap
from voxplain.train.crops import Crops, Order, collate, seed_of
from voxplain.train.losses import build_loss
from voxplain.train.memory import out_of_memory_said_plainly
from voxplain.train.ranks import Rank
from voxplain.train.recipe import Recipe
from voxplain.train.schedule import rate
from voxplain.train.state import State

_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Moment:
    """How far a training is.

    Parameters
    ----------
    epoch, n_epochs
        Epochs done, and in all.
    step, n_steps
        Steps done in this epoch, and in all of it.
    loss
        Mean of the epoch so far; NaN before its first step.
    dice, best_dice
        Mean Dice of the last and of the best validation; None before the first.
    doing
        ``training`` or ``validating``.
    """

    epoch: int
    n_epochs: int
    step: int
    n_steps: int
    loss: float
    dice: float | None
    best_dice: float | None
    doing: str = "training"


Progress = Callable[[Moment], None]
Validate = Callable[[nn.Module, torch.autocast], list[float | None]]


class Loop:
    """A network, what changes it, and the epochs that are done.

    Parameters
    ----------
    network
        On the CPU, with its first weights.
    crops
        Of the training cases.
    class_names
        Background first.
    recipe
        Settings.
    rank
        This process.
    workers
        Processes that prepare crops; the result does not depend on it.
    """

    def __init__(
        self,
        network: nn.Module,
        crops: Crops,
        class_names: tuple[str, ...],
        recipe: Recipe,
        rank: Rank,
        workers: int = 0,
    ) -> None:
        self.recipe, self.rank, self.class_names = recipe, rank, class_names
        # channels last is a third faster on a CPU, and what tensor cores want
        self.network = network.to(rank.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.ddp = self.network
        if rank.n_ranks > 1:
            devices = [rank.device] if rank.device.type == "cuda" else None
            self.ddp = DistributedDataParallel(self.network, device_ids=devices)
        self.order = Order(
            len(crops.cases),
            recipe.crop.per_case,
            recipe.batch,
            recipe.seed,
            rank.index,
            rank.n_ranks,
        )
        self.loader = DataLoader(
            crops, batch_sampler=self.order, num_workers=workers, collate_fn=collate,
            pin_memory=rank.device.type == "cuda", persistent_workers=False,
        )  # fmt: skip
        counts = crops.counts() if recipe.loss.by_rarity else []
        self.loss = build_loss(recipe.loss, counts).to(rank.device)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=recipe.optimiser.learning_rate,
            weight_decay=recipe.optimiser.weight_decay,
        )
        n_steps = recipe.epochs * len(self.order)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda step: rate(step, n_steps, recipe.optimiser)
        )
        self.precision = amp_type(recipe.amp, rank.device)
        self.scaler = torch.amp.GradScaler(
            rank.device.type, enabled=self.precision is torch.float16
        )

    def run(
        self,
        state: State,
        validate: Validate,
        save: Callable[[State], None],
        progress: Progress | None = None,
    ) -> State:
        """Train the epochs that are left.

        Parameters
        ----------
        state
            Where to begin.
        validate
            Gives the Dice of each class but the background.
        save
            Called with the state after every epoch.
        progress
            Called after every step.

        Raises
        ------
        TrainingError
            If the loss is not a number, or memory does not suffice.
        """
        self._restore(state)
        with kept_heap(), out_of_memory_said_plainly(self.recipe):
            for epoch in range(state.epoch, self.recipe.epochs):
                began = time.perf_counter()
                loss = self._epoch(epoch, state, progress)
                row: dict[str, Any] = {"epoch": epoch + 1, "loss": loss}
                row["learning_rate"] = self.schedule.get_last_lr()[0]
                best = state.best
                is_last = epoch + 1 == self.recipe.epochs
                row["dice"] = None
                if is_last or (epoch + 1) % self.recipe.validation.every == 0:
                    self._tell(progress, epoch, len(self.order), loss, state, "validating")
                    each = validate(self.network, self._autocast())
                    row["dice"] = _mean(each)
                    row |= {f"dice_{n}": d for n, d in zip(self.class_names[1:], each, strict=True)}
                    if not best or row["dice"] > best["dice"]:
                        best = self._best(epoch, row["dice"], each)
                row["seconds"] = round(time.perf_counter() - began, 2)
                state = replace(
                    state, epoch=epoch + 1, parts=self._parts(), rows=(*state.rows, row), best=best
                )
                save(state)
        return state

    def _epoch(self, epoch: int, state: State, progress: Progress | None) -> float:
        """Train one epoch; mean loss over its steps and all processes."""
        _seed_everything(seed_of(self.recipe.seed, epoch, self.rank.index))
        self.order.epoch = epoch
        self.ddp.train()
        total = 0.0
        for step, batch in enumerate(self.loader, 1):
            total += self._step(batch, epoch, step)
            self._tell(progress, epoch, step, total / step, state)
        mean = torch.tensor(total / len(self.order), dtype=torch.float64)
        return float(self.rank.sum(mean)) / self.rank.n_ranks

    def _step(self, batch: Mapping[str, torch.Tensor], epoch: int, step: int) -> float:
        images = batch["image"].to(
            self.rank.device, memory_format=torch.channels_last_3d, non_blocking=True
        )
        labels = batch["label"].to(self.rank.device, non_blocking=True)
        self.optimiser.zero_grad(set_to_none=True)
        with self._autocast():
            logits = self.ddp(images)
        loss = self.loss(logits.float(), labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} in epoch {epoch + 1}, step {step}. Causes: (a) the "
                f"learning rate of {self.recipe.optimiser.learning_rate:g} is too high, try a "
                "tenth of it or optimiser.gradient_norm=1; (b) 16-bit floats overflow, try "
                "amp=bf16 or amp=off; (c) intensities are extreme, run voxplain data check --full"
            )
        self.scaler.scale(loss).backward()
        if self.recipe.optimiser.gradient_norm is not None:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.optimiser.gradient_norm)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # else the step was left out: the scale was too large
            self.schedule.step()
        return value

    def _autocast(self) -> torch.autocast:
        is_on = self.precision is not None
        return torch.autocast(
            self.rank.device.type, dtype=self.precision or torch.bfloat16, enabled=is_on
        )

    def _parts(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": {"last_epoch": self.schedule.last_epoch},
            "scaler": self.scaler.state_dict(),
        }

    def _restore(self, state: State) -> None:
        if not state.parts:
            return
        self.network.load_state_dict(state.parts["network"])
        self.optimiser.load_state_dict(state.parts["optimiser"])
        self.schedule.load_state_dict(
            {**self.schedule.state_dict(), **state.parts["schedule"], "_last_lr": [
                group["lr"] for group in self.optimiser.param_groups
            ]}
        )  # fmt: skip
        if state.parts["scaler"]:
            self.scaler.load_state_dict(state.parts["scaler"])

    def _best(self, epoch: int, dice: float, each: list[float | None]) -> dict[str, Any]:
        weights = {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in self.network.state_dict().items()
        }
        of = dict(zip(self.class_names[1:], each, strict=True))
        return {"epoch": epoch + 1, "dice": dice, "dice_of": of, "network": weights}

    def _tell(
        self, progress: Progress | None, epoch: int, step: int, loss: float, state: State,
        doing: str = "training",
    ) -> None:  # fmt: skip
        if progress is None or not self.rank.is_first:
            return
        dice = next((row["dice"] for row in reversed(state.rows) if row["dice"] is not None), None)
        progress(
            Moment(
                epoch, self.recipe.epochs, step, len(self.order), loss, dice,
                state.best.get("dice"), doing,
            )
        )  # fmt: skip


def amp_type(amp: str, device: torch.device) -> torch.dtype | None:
    """Type of automatic mixed precision, None for none.

    Parameters
    ----------
    amp
        ``auto`` (fp16 on CUDA, none on a CPU), ``fp16``, ``bf16`` or ``off``.
    device
        Where it is trained.

    Raises
    ------
    TrainingError
        If the device cannot.
    """
    if amp == "auto":
        return torch.float16 if device.type == "cuda" else None
    if amp == "fp16" and device.type == "cpu":
        raise TrainingError("amp=fp16 needs CUDA; on a CPU use amp=bf16 or amp=off")
    return _TYPES.get(amp)


def _mean(each: list[float | None]) -> float:
    there = [d for d in each if d is not None]
    if not there:
        raise TrainingError(
            "no validation case has a voxel of any class, so the best epoch cannot be found; "
            "check classes, or name other validation cases in the data (split: validation)"
        )
    return float(np.mean(there))


def _seed_everything(seed: int) -> None:
    """Seed what networks and libraries may draw from: dropout, global generators."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (global state of libraries)
    torch.manual_seed(seed)
