"""Counterfactual inpainting: repair what makes a classifier say abnormal; the change explains."""

from voxplain.counterfactual.apply import Applied, apply_image
from voxplain.counterfactual.config import Config
from voxplain.counterfactual.config_file import read_config
from voxplain.counterfactual.evaluated_runs import evaluate_runs
from voxplain.counterfactual.run import Run, open_run
from voxplain.counterfactual.training import train_run

__all__ = [
    "Applied",
    "Config",
    "Run",
    "apply_image",
    "evaluate_runs",
    "open_run",
    "read_config",
    "train_run",
]
