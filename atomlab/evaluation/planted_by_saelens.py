"""SAELens' synthetic models, from which SynthSAEBench is made, as laws of vectors whose true atoms and codes are known.

They need the package sae-lens, which is imported when such a law is asked for.
"""

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, final

import torch
from jaxtyping import Float
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

OWN_NAMES = ("plain", "structured")
FEATURES, D_IN = 768, 128
_BLOCK = 16_384  # vectors that are drawn at once


@final
@dataclass(frozen=True)
class SaelensLaw:
    """A synthetic model of SAELens: x = codes · dictionary + offset, without noise.

    Attributes:
        name: for tables.
        model: a `sae_lens.synthetic.SyntheticModel`, on the CPU.
        l0: mean number of atoms of a vector, counted on 16,384 vectors of their own seed (`of`).
    """

    name: str
    model: Any
    l0: float

    @classmethod
    def of(cls, name: str, model: Any) -> "SaelensLaw":
        """Makes the law of a synthetic model, and counts its L0."""
        return cls(name, model, float((_block(model, _BLOCK, seed=0)[1] > 0).sum(1).double().mean()))

    @property
    def _norms(self) -> Tensor:
        return self.model.feature_dict.feature_vectors.detach().float().norm(dim=1)

    @property
    def dictionary(self) -> Float[Tensor, "features d_in"]:
        """The true atoms as rows, brought to unit norm; float32."""
        return self.model.feature_dict.feature_vectors.detach().float() / self._norms[:, None]

    @property
    def offset(self) -> Float[Tensor, " d_in"]:
        """What is added to every vector; float32."""
        return self.model.feature_dict.bias.detach().float()

    @property
    def identity(self) -> str:
        """A digest of the configuration, the dictionary and the version of SAELens, which makes the firings."""
        stated = json.dumps(self.model.cfg.to_dict(), sort_keys=True, default=str)
        weights = self.model.feature_dict.feature_vectors.detach().numpy().tobytes()
        return hashlib.sha256(f"{version('sae-lens')} {stated}".encode() + weights).hexdigest()

    def draw(
        self, count: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "count d_in"], Float[Tensor, "count features"]]:
        """Draws vectors, float32, and their true codes; a vector without any atom is possible, and is then the offset.

        SAELens draws from torch's global random numbers. They are seeded from the generator, and are as before afterwards.

        Args:
            count: number of vectors.
            generator: random numbers, on the CPU.
        """
        parts = []
        for first in range(0, count, _BLOCK):
            seed = int(torch.randint(2**31, (), generator=generator))
            parts.append(_block(self.model, min(_BLOCK, count - first), seed))
        return torch.cat([x for x, _ in parts]), torch.cat([codes for _, codes in parts]) * self._norms


def _block(model: Any, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Vectors of a synthetic model and the values of its own features, which need not have unit norm, both float32."""
    with isolate_rng():
        torch.manual_seed(seed)
        x, codes = model.sample_with_features(count)
    return x.float(), (codes.to_dense() if codes.is_sparse else codes).float()


def saelens_law(name: str, seed: int) -> SaelensLaw:
    """Makes one of two synthetic models of SAELens with 768 features in 128 dimensions, or reads one.

    Args:
        name: `plain` has SAELens' defaults: independent firings by Zipf's law, rates from .01 to .3, all values 1.
            `structured` has the configuration of SynthSAEBench-16k with its trees in proportion: hierarchy with exclusive
            children, correlation, values that vary. Any other name is a folder that SAELens has saved a model to, or a
            repository of the hub, which SAELens downloads, such as that of SynthSAEBench-16k; both are JSON and safetensors.
        seed: of the model that is made.

    Raises:
        ValueError: sae-lens is not installed, or the model cannot be read.
    """
    try:
        from sae_lens import synthetic  # pyright: ignore
    except ImportError as error:
        raise ValueError(
            f"study.saelens=[{name}] needs the package sae-lens: python -m pip install sae-lens. ({error})"
        ) from error
    if name not in OWN_NAMES:
        try:
            return SaelensLaw.of(name, synthetic.SyntheticModel.load_from_source(name))
        except Exception as error:  # of SAELens, safetensors, JSON or the hub
            raise ValueError(
                f"study.saelens names {name}, which is neither {' nor '.join(OWN_NAMES)}, and SAELens cannot read it as the "
                f"folder or hub name of a synthetic model: {str(error).splitlines()[0] if str(error) else error!r}"
            ) from error
    if name == "plain":
        made = synthetic.SyntheticModelConfig(FEATURES, D_IN, seed=seed)
    else:
        made = synthetic.SyntheticModelConfig(
            FEATURES,
            D_IN,
            firing_probability=synthetic.ZipfianFiringProbabilityConfig(exponent=0.5, max_prob=0.4, min_prob=5e-4),
            hierarchy=synthetic.HierarchyConfig(
                total_root_nodes=6,  # 128 trees of 85 features for 16,384 features
                branching_factor=4,
                max_depth=3,
                mutually_exclusive_portion=1.0,
                compensate_probabilities=True,
                scale_children_by_parent=True,
            ),
            orthogonalization=synthetic.OrthogonalizationConfig(num_steps=100, lr=3e-4),
            correlation=synthetic.LowRankCorrelationConfig(rank=25, correlation_scale=0.1),
            mean_firing_magnitudes=synthetic.LinearMagnitudeConfig(start=5.0, end=4.0),
            std_firing_magnitudes=synthetic.FoldedNormalMagnitudeConfig(mean=0.5, std=0.5),
            bias=0.5,
            seed=seed,
        )
    return SaelensLaw.of(f"SAELens, {name}", synthetic.SyntheticModel(made))
