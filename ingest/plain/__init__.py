"""Tables that are no Parquet, HDF5 or FITS: text, VOTable and npz, opened by what is in them, never by their name.

    table       `PlainTable`, of whatever kind
    text        CSV, whitespace-separated text, ECSV: names, units, and the rows in blocks
    arrays      VOTable and npz: arrays by name
    cells       text as numbers, and lists within a cell

What the columns mean is for readers to say: `ingest.surveys` of a known survey, `ingest.generic` of nobody known.
"""

from specshards.ingest.plain.table import PlainTable, Rows

__all__ = ["PlainTable", "Rows"]
