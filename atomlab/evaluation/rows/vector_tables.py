"""How the variance is explained over vectors, as tables for the page: within bands of the norm."""

from collections.abc import Sequence

from atomlab.report import COLUMNS, Column, Row

_HEADING = "R² within bands of the norm"
_DEFINITIONS = {column.key: column for column in COLUMNS}
_COLUMNS = (
    _DEFINITIONS["unit"],
    Column(
        "band",
        "norms",
        "Euclidean norms of the held-out vectors of the band: the smaller half, up to 90%, up to 98%, rest.",
    ),
    Column("samples", "vectors", "Held-out vectors of the band.", "d"),
    Column("share", "share", "Share of the band in Σ‖x − x̄‖², the Euclidean variance of all held-out vectors.", ".1%"),
    Column("r2", "R²", "R² of the vectors of the band alone, about their own mean; Euclidean."),
    Column("r2_s", "R²_S", "The same with S-norms."),
)


def band_tables(rows: Sequence[Row]) -> dict[str, tuple[list[Row], tuple[Column, ...]]]:
    """Makes the table of R² within bands of the norm.

    Args:
        rows: rows of `measure`.

    Returns:
        By heading, the rows and columns of one table; nothing if no row has bands.
    """
    lines = [
        {"unit": row["unit"], "band": f"{band['from']:.3g} to {band['to']:.3g}"} | band
        for row in rows
        if row["unit"] != "neurons"
        for band in row.get("bands", ())
    ]
    return {_HEADING: (lines, _COLUMNS)} if lines else {}
