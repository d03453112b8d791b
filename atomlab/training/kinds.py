"""How each kind of SAE is built and trained by default, for comparisons at the same data, width and L0: conf/sae in Python."""

from atomlab.sae import Incoherence, TargetL0
from atomlab.training.recipe import Architecture, Kind, Revival, TrainingRecipe

_OF_DEAD_LATENTS = 1 / 32  # Gao et al. 2024


def defaults_of(kind: Kind, expansion: float, l0: float) -> tuple[Architecture, TrainingRecipe]:
    """Returns what `sae=tsae`, `relu`, `top_k`, `batch_top_k` or `gated` stand for on the command line.

    A TSAE has the default recipe. The others have that of their papers: the Euclidean error, an encoder of its own, no noise,
    no incoherence term, and for TopK and BatchTopK a term for dead latents.

    Args:
        kind: `threshold` for a TSAE, or the activation of a baseline.
        expansion: d_sae / d_in.
        l0: mean number of latents that are to fire on a vector.

    Returns:
        The architecture and the recipe.

    Raises:
        ValueError: an unknown kind or a number outside of its range; the message names the key of conf/.
    """
    if kind == "threshold":
        return Architecture(expansion=expansion), TrainingRecipe(TargetL0(1.0, l0))
    recipe = TrainingRecipe(
        TargetL0(1.0, l0),
        noise=0.0,
        incoherence=Incoherence(0.0),
        revival=Revival(coefficient=_OF_DEAD_LATENTS if kind in ("top_k", "batch_top_k") else 0.0),
    )
    return Architecture(expansion, alpha=0.0, tied=False, activation=kind), recipe
