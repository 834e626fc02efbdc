"""FITS files as headers and arrays.

direct          the parser of ordinary files; gives the others to astropy
content         the bytes, decompressed within bounds
astropy         the slow and sure parser
hdu             what a reader sees, whichever parsed
"""
