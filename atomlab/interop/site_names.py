"""Names of sites in TransformerLens, which SAELens, SAEBench and Neuronpedia use, and of this package."""

from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.sites import HookPoint

# Without hook_mlp_in, which lies before the norm, where mlp_in lies after it.
TRANSFORMER_LENS = {
    "resid_pre": "hook_resid_pre",
    "resid_post": "hook_resid_post",
    "mlp_out": "hook_mlp_out",
    "attn_out": "hook_attn_out",
    "attn_z": "attn.hook_z",
    "mlp_hidden": "mlp.hook_post",
}
SHORT_NAMES = {name: site for site, name in TRANSFORMER_LENS.items()}


def transformer_lens_name(point: HookPoint, model: LanguageModel) -> str | None:
    """Returns TransformerLens's name of a hook point, `blocks.<layer>.<site>`; None if it has none.

    Args:
        point: the hook point.
        model: the language model, whose family decides which module is which site. Its weights are not read.
    """
    if (depth := point.num_layers) is None:
        return None
    for site, name in TRANSFORMER_LENS.items():
        try:
            if model.hook_point(site, depth - 1) == point:
                return f"blocks.{depth - 1}.{name}"
        except ValueError:  # the family has no short names, or not this one
            continue
    return None
