"""Spectra Parquet in, tar shards of images out; and the loader that reads them back.

The format:

    format          sample, label vector, manifest, configuration
    encoding        how a sample lies in a tar: png, pnm, jpeg, flux
    png, flux       the first and the last of them
    tar             the tar writer with its index

Writing:

    make            `make shards`: from a survey's name to its data set
    build           spectra Parquet to shards
    remake          data sets from data sets: `reshard`, `merge`
    job             what both are: claim the folder, run the tasks, publish
    plan            what goes where: split by sky, order by a seed
    visits          visits of one object stay in one split
    sky             which objects lie close together
    write           one task: one shard number
    spectra         a folder of spectra Parquet: files and row groups
    blocks          its spectra in memory, a block at a time
    frame           spectra in the rest frame, where that is asked for
    card            dataset card, table of counts, `_info.json`

Checking and looking:

    check_commands  `specshards shards verify` and `inspect`
    verify          the checks of a data set, quick ones first
    examine         what `verify --deep` does with one shard
    overall         and with all of them together
    check           what a check says
    inspect         the head of a shard as table and pictures

The page of a data set:

    report          `report.html`: when it is made; `specshards shards report`
    page            its sections
    tally           what the sidecars add up to
    examples        the samples that it shows
    origin          the spectra Parquet that they came from
    showcase        the gallery of them
    drawings        its drawings
    snippets        its code to copy
    runs            what the jobs read, and how fast they were

Reading:

    loader          batches from local disk, exactly once an epoch
    stream          batches from any address
    batch           what both give
    mixing          several data sets: do they fit, and with what shares
    order           which sample stands where in an epoch
    archive         the bytes of a split's samples
    decode          from bytes to arrays; `dali` does it with NVIDIA DALI
    dali            decoding PNG and JPEG
    augment         small changes, anew every epoch
    paint           arrays or spectra to RGB tensors
    stack           spectra side by side, not drawn
    pictures        the same pictures straight from survey files, for prediction
"""
