"""Cases in the layouts that data come in, and what is wrong with them."""

from voxplain.data.case import Case
from voxplain.data.check import DataCheck, check
from voxplain.data.cohort import Cohort
from voxplain.data.fault import Fault
from voxplain.data.layouts import LAYOUTS, read_data
from voxplain.errors import DataError

__all__ = [
    "LAYOUTS",
    "Case",
    "Cohort",
    "DataCheck",
    "DataError",
    "Fault",
    "check",
    "read_data",
]
