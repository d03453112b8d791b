"""Reads text, or token ids, from files and from the hub, record by record.

corpus.py says what a corpus offers (`Corpus`, `Example`), and counts the records that are left out because they cannot
be used. local.py, hub.py, counterfact.py and wikipedia.py hold one corpus each, and mixture.py joins several by weight.
records.py reads records from data files, dataset_split.py from a dataset in the format of Hugging Face, and
parsing.py makes examples of them.

Another corpus is a class with the members of the protocol `Corpus` in a new file of this folder, and an option file in
conf/corpus/.
"""
