"""Computes what an atom of the residual stream does to the logits on the direct path through the unembedding."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_FINAL_NORMS = ("model.norm", "transformer.ln_f", "gpt_neox.final_layer_norm", "model.language_model.norm")


@final
@dataclass(frozen=True)
class LogitEffects:
    """The logits that each atom changes most, relative to its mean effect on all logits.

    Attributes:
        raised: (d_sae, k) float32, the largest effects, in falling order.
        raised_ids: (d_sae, k) int64, their token ids.
        lowered: (d_sae, k) float32, the smallest effects, in rising order.
        lowered_ids: (d_sae, k) int64, their token ids.
    """

    raised: Float[Tensor, "d_sae k"]
    raised_ids: Int[Tensor, "d_sae k"]
    lowered: Float[Tensor, "d_sae k"]
    lowered_ids: Int[Tensor, "d_sae k"]


@torch.no_grad()
def logit_effects(model: Any, dictionary: Float[Tensor, "d_sae d_in"], k: int, block: int = 256) -> LogitEffects:
    """Computes which logits each atom alone raises and lowers most.

    The effect of an atom d is W_U (norm(d) − norm(0)), less its mean over the vocabulary. W_U is the unembedding and
    `norm` the model's own final norm. The atom is first scaled to unit root mean square. Without that, the ε that the norm
    adds to the mean square would shrink the effects of short atoms more than those of long ones. The effect therefore
    depends on the direction of the atom only. It is the direct path: what later layers do to the atom is not in it. An
    atom that is zero has no effect.

    Args:
        model: a causal language model of transformers.
        dictionary: atoms as rows, (d_sae, d_in).
        k: number of logits to return in either direction.
        block: number of atoms that are computed at a time.

    Returns:
        The effects in float32, whatever the dtype of the model. Cost: 2·d_sae·d_in·vocabulary FLOPs, and 4·block·vocabulary
        bytes beside a float32 copy of the unembedding.

    Raises:
        ValueError: the model has no language-model head, or no final norm of a known name.
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
        raised, lowered = effect.topk(k, dim=1), effect.topk(k, dim=1, largest=False)
        parts.append((raised.values, raised.indices, lowered.values, lowered.indices))
    return LogitEffects(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


def _final_norm(model: Any) -> nn.Module:
    modules = dict(model.named_modules())
    for name in _FINAL_NORMS:
        if name in modules and hasattr(model, "get_output_embeddings") and model.get_output_embeddings() is not None:
            return modules[name]
    raise ValueError(f"No final norm and language-model head found in {type(model).__name__}: logit effects need both.")
