"""What a language model loses when reconstructions replace activations (theory.md 8)."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from atomlab.theory import kl_divergence, loss_recovered


@final
class LossRecovered(Metric):
    """Mean cross-entropies in nats a token of the model as it is, with reconstructions spliced in, and with the site
    ablated to zero and to the mean; and the share of the loss that is recovered against either ablation. Exact.

    `compute` gives `original`, `spliced`, `zero_ablated`, `mean_ablated`, `recovered_zero`, `recovered_mean`.
    Cost: one pass over the losses. State: four float64 sums and an int64 count.
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
        original: Float[Tensor, " tokens"],
        spliced: Float[Tensor, " tokens"],
        zero_ablated: Float[Tensor, " tokens"],
        mean_ablated: Float[Tensor, " tokens"],
    ) -> None:
        """Losses of the same tokens, one each, padding left out.

        Raises:
            ValueError: NaN or infinite losses.
        """
        sums = torch.stack([losses.double().sum() for losses in (original, spliced, zero_ablated, mean_ablated)])
        if not sums.isfinite().all():
            raise ValueError("The language model's losses have NaN or infinite values: check the spliced activations.")
        self.totals += sums
        self.count += len(original)

    def compute(self) -> dict[str, Tensor]:
        original, spliced, zero, mean = self.totals / self.count
        return {
            "original": original,
            "spliced": spliced,
            "zero_ablated": zero,
            "mean_ablated": mean,
            "recovered_zero": loss_recovered(original, spliced, zero),
            "recovered_mean": loss_recovered(original, spliced, mean),
        }


@final
class NextTokenKL(Metric):
    """Mean KL(p ‖ q) in nats a token of the model's own next-token distribution p to q, the one with something spliced
    in; exact, in float32 a token, sums in float64. Cost: `kl_divergence`. State: a float64 and an int64.
    """

    full_state_update = False
    higher_is_better = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, original: Float[Tensor, "tokens vocabulary"], spliced: Float[Tensor, "tokens vocabulary"]) -> None:
        """Logits of the same tokens, padding left out.

        Raises:
            ValueError: NaN logits.
        """
        total = kl_divergence(original, spliced).double().sum()
        if not total.isfinite():
            raise ValueError("The language model's logits have NaN or infinite values: check the spliced activations.")
        self.total += total
        self.count += len(original)

    def compute(self) -> Tensor:
        return self.total / self.count
