"""Readers of spectra that no survey has a reader for.

images      FITS images with an axis of wavelengths, and IRAF's stacks of them
multispec   IRAF's multispec dispersions, the orders of an echelle joined
specutils   whatever the loaders of specutils open, as the last resort
"""
