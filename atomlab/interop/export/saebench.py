"""An SAE with the surface that SAEBench and the evaluations of SAELens ask for; neither needs to be installed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any, final

import torch
from torch import Tensor, nn

from atomlab.interop.export.metadata import metadata_of_origin
from atomlab.interop.site_names import families_of, transformer_lens_name
from atomlab.sae import SAE

_LOOKED_UP = (  # in `cfg.metadata`, where SAELens takes what is missing for None
    "model_name", "model_class_name", "model_from_pretrained_kwargs", "hook_name", "hook_head_index", "hf_hook_name",
    "context_size", "prepend_bos", "dataset_path", "seqpos_slice", "exclude_special_tokens", "neuronpedia_id",
)  # fmt: skip


@final
@dataclass
class SAEBenchConfig:
    """The fields that SAEBench and SAELens read of an SAE, by their names. Their evaluations write some of them.

    Attributes:
        model_name: of the language model, as TransformerLens names it.
        d_in: width of the activations.
        d_sae: number of latents.
        hook_name: of the site in TransformerLens.
        hook_layer: number of the layer, from 0.
        metadata: what SAELens's evaluations look up of the model and the data.
    """

    model_name: str
    d_in: int
    d_sae: int
    hook_name: str
    hook_layer: int
    metadata: SimpleNamespace
    context_size: int | None = None
    hook_head_index: int | None = None
    architecture: str = "jumprelu"
    apply_b_dec_to_input: bool = False
    finetuning_scaling_factor: bool = False
    activation_fn_str: str = "relu"
    prepend_bos: bool = True
    normalize_activations: str = "none"
    reshape_activations: str = "none"
    dtype: str = "float32"
    device: str = "cpu"
    dataset_path: str = ""
    dataset_trust_remote_code: bool = False
    seqpos_slice: tuple[int | None, ...] = (None,)
    training_tokens: int = -100_000
    sae_lens_training_version: str | None = None
    neuronpedia_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields but `metadata`, as JSON can hold them."""
        return {key: value for key, value in asdict(self).items() if key != "metadata"}


@final
class SAEBenchSAE(nn.Module):
    """An SAE as SAEBench's `BaseSAE` and SAELens's evaluations call it: `encode`, `decode`, weights, `cfg`, `device`, `dtype`.

    Args:
        sae: the SAE; its weights are shared.
        cfg: what is read of it.
    """

    def __init__(self, sae: SAE, cfg: SAEBenchConfig) -> None:
        super().__init__()
        self.sae, self.cfg = sae, cfg
        self.W_enc = nn.Parameter(sae.W_enc.detach(), requires_grad=False)
        self.W_dec, self.b_enc, self.b_dec = sae.W_dec, sae.b_enc, sae.b_dec
        self.hook_z_reshaping_mode = False
        self._heads: tuple[int, ...] | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.W_dec.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return self.W_dec.dtype

    def encode(self, x: Tensor) -> Tensor:
        """Computes the codes `(..., d_sae)` of activations `(..., d_in)`, or `(..., heads, d_head)` while heads are reshaped."""
        if self.hook_z_reshaping_mode:
            self._heads = tuple(x.shape[-2:])
            x = x.flatten(-2)
        return self.sae.encode(x.to(self.dtype))

    def decode(self, feature_acts: Tensor) -> Tensor:
        """Computes the reconstructions `(..., d_in)` of codes; `(..., heads, d_head)` while heads are reshaped."""
        x_hat = self.sae.decode(feature_acts)
        return x_hat.unflatten(-1, self._heads) if self.hook_z_reshaping_mode and self._heads else x_hat

    def forward(self, x: Tensor) -> Tensor:
        """Encodes and decodes."""
        return self.decode(self.encode(x))

    def turn_on_forward_pass_hook_z_reshaping(self) -> None:
        """Takes the outputs of attention heads as TransformerLens has them, `(..., heads, d_head)`."""
        self.hook_z_reshaping_mode = True

    def turn_off_forward_pass_hook_z_reshaping(self) -> None:
        """Takes activations as they are."""
        self.hook_z_reshaping_mode, self._heads = False, None

    def fold_W_dec_norm(self) -> None:
        """Does nothing: `to_saebench` has given all atoms unit norm already where that keeps the function."""


def to_saebench(sae: SAE, metadata: Mapping[str, Any] | None = None) -> SAEBenchSAE:
    """Wraps an SAE for SAEBench and for the evaluations of SAELens (`sae_lens.evals`).

    The atoms get unit Euclidean norm, which SAEBench asks for, and the encoder their former norm: the reconstructions stay and
    each latent's codes are multiplied by the norm of its atom. Of a TopK all codes are multiplied by the mean norm.

    Args:
        sae: the SAE of raw activations; it stays as it is.
        metadata: where it was trained, by SAELens's names, at least `model_name` and `hook_name`, as TransformerLens has it
            (`blocks.<layer>.…`) or as the path of a module of Gemma, Llama, Mistral, Qwen, GPT-2 or Pythia. None takes what
            `sae.origin` has.

    Returns:
        The wrapped SAE.

    Raises:
        ValueError: neither says the model and a site that TransformerLens has; or an atom is zero.
    """
    stated = dict(metadata_of_origin(sae.origin) if metadata is None else metadata)
    site, model = str(stated.get("hook_name") or ""), stated.get("model_name")
    site = stated["hook_name"] = transformer_lens_name(site, families_of(model)) or site
    parts = site.split(".")
    if not model or len(parts) < 3 or parts[0] != "blocks" or not parts[1].isdigit():
        raise ValueError(
            f"SAEBench needs the model and TransformerLens's name of the site, and this SAE has model_name={model!r} and "
            f"hook_name={site!r}: give metadata={{'model_name': ..., 'hook_name': 'blocks.<layer>.hook_resid_post'}}."
        )
    unit = sae.with_unit_norm_decoder()
    cfg = SAEBenchConfig(
        str(model),
        sae.d_in,
        sae.d_sae,
        site,
        int(parts[1]),
        SimpleNamespace(**{name: stated.get(name) for name in _LOOKED_UP}),
        context_size=stated.get("context_size"),
        apply_b_dec_to_input=sae.apply_b_dec_to_input,
        prepend_bos=bool(stated.get("prepend_bos", True)),
        dataset_path=str(stated.get("dataset_path") or ""),
        seqpos_slice=tuple(stated.get("seqpos_slice") or (None,)),
    )
    if cfg.metadata.prepend_bos is None:
        cfg.metadata.prepend_bos = cfg.prepend_bos
    return SAEBenchSAE(unit, cfg)
