"""The prediction as a DICOM Segmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.export.identity import finish, made_by, maker, text
from voxplain.export.source import Source
from voxplain.records.explanation import Explanation
from voxplain.space.labelmap import LabelMap

_SCHEME = "99VOXPLAIN"


def segmentation(
    explanation: Explanation, labels: LabelMap, sources: list[Source], series_number: int
) -> Any | None:
    """Make a binary Segmentation with one segment a class that is present; None if there is none.

    Parameters
    ----------
    explanation
        How it was made.
    labels
        The prediction on the grid of the series. Segments overlap where regions do.
    sources
        The first is where the segments lie; all are referenced.
    series_number
        Of the series that holds it.

    Notes
    -----
    A class is named by the model and coded in a private scheme: no anatomy is claimed for it.
    Regions of one layer take no more memory than the label map; overlapping ones a mask each.
    """
    import highdicom as hd

    present = [label for label in sorted(labels.names) if label and labels.mask(label).any()]
    if not present:
        return None
    first, *others = sources
    own = {header.SOPInstanceUID for header in first.headers}
    further = [h for other in others for h in other.headers if h.SOPInstanceUID not in own]
    written = hd.seg.Segmentation(
        source_images=first.headers,
        pixel_array=first.frames(_numbered(labels, present)),
        segmentation_type="BINARY",
        segment_descriptions=[
            _segment(explanation, number, label, labels.names[label])
            for number, label in enumerate(present, 1)
        ],
        further_source_images=further or None,
        content_label="PREDICTION",
        content_description="what the model predicts",
        series_instance_uid=hd.UID(),
        series_number=series_number,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        **maker(explanation),
    )
    model = explanation.provenance.model
    return finish(written, first, f"prediction of {model}", made_by(explanation))


def _numbered(labels: LabelMap, present: list[int]) -> NDArray[Any]:
    """Segment numbers of one layer, or one mask a segment along a last axis."""
    if not labels.is_disjoint:
        return np.stack([labels.mask(label) for label in present], axis=-1).astype(np.uint8)
    numbers = np.zeros(max(present) + 1, np.min_scalar_type(len(present)))
    numbers[present] = np.arange(1, len(present) + 1)
    segments: NDArray[Any] = numbers[labels.layers[0]]
    return segments


def _segment(explanation: Explanation, number: int, label: int, name: str) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    known = explanation.provenance
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=text(name, 64),
        segmented_property_category=codes.SCT.SpatialAndRelationalConcept,
        segmented_property_type=hd.sr.CodedConcept(f"CLASS_{label}", _SCHEME, text(name, 64)),
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=text(known.model, 64),
            family=codes.DCM.ArtificialIntelligence,
            version=known.model_sha256[:16] or "unknown",
            source="voxplain",
        ),
    )
    segment.SegmentDescription = text(name, 1024)
    return segment
