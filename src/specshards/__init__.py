"""Spectra to image shards to vision transformers: an offline data engine and trainer for astronomical surveys.

One command, `specshards`, holds those of all rooms. The rooms, from the ground floor up:

    common          errors, files, jobs, pages, and the noun of the house: a spectrum
    render          one spectrum to one picture
    ingest          survey files to spectra Parquet
    shards          spectra Parquet to tar shards, and the loader that reads them
    train           shards to models, and what models are good for
    benchmarks      how fast each step is

A room is a folder at the top of the repository; this package holds links to them.
"""

__version__ = "0.1.0"
