"""All columns in the order of the report, and the titles of the tables that they stand in."""

from atomlab.report.column_type import UNIT
from atomlab.report.columns_of_atoms import GEOMETRY, ISOMETRY, RECOVERY
from atomlab.report.columns_of_codes import CODES, FAITHFULNESS, SIZES

GROUPS = {
    "faithfulness": "Faithfulness",
    "codes": "Codes",
    "geometry": "Geometry and stability",
    "recovery": "Uniqueness, recovery and identifiability",
    "isometry": "Restricted isometry",
    "sizes": "What each row is measured on",
}
COLUMNS = (UNIT, *FAITHFULNESS, *CODES, *GEOMETRY, *RECOVERY, *ISOMETRY, *SIZES)
CLOSING = tuple(column for column in COLUMNS if column.closing)
