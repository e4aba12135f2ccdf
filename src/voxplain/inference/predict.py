"""What a model says of an image, on the image's grid."""

from __future__ import annotations

from collections.abc import Callable

from voxplain.errors import ModelError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models.model import Model
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume


def predict(
    model: Model,
    image: Volume,
    *,
    compute: Compute | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LabelMap:
    """Segment an image.

    Parameters
    ----------
    model
        A segmentation model; it comes back unchanged.
    image
        As it was read.
    compute
        Device, precision, batch size.
    progress
        Called after each batch with passes done and in all.

    Returns
    -------
    LabelMap
        On the image's grid.

    Raises
    ------
    ModelError
        If the model is a classifier, or does not fit the image.

    Notes
    -----
    One forward pass for each view of each window; memory: the stitched logits.
    """
    if model.info.kind != "segmentation":
        raise ModelError(f"{model.info.name} classifies whole images; it makes no label map")
    with open_pipeline(model, image, compute or Compute()) as pipeline:
        if progress is not None:
            n_passes = pipeline.n_passes
            pipeline.on_pass = lambda _: progress(pipeline.passes.total, n_passes)
        logits = pipeline.logits(pipeline.clean, pipeline.inner).numpy()
        return model.label_image(logits, pipeline.image.grid, image)
