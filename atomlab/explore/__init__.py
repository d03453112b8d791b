"""Looks at the atoms of a trained SAE inside its language model, and changes them: for notebooks and scripts.

- `opened_run.py`: `open_run` finds the SAE, the language model and the hook point of a run.
- `model_of_run.py`: the language model that a run was trained on.
- `atoms_of.py`: `atoms_of` says which atoms fire on which token of a text.
- `atom_edits.py`: `ablate`, `scale` and `add`: what is changed of some atoms.
- `splice.py`: the context manager that puts an SAE into a Hugging Face model.
- `steer.py`: `steer` continues a text while some atoms are changed.

`import atomlab` has all of these names.
"""
