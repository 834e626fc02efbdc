"""Shards in; fine-tuned models, predictions and reports out. Stands on `shards`, opens no Parquet of flux.

config          what decides a run
accelerator     one process's share of the machine
launch          processes that were started together
meeting         how they find each other
fit             learning from labels
loop            the training loop, for any objective
objective       what it is given to learn
schedule        the learning rate over a run
meter           what a run shows while it goes on
checkpoint      the state of a run under way
joint           what several data sets have in common
run             the folder of a run: card and record
network         the network of a run folder: built, saved, opened
tasks           what a model can learn
models          networks: of pictures, of spectra
tokenizer       self-supervised pretraining on spectra
evaluation      what a model is worth, beside baselines
paper           the tables and figures of A&A 709, A122
report          the same in tables, figures and a page
pareto          configurations by accuracy and cost
use             predict, explain, embed, export
options         what the commands have in common
"""
