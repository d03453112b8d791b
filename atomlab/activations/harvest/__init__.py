"""Runs a language model over token sequences once, and keeps what it computes at some hook points.

cache.py names a harvest by all that determines it, and makes what is missing (`HarvestCache`, `HarvestOptions`).
preflight.py checks what can be known before the first pass. shards.py cuts the sequences into files. harvester.py runs the
passes under Lightning, on one process or several, and writes the files in the background. remote.py copies a harvest
from elsewhere, after it looked at every byte.
"""
