"""atomlab: find the atoms of language models, and prove what you found."""
