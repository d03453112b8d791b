"""Keeps harvested activations on disk, and reads them back.

files.py defines the files of a harvest, writes each of them whole or not at all, and checks them against the checksums
of their index. row_origins.py keeps the token sequences behind the rows: the token, position, document and group of each.
activation_store.py reads rows through memory maps. moments.py computes mean and second moment of the rows and keeps
them beside the rows; statistics.py sums up a site in a few lines.

Another quantity that is kept with a harvest is a new file of this folder that writes through files.py. Whoever changes
the meaning of a file raises `FORMAT` there, so that older harvests are made again.
"""
