"""Readers of spectra that no survey has a reader for.

tables      the survey `table`: which of its forms a table has, and one spectrum a file
rows        one spectrum a row: lists in cells, vectors; wide tables
wide        which columns are named by wavelength
fitstable   a table in a FITS file, as a plain table
roles       which column is which, by its name
pixels      the pixels of one spectrum, errors in the unit of its flux
meaning     units, medium and frame: declared, stated or guessed
images      FITS images with an axis of wavelengths, and IRAF's stacks of them
multispec   IRAF's multispec dispersions, the orders of an echelle joined
pairs       spectra whose errors are in a file of their own beside theirs
specutils   whatever the loaders of specutils open, as the last resort
"""
