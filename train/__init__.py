"""Shards in; fine-tuned vision transformers, predictions and reports out. Stands on `shards`, knows no flux."""
