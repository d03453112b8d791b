"""SAELens' own synthetic models: does a TSAE find the true features, and do SAELens' BatchTopK and JumpReLU?

`python -m benchmarks.synth_saebench results.jsonl`, in the environment of `make test-interop`. There are 768 features in 128
dimensions. `plain` has SAELens' defaults: independent firings by Zipf's law, all values 1. `structured` has the
configuration of SynthSAEBench-16k, with its trees in proportion: hierarchy, correlation, values that vary.

All SAEs have 768 latents, the same vectors, as many steps of as many of them, and the true L0 for a target. `atomlab.fit` has
its defaults, or some changes of them (`CHANGES`). SAELens' trainer has several learning rates, JumpReLU several coefficients
of its L0 loss, and of each the row with the largest MCC stands in the table, a choice that only the truth allows. Trainings
miss their L0: `l0_reached` is what is measured on fresh vectors, and then all thresholds of the SAE are moved by one number,
so that R² and F1 are compared at the same L0. SAELens' own `eval_sae_on_synthetic_data` measures all of them.
"""

import argparse
import copy
import itertools
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

import atomlab
from atomlab import ThresholdSAE
from atomlab.evaluation.planted_by_saelens import D_IN, FEATURES, OWN_NAMES, saelens_law
from benchmarks.frontier import trained, untrained

RANDOM = {"training.initial_atoms.source": "random"}
CHANGES = {  # of the defaults of `atomlab.fit`, by what stands in the table
    "default": {},
    "random": RANDOM,
    "random, no noise": RANDOM | {"training.noise": 0.0},
    "random, no noise, untied": RANDOM | {"training.noise": 0.0, "sae.tied": False},
    "random, no noise, alpha .5": RANDOM | {"training.noise": 0.0, "sae.alpha": 0.5},
}
PEERS = ("batchtopk", "jumprelu")
FRESH = 16_384  # vectors that calibrate thresholds, and as many others that measure


def drawn(model: Any, count: int) -> tuple[Tensor, float]:
    """Draws vectors `(count, 128)` and returns them with the mean number of features of a vector."""
    parts, firings = [], 0
    for number in range(0, count, FRESH):
        x, features = model.sample_with_features(min(FRESH, count - number))
        firings += int((features > 0).sum())
        parts.append(x)
    return torch.cat(parts), firings / count


@torch.no_grad()
def calibrated(sae: ThresholdSAE, x: Tensor, l0: float) -> ThresholdSAE:
    """Moves all thresholds of an SAE by one number, so that as many latents fire on a vector as wanted.

    Latents that would need a pre-activation of 0 or less never fire, so fewer fire where there are not enough of them.
    """
    moved = copy.deepcopy(sae)
    moved.threshold.fill_(0)
    z = moved.encode(x)
    margins = (z - sae.threshold)[z > 0]
    wanted = min(round(l0 * len(x)), len(margins) - 1)
    moved.threshold.copy_((sae.threshold + margins.kthvalue(len(margins) - wanted).values).clamp(min=0))
    return moved


def measured(sae: ThresholdSAE, model: Any, seed: int) -> dict[str, float]:
    """What SAELens' own evaluation finds on fresh vectors."""
    from sae_lens.synthetic import eval_sae_on_synthetic_data  # pyright: ignore

    torch.manual_seed(seed)
    found = eval_sae_on_synthetic_data(sae, model.feature_dict, model.activation_generator, num_samples=FRESH)
    return {
        "mcc": found.mcc,
        "r2": found.explained_variance,
        "l0": found.sae_l0,
        "f1": found.classification.f1_score,
        "unique": found.uniqueness,
        "dead": found.dead_latents / FEATURES,
    }


def ours(
    x: Tensor, l0: float, *, steps: int, batch: int, seed: int, changes: dict[str, Any]
) -> tuple[ThresholdSAE, float]:
    """Fits a TSAE with the defaults and some changes; returns it and the CPU seconds that it took."""
    begun = time.process_time()
    sae = atomlab.fit(x, d_sae=FEATURES, l0=l0, steps=steps, batch_size=batch, seed=seed, changes=changes)
    assert isinstance(sae, ThresholdSAE)
    return sae, time.process_time() - begun


def peer(
    name: str, x: Tensor, l0: float, *, steps: int, batch: int, seed: int, lr: float, coefficient: float = 1
) -> tuple[ThresholdSAE, float]:
    """Trains a peer's SAE by SAELens and reads what it saves; returns it and the CPU seconds that the training took."""
    torch.manual_seed(seed)
    shape = {"d_in": D_IN, "d_sae": FEATURES}
    sae, seconds = trained(untrained(name, l0, steps, shape, coefficient), x, steps=steps, batch=batch, lr=lr)
    with TemporaryDirectory() as folder:
        sae.save_inference_model(folder)
        found = atomlab.load_sae(folder)
    assert isinstance(found, ThresholdSAE)
    return found, seconds


def rows(law: str, seed: int, arguments: argparse.Namespace) -> Any:
    """Yields the row of each training on one draw of a law."""
    model, sizes = saelens_law(law, seed).model, {"steps": arguments.steps, "batch": arguments.batch, "seed": seed}
    torch.manual_seed(seed)
    x, l0 = drawn(model, arguments.steps * arguments.batch)
    fresh = drawn(model, FRESH)[0]
    trainings: list[dict[str, Any]] = [{"unit": "atomlab", "changes": name} for name in arguments.ours]
    for name, lr in itertools.product(arguments.peers, arguments.lr):
        if name == "batchtopk":
            trainings.append({"unit": name, "lr": lr})
        else:
            trainings += [{"unit": name, "lr": lr, "coefficient": value} for value in arguments.coefficients]
    for training in trainings:
        name, further = training["unit"], {key: training[key] for key in training if key != "unit"}
        if name == "atomlab":
            sae, seconds = ours(x, l0, **sizes, changes=CHANGES[training["changes"]])
        else:
            sae, seconds = peer(name, x, l0, **sizes, **further)
        reached = measured(sae, model, seed + 1)
        found = measured(calibrated(sae, fresh, l0), model, seed + 1)
        row = {"law": law, "seed": seed} | training | {"true_l0": l0, "l0_reached": reached["l0"]}
        yield row | {"r2_reached": reached["r2"]} | found | {"cpu_seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="to which rows are appended, one JSON object a line")
    parser.add_argument("--laws", nargs="+", choices=OWN_NAMES, default=list(OWN_NAMES))
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--lr", nargs="+", type=float, default=[1e-3, 3e-3, 1e-2])
    parser.add_argument("--coefficients", nargs="+", type=float, default=[1.0, 0.1], help="of JumpReLU's L0 loss")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--ours", nargs="*", choices=list(CHANGES), default=list(CHANGES))
    for name, value in (("steps", 2000), ("batch", 512)):
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for law, seed in itertools.product(arguments.laws, arguments.seeds):
        for row in rows(law, seed, arguments):
            line = json.dumps(row)
            sys.stdout.write(line + "\n")
            with arguments.file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
