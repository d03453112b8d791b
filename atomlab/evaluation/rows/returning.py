"""Atoms that come back: which atoms another training, with another seed, finds again, and what they are worth."""

from collections.abc import Sequence

import torch
from torch import Tensor

from atomlab.evaluation.rows.held_out import HeldOut
from atomlab.metrics.by_name import of_reconstructions
from atomlab.report import Row, mean_and_range
from atomlab.sae import SAE
from atomlab.theory import (
    CAME_BACK,
    AtomicInnerProduct,
    matched_cosines,
    random_dictionary,
    subspace_energy,
    support_sizes,
)
from atomlab.units import Unit, atoms


@torch.no_grad()
def returning(
    sae: SAE,
    others: Sequence[SAE],
    test: HeldOut,
    metric: AtomicInnerProduct,
    *,
    batch: int,
    seed: int,
    shared_start: bool,
) -> Row:
    """Measures how well the atoms are found again by trainings with other seeds.

    Atoms are matched one to one with those of each other run (`match_atoms`). An atom came back in a run if its matched
    cosine is above .7; it is stable if it came back in more than half of the runs. Runs that start from the same atoms end
    with like atoms whatever the data say (arXiv:2606.02061), so their numbers have names of their own.

    Args:
        sae: the TSAE of the table.
        others: TSAEs of the same training with other seeds.
        test: held-out vectors.
        metric: S.
        batch: number of vectors encoded at a time.
        seed: of the random dictionaries that say what chance gives.
        shared_start: whether all runs started from the same atoms.

    Returns:
        Nothing without others. Else `samples_seeds`, their number; `consistency`, the mean matched cosine over atoms and
        runs; `consistency_share`, the share of atoms and runs in which an atom came back; `consistency_subspace`, the mean
        energy of an atom in the span of its nearest 8 atoms of the other run (`subspace_energy`); each of these for two
        random dictionaries too (`_random`); `consistency_share_runs`, mean and range over the other runs of the share that
        came back; `stable`, the share of stable atoms; `r2_of_stable` and `r2_s_of_stable`, the R² of the codes with all
        other atoms left out; and `r2_seeds`, `r2_s_seeds` and `l0_seeds`, mean and range over all runs, this one included.
        `matched_cosines` holds the mean over runs for each atom. With a shared start the names of the mean cosine, the two
        shares that came back, the energy and the stable share end in `_shared_start`.

    Raises:
        ValueError: more atoms than can be matched.

    Cost: a matching a run, O(d_sae³), and one pass over the vectors a run.
    """
    if not others:
        return {}
    own = sae.W_dec.detach()
    matched = torch.stack([matched_cosines(own, other.W_dec.detach(), metric) for other in others])
    energy = torch.stack([subspace_energy(own, other.W_dec.detach(), metric) for other in others])
    generator = torch.Generator().manual_seed(seed)
    random = [random_dictionary(sae.d_sae, sae.d_in, generator) for _ in range(2)]
    by_chance = matched_cosines(random[0], random[1], None)
    came_back = matched > CAME_BACK
    end = "_shared_start" if shared_start else ""
    row: Row = {
        f"consistency{end}": float(matched.mean()),
        f"consistency_share{end}": float(came_back.double().mean()),
        f"consistency_share_runs{end}": mean_and_range(came_back.double().mean(1).tolist()),
        f"consistency_subspace{end}": float(energy.mean()),
        f"stable{end}": float(_stable(came_back).double().mean()),
        "consistency_random": float(by_chance.mean()),
        "consistency_share_random": float((by_chance > CAME_BACK).double().mean()),
        "consistency_subspace_random": float(subspace_energy(random[0], random[1]).mean()),
        "matched_cosines": matched.mean(0).tolist(),
        "samples_seeds": len(others),
    }
    stable = _numbers(_only(atoms(sae), _stable(came_back)), test, metric, batch)
    row |= {f"{name}_of_stable": stable[name] for name in ("r2", "r2_s")}
    runs = [_numbers(atoms(each), test, metric, batch) for each in (sae, *others)]
    for name in ("r2", "r2_s", "l0"):
        row[f"{name}_seeds"] = mean_and_range([each[name] for each in runs])
    return row


def _stable(came_back: Tensor) -> Tensor:
    return came_back.double().mean(0) > 0.5


def _only(unit: Unit, kept: Tensor) -> Unit:
    """The unit with the codes of some atoms alone."""
    return Unit(unit.name, unit.dictionary * kept[:, None], unit.bias, unit.encode, unit.signed, unit.coder)


def _numbers(unit: Unit, test: HeldOut, metric: AtomicInnerProduct, batch: int) -> dict[str, float]:
    """R² in both norms and L0 on the held-out vectors."""
    reconstructions = of_reconstructions(unit.dictionary.shape[1], metric)
    nonzero = 0
    for x in test.vectors.split(batch):
        codes = unit.encode(x)
        reconstructions.update(x, unit.decode(codes))
        nonzero += int(support_sizes(codes).sum())
    found = reconstructions.compute()
    return {"r2": float(found["r2"]), "r2_s": float(found["r2_s"]), "l0": nonzero / len(test)}
