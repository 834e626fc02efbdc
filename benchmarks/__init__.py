"""Measurements: contenders in turn, medians with spread, typed records with the machine that they hold for.

`README.md` says what each measures, and how to run them.

    render          drawing, beside a memset of the picture and matplotlib
    encode          a sample's bytes, beside OpenCV's
    ingest          survey files to Parquet, beside a plain astropy loop
    shards          Parquet to tars, beside csv.gz and matplotlib
    load            batches of pictures, beside other people's loaders
    train           steps with the loader, beside cached batches
    whole           a large survey, once, from Parquet to verified shards
    scale           the plan, beside jobs ten times larger than those that it was made from
    compare_matplotlib      how like matplotlib's our pictures are

What they are made of:

    records         a run of a benchmark, its JSON, and the clock
    machine         where numbers hold
    tables          records as Markdown
    plot            records as a picture
    report          the three files of a run, and the page of a folder
    comparison      two runs side by side
    cost            what a survey takes on a machine, fitted to measured jobs
    plan            the same as a table
    figures         the tables of the project's pages, from the records that are kept
    process         commands as a user types them
    samples         spectra to draw
    load_data       the pictures that loaders load
    load_startup    opening a million samples
    peer_worker     other people's loaders, in a process of their own
    matplotlib_reference    matplotlib's drawing of the three pictures
"""
