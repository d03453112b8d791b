"""What a language model loses when reconstructions replace its activations (theory.md 8)."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from atomlab.theory import kl_divergence, loss_recovered


@final
class LossRecovered(Metric):
    """The language model's loss with reconstructions in place of activations, and how much of it they recover.

    `compute` returns float64 scalars by the names of a table's row, NaN before the first token. `loss` and `loss_clean`
    are mean cross-entropies in nats a token, with reconstructions and of the model as it is; `loss_gap` is what the
    mean ablation costs, L_mean − L_clean; `loss_recovered_zero` and `loss_recovered_mean` are
    (L_ablated − L) / (L_ablated − L_clean) for the activation replaced by zero and by the mean: 1 if reconstructions
    cost nothing, 0 if they are no better than the ablation, NaN if the ablation costs nothing. All are exact.

    Cost: a pass over the losses. State: four float64 sums and an int64 count.
    """

    full_state_update = False
    totals: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("totals", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        clean: Float[Tensor, " tokens"],
        spliced: Float[Tensor, " tokens"],
        zero_ablated: Float[Tensor, " tokens"],
        mean_ablated: Float[Tensor, " tokens"],
    ) -> None:
        """Adds the losses of the same tokens, padding left out.

        Args:
            clean: (tokens,) cross-entropies in nats of the model as it is.
            spliced: With reconstructions in place of the activations, likewise.
            zero_ablated: With zeros in their place.
            mean_ablated: With the mean in their place.

        Raises:
            ValueError: NaN or infinite losses.
        """
        sums = torch.stack([losses.double().sum() for losses in (clean, spliced, zero_ablated, mean_ablated)])
        if not sums.isfinite().all():
            raise ValueError("The language model's losses have NaN or infinite values: check the spliced activations.")
        self.totals += sums.to(self.totals.device)
        self.count += len(clean)

    def compute(self) -> dict[str, Tensor]:
        clean, spliced, zero, mean = self.totals / self.count
        return {
            "loss_recovered_zero": loss_recovered(clean, spliced, zero),
            "loss_recovered_mean": loss_recovered(clean, spliced, mean),
            "loss": spliced,
            "loss_clean": clean,
            "loss_gap": mean - clean,
        }


@final
class NextTokenKL(Metric):
    """The mean Kullback-Leibler divergence KL(p ‖ q) in nats a token, with p the model's own next-token distribution and
    q the one with something spliced in.

    `compute` returns a float64 scalar, exact, in float32 a token; NaN before the first token.

    Cost: `kl_divergence`, a few passes over the logits. State: a float64 and an int64.
    """

    full_state_update = False
    higher_is_better = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, clean: Float[Tensor, "tokens vocabulary"], spliced: Float[Tensor, "tokens vocabulary"]) -> None:
        """Adds the logits of the same tokens, padding left out.

        Args:
            clean: (tokens, vocabulary) logits of the model as it is.
            spliced: (tokens, vocabulary) logits with something spliced in.

        Raises:
            ValueError: NaN logits.
        """
        total = kl_divergence(clean, spliced).double().sum()
        if not total.isfinite():
            raise ValueError("The language model's logits have NaN or infinite values: check the spliced activations.")
        self.total += total.to(self.total.device)
        self.count += len(clean)

    def compute(self) -> Tensor:
        return self.total / self.count
