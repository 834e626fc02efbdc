"""The evaluation of a run for people.

tables          metrics in words and tables
page            metrics as one HTML page
figures         which figures a run has
modelcard       the card for the model hub
"""
