"""Turns examples of text into token sequences of train, validation and test, which share no group.

tokenise.py has the rules (`TokenRules`), the split, and the way from examples to sequences. sequences.py lays documents
and prompts out in sequences, and cuts these into forward passes without padding. special_tokens.py finds out what a
tokenizer puts around a text. Another rule is a field of `TokenRules`, an option in conf/activations/default.yaml, and a
key in `HarvestCache.description`, which names a harvest by all that determines it.
"""
