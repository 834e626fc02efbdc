"""Spectra Parquet in, tar shards of images out; and the loader that reads them back."""
