"""The tokenizer as a network.

config          sizes
pixels          scaling, patches, what is hidden, residuals
wavelengths     where a patch lies, as sines and cosines
resolution      how sharp it is
model           encoder and decoder
classifier      a task's heads on the encoder
"""
