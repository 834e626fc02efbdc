"""Label tables: joined on the survey's key, filtered by cuts, cut down to balanced subsets.

labels          a label table, joined by every worker
prepared        a label table, streamed once into the file that they map
columns         which of its columns are taken, and what is said of the others
further         which further columns are kept
cuts            selection cuts, `--cuts` and `--where`
expression      the grammar of filters
help            help texts that name the surveys and cuts of other packages
rows            the rows of CSV, FITS and Parquet in batches
values          what the values of a column mean
checksums       lists of checksums
select          `specshards ingest select`
config          what decides a subset
choose          which rows become the subset
subset          copying them
"""
