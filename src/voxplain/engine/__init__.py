"""Many cases explained: what is wanted, one task, and where tasks run."""

from voxplain.engine.run import run_study
from voxplain.engine.study import ModelPlace, Study

__all__ = ["ModelPlace", "Study", "run_study"]
