"""The mock survey as FITS files in the surveys' own layouts.

survey          the job that writes all files
lamost, sdss    the files of one visit
fitsbytes       FITS written by hand
"""
