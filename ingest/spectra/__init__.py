"""Spectra Parquet: the one place where it is written and read.

schema          its columns, and how spectra are written
folder          a folder of it: files, row groups, where the objects are
ended           whether the ingest that wrote it has ended well
blocks          its spectra in memory, a block at a time
repeats         its spectra that have one id
objects         its spectra, or those of survey files, one at a time
plots           pictures of spectra for people
"""
