"""SAEs as files: reading and writing those of every format, and finding the one that a path means.

A format is a file of this room with one function from a path to a `ThresholdSAE`: `saelens` (also how atomlab saves its
own), `gemma_scope`, and `checkpoint` for a run's checkpoints. Each ends in `weights`, which looks at every tensor before
it is used. `released` decides which format lies at a path; a further format is named there. `locate` finds what a user
means by a path, and refuses what was trained at another site.
"""
