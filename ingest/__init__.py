"""Survey files in, one clean Parquet data set of spectra out."""
