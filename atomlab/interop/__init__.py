"""SAEs as files: reads and writes every supported format, and finds the SAE that a path means.

- `saelens`: folders of SAELens, which is also the format that atomlab saves its own SAEs in.
- `gemma_scope`: Gemma Scope's `params.npz`.
- `checkpoint`: checkpoints of train.py, and which of them a run goes on from. `checkpoint_file`: their format.
- `integrity`: `SHA256SUMS` beside an SAE, and what takes the place of a damaged one.
- `sae_from_tensors`: checks every tensor that one of these readers found, and builds the `ThresholdSAE` from them.
- `formats`: decides which format lies at a path that somebody else's SAE was downloaded to.
- `locate`: finds what a user's path means (a run, an SAE folder, an archive, a checkpoint), and refuses an SAE that was
  trained at another site than the one that is measured.

To add a format, write a file with one function from a path to a `ThresholdSAE` that ends in
`sae_from_tensors.sae_of_weights`, call it in `formats`, and name its files in `locate`, which looks for them.
"""
