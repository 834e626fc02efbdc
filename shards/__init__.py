"""Spectra Parquet in, tar shards of images out; and the loader that reads them back.

format          what lies on disk: manifest, encodings, tar
write           making data sets: from spectra, or from other data sets
loader          batches of a data set
check           is a data set whole and sound
report          its page, for people
make            `make shards`: from a survey's name to its data set
gallery         `specshards render gallery`
"""
