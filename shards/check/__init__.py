"""Is a data set whole and sound?

commands        `specshards shards verify`, `inspect`, `report`
verify          the checks, quick ones first
shard           what `verify --deep` does with one shard
dataset         and with all of them together
result          what a check says
"""
