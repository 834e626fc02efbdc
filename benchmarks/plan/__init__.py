"""What a survey costs on a machine, and whether that is so.

cost            fitted to measured jobs
plan            the same as a table
scale           beside jobs ten times larger than those that it was made from
whole           a large survey, once, from Parquet to verified shards
figures         the tables of the project's pages, from the records that are kept
"""
