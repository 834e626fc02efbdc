"""A&A 709, A122 again: its tables and figures from one command, each number beside what can be had without a model.

names        what commands call tables, pictures and methods
config       what of the paper is made again, and how its models are trained
plan         which runs the tables ask for, and why a cell is not comparable
study        answers, objects and reasons together, from which all is measured
run          the runs, one after the other; each can be stopped and gone on with
answers      what the models said of every test object, `answers.parquet`
objects      what the data sets hold: labels, classes, S/N, by survey and split
cells        one number: objects, interval, the best constant beside it
tables       its tables
figures      Figures 2 to 4, 10 and 11
report       `paper.json`, `paper.md`, `paper.html`
published    numbers of others, and the definitions of the published code
"""
