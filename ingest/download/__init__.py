"""The spectra of a catalogue, fetched from the survey's own server.

job             `specshards ingest download`
addresses       where a survey publishes a spectrum
fetch           one file over HTTP
ledger          what became of every row
"""
