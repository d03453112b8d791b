"""One file for each format of SAEs; `recognise` asks them in turn.

Each has a function `find` from a path to a `Found`, which says what lies there after names, configurations and headers
were read, and reads the weights only when it is asked to. It returns None for a path that is not of its format, and
raises ValueError, in one sentence, for an SAE of its format that no class of this package can hold.
"""
