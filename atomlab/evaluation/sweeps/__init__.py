"""The analysis of a sweep, from the tables of its jobs; `atomlab.evaluation.sweep` puts it together.

- `jobs.py`: the finished jobs and what they varied. `tidy.py`: one line for each job and row of its table.
- `settings.py`: a row for each setting, over its seeds. `agreement.py`: which atoms come back under another seed.
- `capacity.py`: critical numbers of atoms, heat maps, and the scaling law of the held-out loss.
- `figures.py`: numbers against the number of atoms, and against every other number that was varied.
- `to_wandb.py`: the same as tables and plots of a wandb run.
"""
