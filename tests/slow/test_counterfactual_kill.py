"""A training that is killed at random moments ends in the weights of one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from voxplain.demo.kidneys import write_kidney_patients

FILES = ("classifier", "judge", "generators/coin", "generators/inpaint-mask")
N_KILLS = 6


def command(data: Path, out: Path) -> list[str]:
    settings = [
        "generators.coin.save_every=10",
        "generators.inpaint-mask={kind: inpaint-mask, inpaint_steps: 30, steps: 30, batch: 4, "
        "save_every: 10}",
    ]
    words = [sys.executable, "-m", "voxplain", "counterfactual", "train", "--config", "quick"]
    words += ["--data", str(data), "--out", str(out), "--device", "cpu", "--quiet"]
    return [*words, *(part for text in settings for part in ("--set", text))]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_and_continued_is_the_same(tmp_path: Path) -> None:
    data = write_kidney_patients(tmp_path / "data", 8, 3, 3, seed=0)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    subprocess.run(command(data, tmp_path / "whole"), env=environment, check=True)
    whole_s = time.perf_counter() - began
    moments = random.Random(8)  # noqa: S311 (moments of kills)
    n_killed = 0
    for _ in range(N_KILLS):
        process = subprocess.Popen(command(data, tmp_path / "killed"), env=environment)
        try:
            process.wait(timeout=moments.uniform(0.3, 0.8) * whole_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            n_killed += 1
    assert n_killed
    subprocess.run(command(data, tmp_path / "killed"), env=environment, check=True)
    for name in FILES:
        one, other = (
            (tmp_path / run / name / "weights.safetensors").read_bytes()
            for run in ("whole", "killed")
        )
        assert one == other, name
