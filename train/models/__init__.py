"""Networks.

backbone        what a network can be built on, by name
fewer           less of a picture while training
picture         pictures to logits, through any backbone of transformers
sequence        the one-dimensional transformer: spectra to logits
tokenizer       encoder and decoder of spectra on their own grids
views           several pictures of one object, one answer
foreign         folders of models that others made
layers          what models that read spectra have in common
attention       attention, put back onto wavelengths
parameters      which are the head, which learn, and how fast
"""
