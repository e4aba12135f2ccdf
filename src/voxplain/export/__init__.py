"""Results in the formats of other programs: DICOM for archives and viewers."""

from voxplain.export.dicom import PARTS, export_dicom, parts_of

__all__ = ["PARTS", "export_dicom", "parts_of"]
