"""Measurements: contenders in turn, medians with spread, typed records with the machine that they hold for.

`README.md` says what each measures, and how to run them.

    suite           the six benchmarks
    kit             what they are made of: records, clock, tables, plots
    survey          a survey of any size through every command
    plan            what a survey costs, fitted to records; the tables of the project's pages
    peers           what ours is held against
"""
