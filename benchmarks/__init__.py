"""Measurements: interleaved, medians with spread, as JSON records and a table."""
