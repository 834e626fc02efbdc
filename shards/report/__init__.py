"""A data set for people.

write           `report.html`: when it is made
page            its sections
statistics      what the sidecars add up to
samples         the samples that it shows
gallery         how it shows them
sources         the spectra Parquet that they came from
plots           its drawings
snippets        its code to copy
head            the first samples of a shard, as table and pictures
"""
