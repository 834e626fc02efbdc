"""What a model can learn.

task            what a task says of itself, and the tasks by name
multitask       tasks side by side in one model
coded           columns of text as numbers
spectral_type   the letter in a subclass
classification  classes, subclasses, texts of another column
column          any column of a data set
logarithm       a number learnt as its logarithm
regression      redshift, temperature, gravity, metallicity, numbers of another column
transforms      from a number to the axis that it is learnt on
heads           what a last layer says about one number
metrics         how good predictions are, in NumPy
constant        the best that can be had without a model: majority class, mean label
drawn           what intervals draw anew
text            metrics and numbers in words
plots           figures of a report
"""
