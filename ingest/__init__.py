"""Survey files in, one clean Parquet data set of spectra out.

What is in this package, in the order of the work:

    schema          the spectra Parquet contract; what a `Spectrum` is
    surveys         readers of file layouts, one module a family (a package)
    survey          from a survey's name to its Parquet: the user's files, or a mock survey; what `make shards` calls
    build           the job: plan, parts, account
    plan            which file goes to which part of the job
    part            one part: read its files, join labels, cut, write one Parquet file
    catalog         label tables, joined on the survey's key
    cuts            selection cuts, `--cuts` and `--where`
    quarantine      what gave no sample, and why
    summary         the account that a job prints
    fits            FITS files: the direct parser
    fits_astropy    the slow and sure one, for every surprise
    hdu             what a reader sees, whichever parser read it
    tables          Parquet and HDF5 of many spectra, in slices of rows
    rows            catalogues and lists of checksums, in batches
    mock            a survey with known truth (a package)

Commands of `specshards ingest` beside `build` and `mock`:

    download        `download`: the spectra of a catalogue from the survey's server
    addresses       where a survey publishes a spectrum
    fetch           one file over HTTP
    record          what became of every row of a download
    select          `select`: a filtered, balanced subset
    choice          which rows become the subset
    subset          copying them
    inspect         `inspect`: what files of spectra hold; of a data set of shards, `shards.report.head`
    figures         pictures of spectra for people

What the other rooms use, too:

    jobs            many pure tasks on one machine or many
    cluster         the Dask client behind it
    files           files and objects that appear whole or not at all
    errors          the three ways things go wrong
    options         command-line options that `ingest` and `shards` share
    page, svg       what the HTML pages of `shards` and `train` have in common, and the drawings in them
"""
