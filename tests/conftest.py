"""What every test shares: one thread, fixed seeds, the same examples every time."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a job in the background; inherited
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile(
    "voxplain",
    derandomize=True,
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("voxplain")


@pytest.fixture(autouse=True)
def _seeds() -> Iterator[None]:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries under test may draw from the global state
    torch.manual_seed(0)
    yield
    torch.set_num_threads(1)  # nnU-Net's predictor changes it, and with it the last bits
