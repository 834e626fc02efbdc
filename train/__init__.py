"""Shards in; fine-tuned models, predictions and reports out. Stands on `shards`, opens no Parquet of flux."""
