"""What an atom of the residual stream does to the logits on its way through the unembedding."""

from copy import deepcopy
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

    Effect: W_U (norm(d) − norm(0)) with the model's own final norm, d scaled to unit root mean square, so that it depends
    on the direction of d only: a norm adds an ε to the mean square, and would shrink short atoms more than long ones. It
    acts linearly on the direction, up to the scale of the residual stream that it is added to. The direct path only: what
    later layers do to the atom is not in it. Float32, whatever the model's own dtype; an atom that is zero has no effect.
    Cost: 2·d_sae·d_in·vocabulary FLOPs.

    Raises:
        ValueError: a model without a language-model head or with an unknown final norm.
    """
    norm = deepcopy(_final_norm(model)).float()
    weight = model.get_output_embeddings().weight.float()
    parts = []
    for rows in dictionary.split(block):
        square = rows.double().square().mean(1, keepdim=True)
        atoms = (rows.double() / square.sqrt().where(square > 0, 1)).to(weight)
        direction = norm(atoms) - norm(torch.zeros_like(atoms))
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
