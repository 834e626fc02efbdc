"""Survey files in, one clean Parquet data set of spectra out.

surveys         readers of file layouts, one module a family
archives        files inside tar and zip, where they lie
fits            FITS files: a direct parser, and astropy for every surprise
said            what a user says of spectra whose files do not
tables          Parquet and HDF5 of many spectra, in slices of rows
plain           tables of text, VOTables and npz
generic         spectra that no survey has a reader for
probe           whether pyarrow survives a footer that no seal vouches for
seal            checksums of Parquet, column by column
columns         a column of a table as one array
ids             ids of objects, exact or refused
stems           names of files as names of objects
listing         what lies in a folder
listing_names   a list of names that may be long
limits          how large a file may be
files           the survey files that a folder, a name or a glob stands for
spectra         the spectra Parquet: written and read here, and nowhere else
job             from survey files to spectra Parquet: plan, parts, account
catalogue       label tables, selection cuts, balanced subsets
download        the spectra of a catalogue from the survey's server
mock            a survey with known truth
facts           what there is to know about one spectrum, in words
inspect         what files of spectra hold
known           which surveys are read
"""
