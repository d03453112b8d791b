"""Which atoms come back under another seed, from the checkpoints of a sweep's jobs."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from atomlab.evaluation.sweeps.jobs import Job
from atomlab.identity import read_identity
from atomlab.interop.checkpoint import load_checkpoint
from atomlab.interop.locate import same_start
from atomlab.report import Column, Row, mean_and_range
from atomlab.theory import CAME_BACK, matched_cosines, random_dictionary

_LARGEST = 8192  # atoms: a matching of that many takes minutes
AGREEMENT = (
    Column(
        "agreement",
        "seeds agree",
        "Mean cosine of the atoms matched one to one with those of another seed, in the coordinates of the training: those of "
        "the S-norm with sae.inputs=scaled and sae.alpha=1. The first seed against each other one; mean and range.",
    ),
    Column("agreement_share", "came back", "Share of atoms whose matched cosine is above .7; mean and range.", ".1%"),
    Column("agreement_random", "seeds agree, random", "The mean matched cosine of two random dictionaries."),
)


def agreement(jobs: Sequence[Job], missing: list[str]) -> Row:
    """Measures how well the first seed's atoms are found again by the other seeds of a setting.

    Args:
        jobs: of one setting, which differ in their seeds.
        missing: gets a sentence where this is left out.

    Returns:
        The numbers of `AGREEMENT`; nothing for one seed alone, or where it is left out.

    Cost: a matching for each further seed and one of random atoms, O(d_sae³) each.
    """
    if len(jobs) < 2:
        return {}
    name = f"Seed agreement of {jobs[0].setting() or 'all jobs'} is left out"
    if (size := int(jobs[0].atoms["d_sae"])) > _LARGEST:
        missing.append(f"{name}: {size:,} atoms are more than the {_LARGEST:,} that are matched here.")
        return {}
    try:
        if same_start(jobs[1].folder / "sae", read_identity(jobs[0].folder)):
            missing.append(f"{name}: its runs started from the same atoms, and so end with like ones.")
            return {}
        first, *others = (_atoms(job.folder) for job in jobs)
        matched = [matched_cosines(first, other) for other in others]
    except (OSError, ValueError) as error:
        missing.append(f"{name}: {error}")
        return {}
    (d_sae, d_in), generator = first.shape, torch.Generator().manual_seed(0)
    drawn = [random_dictionary(d_sae, d_in, generator) for _ in range(2)]
    chance = matched_cosines(drawn[0], drawn[1])
    return {
        "agreement": mean_and_range([float(cosines.mean()) for cosines in matched]),
        "agreement_share": mean_and_range([float((cosines > CAME_BACK).double().mean()) for cosines in matched]),
        "agreement_random": float(chance.mean()),
    }


def _atoms(run: Path) -> Tensor:
    """The atoms of a run in the coordinates of its training, `(d_sae, d_in)`."""
    sae, _ = load_checkpoint(run / "checkpoints" / "last.ckpt")
    return sae.W_dec.detach()
