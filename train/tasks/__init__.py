"""What a model can learn.

task            tasks by name, side by side in one model
classification  classes and subclasses
regression      redshift, temperature, gravity, metallicity
heads           what a last layer says about one number
metrics         how good predictions are, in NumPy
constant        the best that can be had without a model: majority class, mean label
"""
