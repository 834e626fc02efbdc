"""FITS files as headers and arrays.

direct          the parser of ordinary files; gives the others to astropy
astropy         the slow and sure parser
hdu             what a reader sees, whichever parsed
"""
