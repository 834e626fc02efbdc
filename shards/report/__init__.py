"""A data set for people.

make            `report.html`: when it is made
page            what stands in it; `templates` lay it out
further         the further columns, counted
statistics      statistics of the sidecars
samples         the samples that it shows
gallery         how it shows them
sources         the spectra Parquet that they came from
plots           its plots
snippets        its code to copy
head            the first samples of a shard, as table and pictures
"""
