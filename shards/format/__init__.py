"""What lies on disk, for writers and readers alike; `docs/shard-format.md` says it for others.

layout          what a folder can look like: splits, names, numbers
leaks           what a split by row or by a group tears apart
counts          how many samples were split by id, or by a group
config          what decides the bytes of a shard folder
manifest        sample, label vector, manifest
encoding        how a sample's picture is stored: png, pnm, jpeg, flux
png             PNG of small arrays
flux            a spectrum as one record
lz4             pictures as LZ4, which DALI expands on a GPU
tar             the tar writer with its index
handles         mapped files: a bounded number in a process
index           where the samples of one tar lie
archive         the samples of a split, through both
nearby          shards at an address, as files of the cache
"""
