"""What can go wrong in a training that the user can mend."""

from __future__ import annotations

from voxplain.errors import VoxplainError


class TrainingError(VoxplainError):
    """A recipe, its data or a saved state cannot be trained with."""
