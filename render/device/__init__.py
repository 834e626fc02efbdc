"""The kernels again as torch operations, for the device that the model is on.

draw            spectra to codes: what every picture does
map2d, lines    the pictures
values          window, grids and percentiles of batches
expand          codes to RGB
"""
