"""Seeds of single steps, so that no state of a random generator has to be kept."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def step_generator(seed: int, stream: str, step: int) -> torch.Generator:
    """Return torch's generator, on the CPU, of one step of one stream."""
    words = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), step]).generate_state(
        2, np.uint32
    )
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global generators for a block, and put them back.

    Parameters
    ----------
    seed
        Of the CPU's generator, and of that of `device`.
    device
        Where the block draws besides the CPU. Generators of other devices are not touched, as
        `torch.manual_seed` would.
    """
    is_cuda = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if is_cuda else []):
        torch.default_generator.manual_seed(seed)
        if is_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
