"""What a benchmark is made of.

samples         spectra to draw
records         a run of a benchmark, its JSON, and the clock
machine         where numbers hold
process         commands as a user types them
tables          records as Markdown
plot            records as a picture
report          the three files of a run, and the page of a folder
comparison      two runs side by side
"""
