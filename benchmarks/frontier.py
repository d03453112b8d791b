"""A peer's SAEs on the vectors of our runs, at several sparsities: where the curves of R² over L0 lie.

1. `python -m benchmarks.frontier export outputs/<run> vectors.safetensors`, here: the run's training vectors.
2. `python benchmarks/frontier.py train vectors.safetensors peers`, in an environment with sae-lens (benchmarks/requirements.txt):
   its own `SAETrainer` trains a BatchTopK and a JumpReLU SAE (the mode with a target L0) at each sparsity, both with its two
   ways of scaling inputs, on the same vectors, of the same width, for as many steps of as many vectors. No atomlab there. It
   prints the CPU seconds of each training, without the reading of the vectors.
3. `python evaluate.py run=outputs/<run> 'study.features={batchtopk_8: peers/batchtopk_8, ...}' study.controls=[]`, here, for
   each of our runs, and once with the peers: all as released, on the same held-out vectors.
4. `python -m benchmarks.frontier draw frontier.png outputs/<evaluation> ...`, here: one figure of all rows.

The trainings do not reach their targets exactly, ours or theirs. So nothing is compared at one target: the figure and the
table have the L0 that is measured on held-out vectors, and a curve is above another one where it is at that L0.
"""

import argparse
import itertools
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

SCALINGS = {"": "expected_average_only_in", "_whitened": "covariance_whitening"}  # of the inputs, by the end of a name


def export(arguments: argparse.Namespace) -> None:
    """Writes the training vectors of a run, float32, in the order of the cache."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    config = OmegaConf.load(Path(arguments.run) / ".hydra" / "config.yaml")
    data = instantiate(config.activations, _convert_="all")
    data.prepare_data()
    data.setup()
    rows = data.rows["train"]
    save_file({"x": rows[torch.arange(len(rows))]}, str(arguments.file))


def batches(x: Tensor, size: int) -> Iterator[Tensor]:
    """Yields shuffled batches without end, each epoch in another order."""
    generator = torch.Generator().manual_seed(0)
    while True:
        for numbers in torch.randperm(len(x), generator=generator).split(size):
            if len(numbers) == size:
                yield x[numbers]


def untrained(name: str, l0: float, steps: int, shape: dict[str, Any], l0_coefficient: float = 1) -> Any:
    """Makes a peer's SAE, and draws its weights from the global random numbers. BatchTopK has no coefficient."""
    from sae_lens import (  # pyright: ignore
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        JumpReLUTrainingSAE,
        JumpReLUTrainingSAEConfig,
    )

    if name == "batchtopk":
        return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**shape, k=l0))
    target = {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": l0, "l0_warm_up_steps": steps // 10}
    return JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**shape, **target, l0_coefficient=l0_coefficient))


def trained(sae: Any, x: Tensor, *, steps: int, batch: int, lr: float) -> tuple[Any, float]:
    """Trains a peer's SAE by the peer's own trainer; returns it and the CPU seconds that it took."""
    from sae_lens.config import SAETrainerConfig  # pyright: ignore
    from sae_lens.training.sae_trainer import SAETrainer  # pyright: ignore

    options = SAETrainerConfig(
        total_training_samples=steps * batch,
        train_batch_size_samples=batch,
        lr=lr,
        lr_end=lr / 10,  # what its runner takes
        lr_warm_up_steps=steps // 10,
        lr_decay_steps=steps // 2,
        n_batches_for_norm_estimate=100,
        dead_feature_window=max(10, steps // 30),  # its default, 1,000 steps, is a whole short run
    )
    begun = time.process_time()
    found = SAETrainer(options, sae, batches(x, batch)).fit()
    return found, time.process_time() - begun


def train(arguments: argparse.Namespace) -> None:
    """Trains every architecture at every sparsity, and writes each into a folder of its own."""
    torch.set_num_threads(arguments.threads)
    x, steps = load_file(arguments.vectors)["x"], arguments.steps
    names: list[str] = arguments.architectures
    targets: list[float] = arguments.l0
    ends: list[str] = arguments.scalings
    for end, name, l0 in itertools.product(ends, names, targets):
        shape = {
            "d_in": x.shape[1],
            "d_sae": round(arguments.expansion * x.shape[1]),
            "normalize_activations": SCALINGS[end],
        }
        torch.manual_seed(0)
        sae, seconds = trained(
            untrained(name, l0, steps, shape, arguments.coefficient),
            x,
            steps=steps,
            batch=arguments.batch,
            lr=arguments.lr,
        )
        folder = Path(arguments.folder) / f"{name}{end}_{l0:g}"
        sae.save_inference_model(str(folder))
        sys.stdout.write(f"{folder}: {seconds:.0f} CPU seconds\n")


def draw(arguments: argparse.Namespace) -> None:
    """Draws R² and R²_S over held-out L0, of our atoms and of each kind of peer, from the results of evaluations."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    points: dict[str, dict[float, tuple[float, float]]] = {}
    for folder in arguments.evaluations:
        found = json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))
        sae, rate = found["identity"]["sae"], found["identity"]["training"]["schedule"]["learning_rate"]
        own = f"atomlab, α = {sae['alpha']:g}{'' if sae['tied'] else ', untied'}{f', rate {rate:g}' if rate else ''}"
        for row in found["rows"]:
            peer = re.fullmatch(r"(batchtopk|jumprelu)(_whitened)?_[\d.]+", row["unit"])
            if peer or row["unit"] == "atoms":
                kind = f"SAELens {peer[1]}{', whitened inputs' if peer[2] else ''}" if peer else own
                points.setdefault(kind, {})[row["l0"]] = row["r2"], row["r2_s"]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for number, (axes, name) in enumerate(zip(figure.subplots(1, 2), ("R²", "R²_S"), strict=True)):
        for kind, curve in sorted(points.items()):
            l0 = sorted(curve)
            axes.plot(l0, [curve[value][number] for value in l0], marker="o", label=kind if number == 0 else None)
        axes.set(xlabel="L0 on held-out vectors", ylabel=name)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter())
    figure.legend(loc="outside lower center", frameon=False, fontsize="small", ncols=3)
    figure.savefig(arguments.figure, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("export")
    first.add_argument("run")
    first.add_argument("file", type=Path)
    first.set_defaults(act=export)
    second = commands.add_parser("train")
    second.add_argument("vectors")
    second.add_argument("folder")
    second.add_argument("--architectures", nargs="+", default=["batchtopk", "jumprelu"])
    second.add_argument("--scalings", nargs="+", default=list(SCALINGS), help="ends of names: '' or _whitened")
    second.add_argument("--l0", nargs="+", type=float, default=[8, 32, 64])
    for name, kind, value in (
        ("expansion", float, 4.0),
        ("steps", int, 3000),
        ("batch", int, 512),
        ("lr", float, 1e-3),
        ("coefficient", float, 1.0),  # of JumpReLU's L0 loss
    ):
        second.add_argument(f"--{name}", type=kind, default=value)
    second.add_argument("--threads", type=int, default=1)
    second.set_defaults(act=train)
    third = commands.add_parser("draw")
    third.add_argument("figure", type=Path)
    third.add_argument("evaluations", nargs="+")
    third.set_defaults(act=draw)
    arguments = parser.parse_args()
    arguments.act(arguments)


if __name__ == "__main__":
    main()
