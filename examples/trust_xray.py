"""Can maps of an opacity on chest radiographs be trusted? Data, six networks and the command.

``python examples/trust_xray.py --out trust-xray`` draws 800 patients for training and 45 for
testing, trains three networks of each of two architectures (about a minute each on one core),
says how well they do on the unseen pictures, and prints the command that assesses their maps:
against the boxes, under randomised weights, between seeds and between architectures.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import torch
import typer
from sklearn.metrics import roc_auc_score

import voxplain
from voxplain.demo.xray import write_xrays
from voxplain.demo.xray_train import (
    NETWORKS,
    XrayRecipe,
    opacity_scores,
    train_xray_classifier,
)


def main(
    out: Annotated[Path, typer.Option(help="Folder for data and models.")] = Path("trust-xray"),
    patients: Annotated[int, typer.Option(min=2, help="Patients to learn from.")] = 800,
    unseen: Annotated[int, typer.Option(min=2, help="Patients for testing.")] = 45,
    seeds: Annotated[int, typer.Option(min=1, help="Networks of each architecture.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = XrayRecipe.steps,
) -> None:
    """Draw radiographs, train small classifiers and print what to run next."""
    torch.set_num_threads(1)  # networks so small gain nothing from more
    data = out / "data"
    write_xrays(data, range(patients), range(100_000, 100_000 + unseen))
    words = ["voxplain", "assess"]
    for architecture in NETWORKS:
        for seed in range(seeds):
            folder = out / f"{architecture}_{seed}"
            train_xray_classifier(data, folder, architecture, seed, XrayRecipe(steps=steps))
            scores, truth = opacity_scores(voxplain.load_model(folder), data)
            auroc, right = roc_auc_score(truth, scores), ((scores > 0) == truth).mean()
            typer.echo(f"{folder.name}: AUROC {auroc:.3f}, accuracy {right:.3f} of {len(truth)}")
            words += ["--model", str(folder)]
    words += ["--data", str(data), "--boxes", str(data / "boxes.csv"), "--target", "class:opacity"]
    words += ["--preset", "arun2021", "--out", str(out / "assessment")]
    typer.echo(shlex.join(words))


if __name__ == "__main__":
    typer.run(main)
