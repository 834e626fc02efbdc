"""A survey of any size through every command, in tiny pictures, on the machine at hand.

rows            spectra Parquet of as many rows as are asked for, made in minutes
watch           a command, and what its processes take: memory, open files
loading         the loader, in a process of its own
road            the stages
growth          records of several sizes side by side
survey          the command
"""
