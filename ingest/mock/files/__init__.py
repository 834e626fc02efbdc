"""The mock survey as FITS files in the surveys' own layouts.

lamost, sdss    the files of one visit
fitsbytes       FITS written by hand
"""
