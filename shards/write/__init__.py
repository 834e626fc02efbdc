"""Making data sets.

build           spectra Parquet to shards
reshard         data sets from data sets: `reshard`, `merge`
sources         whether those are whole
sidecar         the tables beside their shards
job             what both are: claim the folder, run the tasks, publish
task            one shard number
split           which split a spectrum takes: by sky, by object, by row, by a group
plan            in which order what goes into which shard
marked          rows with a mark: moved ones, and those that are set aside
suited          the picture that suits the spectra
cells           how fine the cells of the sky are
repeats         which rows are set aside, because their object is there more than once
visits          visits of one object, and what a group holds, stay in one split
card            dataset card, table of counts, `_info.json`
job_log         what the jobs read, and how fast they were
"""
