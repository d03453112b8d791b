"""SAEs for others: files that SAELens, SAEBench and Neuronpedia take, a model card, and the hub.

- `metadata`: what these look up beside the weights, in their names.
- `save`: writes a SAELens folder, an archive as Gemma Scope's, or one safetensors file.
- `shards`: writes a SAELens folder from a TSAE that several processes share.
- `model_card`: the text of a repository's front page.
- `saebench`: an SAE with the surface that SAEBench and SAELens's evaluations call.
- `publish`: uploads both.
"""
