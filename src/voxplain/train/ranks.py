"""The processes of one training, and what they tell each other."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

from voxplain.errors import TrainingError
from voxplain.inference.compute import Compute


@dataclass(frozen=True)
class Rank:
    """One process of a training.

    Parameters
    ----------
    index
        0 writes all files.
    n_ranks
        Number of processes.
    device
        Where this one computes.
    """

    index: int
    n_ranks: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and tells progress."""
        return self.index == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over all processes; every one gets it."""
        if self.n_ranks == 1:
            return values
        total = values.to(self.device)
        distributed.all_reduce(total)
        return total.to(values.device)

    def wait(self) -> None:
        """Wait until every process is here."""
        self.sum(torch.zeros(1))


@contextmanager
def joined(device: str, place: tuple[int, int, str] | None = None) -> Iterator[Rank]:
    """Join the processes of this training: those of torchrun, those of `place`, or this alone.

    Parameters
    ----------
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; with several processes on CUDA each takes the
        GPU of its own number.
    place
        Own number, number of processes, and how they meet (``file://…``); None: torchrun's
        environment variables, or one process.

    Yields
    ------
    Rank
        This process.

    Raises
    ------
    TrainingError
        If there are fewer GPUs than processes.
    """
    chosen = Compute(device=device).torch_device()
    if place is None and "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Rank(0, 1, chosen)
        return
    index, n_ranks, meeting = place or (
        int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "env://"
    )  # fmt: skip
    if chosen.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", index))
        check_gpus(local + 1)
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=meeting, rank=index, world_size=n_ranks)
    try:
        yield Rank(index, n_ranks, chosen)
    finally:
        gc.collect()  # the network's wrapper holds the group; it must not outlive it
        distributed.destroy_process_group()


def check_gpus(n_wanted: int) -> None:
    """Check that there are so many GPUs.

    Raises
    ------
    TrainingError
        If not.
    """
    n_there = torch.cuda.device_count()
    if n_wanted > n_there:
        raise TrainingError(
            f"{n_wanted} GPUs were asked for, and torch sees {n_there}; ask for fewer, or add "
            "--device cpu for as many processes on the CPU"
        )
