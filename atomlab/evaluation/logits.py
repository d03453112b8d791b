"""What an atom of the residual stream does to the logits on its way through the unembedding."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_FINAL_NORMS = ("model.norm", "transformer.ln_f", "gpt_neox.final_layer_norm", "model.language_model.norm")


@torch.no_grad()
def logit_effects(
    model: Any, dictionary: Float[Tensor, "d_sae d_in"], k: int, block: int = 256
) -> tuple[Float[Tensor, "d_sae k"], Int[Tensor, "d_sae k"], Float[Tensor, "d_sae k"], Int[Tensor, "d_sae k"]]:
    """Logits that each atom alone raises and lowers most, relative to its mean effect: values and token ids, twice.

    Effect: W_U (norm(d) − norm(0)) with the model's own final norm, which depends on the direction of d only and acts
    linearly on it up to the scale of the residual stream it is added to. The direct path only: what later layers do to
    the atom is not in it.
    Cost: 2·d_sae·d_in·vocabulary FLOPs.

    Raises:
        ValueError: a model without a language-model head or with an unknown final norm.
    """
    head, norm = model.get_output_embeddings(), _final_norm(model)
    weight = head.weight.float()
    parts = []
    for rows in dictionary.split(block):
        atoms = rows.to(head.weight)
        direction = (norm(atoms) - norm(torch.zeros_like(atoms))).float()
        effect = direction @ weight.T
        effect -= effect.mean(1, keepdim=True)
        up, down = effect.topk(k, dim=1), effect.topk(k, dim=1, largest=False)
        parts.append((up.values, up.indices, down.values, down.indices))
    up_values, up_ids, down_values, down_ids = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
    return up_values, up_ids, down_values, down_ids


def _final_norm(model: Any) -> nn.Module:
    modules = dict(model.named_modules())
    for name in _FINAL_NORMS:
        if name in modules and hasattr(model, "get_output_embeddings") and model.get_output_embeddings() is not None:
            return modules[name]
    raise ValueError(f"No final norm and language-model head found in {type(model).__name__}: logit effects need both.")
