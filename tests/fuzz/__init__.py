"""Damaged files by the thousand: each is refused, or read as an independent reading of the same bytes reads it.

    python -m tests.fuzz --budget 600 --seed 1
    make fuzz BUDGET=600 SEED=1

layouts     a whole file of each layout, made here, and real ones where there are any
damage      what happens to bytes, at random
truth       the independent reading, straight from astropy, pyarrow and h5py
judge       one variant: sample, refused or wrong
worker      the process that judges; another one watches it
run         all of it, and the table
"""
