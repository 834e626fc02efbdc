"""A trained model at work.

inputs          what it is asked about: files, Parquet, shards
pictures        spectra straight from files, and pictures of them, drawn as shards are
predict         predictions as a table
explain         where it looks
embed           vectors, neighbours, what stands apart
neighbours      the nearest of them, exact or by an index
export          ONNX, or a folder for the model hub
commands        the commands `explain`, `embed` and `export`
"""
