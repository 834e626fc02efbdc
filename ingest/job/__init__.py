"""The ingest job: survey files in, spectra Parquet out, every object accounted for.

survey          from a survey's name to its Parquet: the user's files, or a mock survey
build           the job
config          what decides its spectra
plan            which file goes to which part
part            one part: read its files, join labels, cut, write one Parquet file
tasks           the tasks of all parts, and what they came to
summary         the account
"""
