"""Fits an SAE to vectors in memory or a stream of them, without a language model."""

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from atomlab.activations.store.moments import Moments, exact_moments
from atomlab.ranges import Count, Index, fits
from atomlab.sae import SAE, BaselineSAE, ThresholdSAE
from atomlab.training.build import build
from atomlab.training.callbacks import DecoderNorm, FinalCalibration, ProgressBar
from atomlab.training.kinds import defaults_of, with_changes
from atomlab.training.recipe import Kind
from atomlab.training.trainer_checks import check_finished
from atomlab.training.vectors import VectorsDataModule

_HELD_OUT = 0.1  # share of the vectors that the last calibration is on
_MOST_HELD_OUT = 8192
_EXPECTED = "Vectors should be a tensor or NumPy array of shape (samples, d_in), or an iterable of such blocks"
_ROUNDING = 32  # a direction whose root mean square is below this many roundings of the vectors holds rounding alone


def fit(
    vectors: Tensor | Iterable[Tensor],
    *,
    d_sae: int,
    l0: float,
    kind: Kind = "threshold",
    steps: int = 1000,
    batch_size: int = 512,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
) -> SAE:
    """Fits an SAE to vectors, through the module that train.py uses, with the recipe of that kind (`defaults_of`).

    The metric S is that of the vectors themselves. Where they lie in a subspace, such as 16 features in 32 dimensions, the
    SAE is trained in coordinates of that subspace and returned in those of the vectors; its atoms lie in it too. A tenth of
    the vectors, up to 8,192, is held out, and on it the last calibration sets the mean L0. The global random numbers are as
    before afterwards.

    Args:
        vectors: shape `(samples, d_in)`, a tensor or NumPy array, or an iterable of such blocks. Of a stream no more is read
            than a training sees, steps·batch_size vectors and those held out; they are kept in memory as float32.
        d_sae: number of atoms, 2 or more.
        l0: mean number of latents that are to fire on a vector, above 0 and below d_sae.
        kind: `threshold` for a TSAE, `relu`, `top_k`, `batch_top_k` or `gated` for what it is compared with.
        steps: steps of the optimiser.
        batch_size: vectors of a step; all training vectors where there are fewer.
        seed: of the order of the vectors, the initial atoms and the noise.
        changes: choices that differ from the recipe of the kind, by their names on the command line, such as
            `{"training.initial_atoms.source": "random"}`.

    Returns:
        The SAE of the vectors as given, in float32 on the CPU.

    Raises:
        ValueError: vectors that are no finite, real and dense matrix, too few of them or all equal, a number outside of its
            range, or an unknown name in `changes`.

    Cost: a training, and O(samples·d_in²) float64 FLOPs for the moments.
    """
    if not isinstance(l0, Real) or not fits(d_sae, Count) or d_sae < 2 or not 0 < l0 < d_sae:
        raise ValueError(
            f"A fit needs d_sae of 2 or more atoms and an l0 between 0 and d_sae, got d_sae={d_sae}, l0={l0}."
        )
    if not fits(steps, Count) or not fits(batch_size, Count) or not fits(seed, Index):
        raise ValueError(
            f"A fit needs steps and batch_size of 1 or more and a seed of 0 or more, all whole numbers, got steps={steps}, "
            f"batch_size={batch_size}, seed={seed}."
        )
    x, rounding = _collected(vectors, steps * batch_size + _MOST_HELD_OUT)
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]
    basis = subspace(exact_moments(x), rounding)
    inside = x if basis is None else x @ basis
    count = min(_MOST_HELD_OUT, max(1, round(_HELD_OUT * len(x))))
    train, held_out = inside[count:], inside[:count]
    data = VectorsDataModule(
        train, exact_moments(train), batch_size=batch_size, steps=steps, seed=seed, held_out=held_out
    )
    with isolate_rng():
        torch.manual_seed(seed)
        choices = with_changes(*defaults_of(kind, d_sae / data.d_in, l0), changes or {})
        module = build(data, *choices)
        trainer = Trainer(
            accelerator="auto",
            devices=1,
            max_steps=steps,
            max_epochs=1,
            callbacks=[DecoderNorm(), FinalCalibration(), ProgressBar(refresh_rate=20)],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        trainer.fit(module, data)
        check_finished(trainer, steps)
        sae = module.folded().cpu()
        return sae if basis is None else _widened(sae, basis)


def subspace(moments: Moments, rounding: float) -> Tensor | None:
    """Finds the subspace that vectors span, with their mean in it.

    It is spanned by the eigenvectors of the second moment whose share of the trace is above the square of 32·rounding, so
    that the rounding of the vectors counts as no direction.

    Args:
        moments: of the vectors.
        rounding: relative rounding error of the vectors, `torch.finfo(dtype).eps`.

    Returns:
        An orthonormal basis as columns, shape `(d_in, rank)`, float32; None if the vectors span the whole space.
    """
    values, directions = torch.linalg.eigh(moments.second_moment)
    least = max((_ROUNDING * rounding) ** 2, len(values) * torch.finfo(values.dtype).eps)
    kept = values > least * values.sum()
    return None if kept.all() else directions[:, kept].float()


def _collected(vectors: Any, most: int) -> tuple[Tensor, float]:
    """The vectors in float32, of a stream blocks up to `most`, and the rounding error of their dtype."""
    parts, found, rounding = [], 0, torch.finfo(torch.float32).eps
    if isinstance(vectors, str | bytes | Mapping) or not (hasattr(vectors, "shape") or isinstance(vectors, Iterable)):
        raise ValueError(f"{_EXPECTED}, got {type(vectors).__name__}.")
    for given in [vectors] if hasattr(vectors, "shape") else vectors:
        try:
            block = torch.as_tensor(given)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{_EXPECTED}, got {type(given).__name__}: {error}") from error
        if block.is_complex() or block.layout != torch.strided:
            raise ValueError(f"Vectors should be real and dense, got {block.dtype} in the layout {block.layout}.")
        if block.ndim != 2 or not block.shape[1] or (parts and block.shape[1] != parts[0].shape[1]):
            raise ValueError(
                f"Vectors should be a matrix of shape (samples, d_in), and all blocks of one width; got {tuple(block.shape)}."
            )
        if not block.isfinite().all():
            raise ValueError("The vectors have NaN or infinite entries: leave those vectors out.")
        if block.is_floating_point():
            rounding = max(rounding, torch.finfo(block.dtype).eps)
        parts.append(block.detach().cpu().float())
        found += len(block)
        if not hasattr(vectors, "shape") and found >= most:
            break
    if found < 3:
        raise ValueError(f"A fit needs three vectors or more, got {found}.")
    x = torch.cat(parts)
    if torch.equal(x, x[:1].expand_as(x)):
        raise ValueError(f"All {found} vectors are equal: there is nothing to fit.")
    return x, rounding


@torch.no_grad()
def _widened(sae: SAE, basis: Tensor) -> SAE:
    """The SAE of vectors x in the span of a basis U whose codes are those of an SAE of the coordinates x U."""
    d_in = len(basis)
    weights = {
        **sae.state_dict(),
        "W_enc": basis @ sae.W_enc,
        "W_dec": sae.W_dec @ basis.T,
        "b_dec": sae.b_dec @ basis.T,
    }
    wide = (
        ThresholdSAE(d_in, sae.d_sae) if isinstance(sae, ThresholdSAE) else BaselineSAE(d_in, sae.d_sae, sae.activation)
    )
    wide.load_state_dict(weights)
    return wide
