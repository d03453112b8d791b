"""What the report's atom browser shows of each atom, measured on held-out text.

One pass over held-out vectors finds where each atom fires. All else follows from these firings.

- `browse.py`: the whole of it for the table with controls, and `BrowserOptions`.
- `firings.py`: where each atom fires, and in which contexts most strongly.
- `entropies.py`: how mixed the tokens and documents are on which an atom fires.
- `context_similarity.py`: how alike an atom's strongest contexts are to a sentence-embedding model.
- `telling.py`: how much an atom tells of its token, which orders the list of atoms.
- `neighbours.py`: the atoms nearest to each atom, and a map of them.
- `shown_text.py`, `contexts.py`: the text that the page holds, and the contexts in which each atom is shown.
- `logit_effects.py`: which logits an atom raises and lowers.
- `atom_fields.py`: everything that the browser shows, as data for `atomlab.report`.
- `delphi.py`: the firings in the cache format of eai-delphi.

Another number of each atom: an `AtomColumn` in `_columns` of `atom_fields.py`, which the page then sorts and searches by.
Another number of each row: a function here, its keys added to the row in `browse.py`, and a `Column` in
`atomlab.report.columns_of_codes`.
"""
