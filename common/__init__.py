"""The ground floor: what every room stands on, and what imports no room.

errors          the three ways things go wrong, and the line a user sees
cli             running a command line by these rules
spectrum        one spectrum: its arrays, its good pixels, what may be known of its object
identity        which rows have one id, and whether they are one object
impossible      labels that no object can have, counted with examples
label_columns   columns of labels without them
further         further labels, each a column of its own
sky             which objects lie close together
arguments       a command's options, made from the fields of configurations
options         options that commands of several rooms share
files           files and objects that appear whole or not at all
cache           copies of what lies at an address, within a limit
remote          errors of the network: which pass, and one line for those that do not
folder          the folder that a job writes: claim, lock, ledger
jobs            many pure tasks, on one machine or many
dask_cluster    the Dask client behind it
registry        names of what can be added, here or by another package
messages        what a job tells people, through the logger `specshards`
quarantine      what gave no sample, and why
text            tables for a terminal
json            content that JSON can hold
html            what an HTML page is made of
svg             the drawings in it
"""
