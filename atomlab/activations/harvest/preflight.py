"""What is checked before the first pass over a corpus, from its tokens and one batch."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from atomlab.activations.model.capture import capture
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.sites import HookPoint
from atomlab.activations.tokens.sequences import Sequences, batch, equal_lengths


@dataclass(frozen=True)
class Prepared:
    """What is known of harvests before the first pass.

    Attributes:
        rows: number of vectors of each split, by the folder of each corpus's harvest.
        tokens: number of tokens that the model still has to read, by folder; 0 where the harvest is complete.
        bytes_needed: bytes that will be written to disk.
        widths: d_in of each hook point.
        ranks: ranks of the first hook point by folder, where the model still has to read the corpus and it is long enough.
        loaded: the language model, if anything is missing.
    """

    rows: dict[Path, dict[str, int]]
    tokens: dict[Path, int]
    bytes_needed: int
    widths: dict[HookPoint, int]
    ranks: dict[Path, "Ranks"]
    loaded: nn.Module | None


@dataclass(frozen=True)
class Ranks:
    """How many dimensions a sample of activations spans.

    Attributes:
        rows: of the sample, twice the width or more.
        second_moment: rank of E[x xᵀ], whose inverse is the metric S.
        covariance: rank of the centred one, whose inverse the Mahalanobis geometry needs. It is smaller where all
            vectors lie in one hyperplane, as the outputs of a LayerNorm do.
    """

    rows: int
    second_moment: int
    covariance: int


def sample_ranks(sequences: Sequences, point: HookPoint, loaded: nn.Module, width: int, tokens: int) -> Ranks | None:
    """Counts the dimensions that the longest sequences span at a hook point.

    An eigenvalue counts if it is above λ_max·width·2⁻⁵², as in `AtomicInnerProduct.from_second_moment`.

    Args:
        sequences: of the training split, in rising length.
        point: the hook point.
        loaded: the language model.
        width: d_in.
        tokens: tokens of a forward pass, at most.

    Returns:
        The ranks of the vectors of the longest sequences, 2·width or more; None if all sequences give fewer.

    Cost: forward passes over about 2·width tokens, and O(width³).
    """
    kept = sequences.rows_per_sequence().flip(0).cumsum(0)
    if len(kept) == 0 or int(kept[-1]) < 2 * width:
        return None
    count = int((kept < 2 * width).sum()) + 1
    chosen = sequences.select(torch.arange(len(kept) - count, len(kept)))
    device, parts = next(loaded.parameters()).device, []
    for start, stop in equal_lengths(chosen, tokens):
        made = batch(chosen, start, stop)
        inputs = {name: tensor.to(device) for name, tensor in made.inputs.items()}
        parts.append(capture(loaded, [point], inputs)[point].cpu().flatten(0, 1)[made.kept].double())
    x = torch.cat(parts)
    centred = x - x.mean(0)
    return Ranks(len(x), *(_rank(moment.T @ moment / len(x)) for moment in (x, centred)))


def _rank(moment: Tensor) -> int:
    values = torch.linalg.eigvalsh(moment)
    return int((values > values[-1] * len(values) * torch.finfo(torch.float64).eps).sum())


def check_sequences(
    splits: Mapping[str, Sequences], points: Sequence[HookPoint], model: LanguageModel, loaded: nn.Module
) -> None:
    """Compares the sequences with the model, and runs one pass over the longest of them.

    Args:
        splits: sequences of each split.
        points: the hook points.
        model: the language model.
        loaded: its loaded weights.

    Raises:
        ValueError: token ids beyond the embedding, a sequence longer than the model's positions, or activations that are
            not finite. The message names the value and the option to change.
    """
    longest = max((s for s in splits.values() if len(s.lengths)), key=lambda s: int(s.lengths.max()))
    length, limit = int(longest.lengths.max()), positions_of(model, loaded)
    if limit is not None and length > limit:
        raise ValueError(
            f"activations.tokens.context={length} is more than the {limit} positions of {model.title}: "
            f"use activations.tokens.context={limit} or less."
        )
    highest = max(int(s.input_ids.max()) for s in splits.values() if len(s.input_ids))
    size = loaded.get_input_embeddings().num_embeddings  # type: ignore[operator]  # every model of transformers has it
    if highest >= size:
        raise ValueError(
            f"The token id {highest} has no row in the embedding of {model.title}, which has {size}: the tokenizer or "
            "the token ids of the corpus belong to another model."
        )
    start = int(longest.lengths.argmax())
    made = batch(longest, start, start + 1)
    inputs = {name: tensor.to(model.device) for name, tensor in made.inputs.items()}
    try:
        seen = capture(loaded, points, inputs)
    except (IndexError, RuntimeError) as error:  # learned positions run out in either way
        raise ValueError(
            f"{model.title} cannot read a sequence of {length} tokens ({error}): lower activations.tokens.context."
        ) from error
    for point, x in seen.items():
        if not x.isfinite().all():
            raise ValueError(
                f"The model gives NaN or infinite activations at {point}: try model.dtype=bfloat16 or float32."
            )


def positions_of(model: LanguageModel, loaded: nn.Module) -> int | None:
    """Finds out how many positions the model has, learned or trained on.

    Models with relative positions and state-space models state none. RoBERTa and its relatives begin to count after the
    position of the padding, so they have fewer than they state.

    Args:
        model: the language model, whose configuration states the number.
        loaded: its loaded modules, among which a learned embedding of positions is looked for.

    Returns:
        The largest number of tokens in a sequence; None where the model states none.
    """
    stated = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for name, module in loaded.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    return stated if isinstance(stated, int) and stated > 0 else None


def check_space(folder: Path, needed: int) -> None:
    """Checks that the disk of a folder has room for what will be written.

    Args:
        folder: the folder, which need not exist yet.
        needed: bytes that will be written.

    Raises:
        OSError: the disk has fewer free bytes.
    """
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise OSError(
            f"The harvest needs {needed / 1e9:.3g} GB and the disk has {free / 1e9:.3g} GB left; free some space, "
            f"or lower activations.tokens.max_tokens."
        )


def bytes_of_row(width: int, dtype: torch.dtype) -> int:
    """Computes what a row of the store takes on disk: its activations and its norm.

    Args:
        width: number of values in the row, d_in.
        dtype: of the activations; the norm is a float32.

    Returns:
        Number of bytes, without the file's header.
    """
    return width * dtype.itemsize + 4
