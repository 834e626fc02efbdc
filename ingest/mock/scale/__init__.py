"""The mock survey as spectra Parquet, thousands of objects a second.

config          what decides the spectra
job             the job
draws           what each row shows
templates       a bank of noiseless spectra
kernels         the instrument in Numba
counter_random  random numbers of a row
table           Arrow tables
"""
