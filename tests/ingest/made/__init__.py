"""Made-up files of surveys of stars, in their layouts: not one photon of them was ever observed.

    star        a made-up star: its parameters, and absorption lines that follow them
    apogee      apStar, aspcapStar and apVisit files, and a catalogue like allStar
    galah       four arms a star, as of DR4 or of DR3, and a catalogue
    gaia        sampled XP spectra as CSV, ECSV, FITS and VOTable, RVS spectra, and a catalogue

Each is a command: `python -m tests.ingest.made.apogee FOLDER N`, and a function `write(folder, n, seed)`.
"""
