"""The benchmarks, and what they measure with.

render          drawing, beside a memset of the picture and matplotlib
encode          a sample's bytes, beside OpenCV's
ingest          survey files to Parquet, beside a plain astropy loop
shards          Parquet to tars, beside csv.gz and matplotlib
load            batches of pictures, beside other people's loaders
train           steps with the loader, beside cached batches
gpu             what only a GPU can show, by parts
several         several pictures of one spectrum, beside one
load_data       the pictures that loaders load
load_startup    opening a million samples
listing         planning of jobs of many files and many rows
remote          epochs from a bucket, beside the disk
verify          what it costs to compare what is read with checksums
seal            what checksums of spectra Parquet cost
"""
