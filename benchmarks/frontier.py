"""A peer's SAEs on the vectors of one of our runs, at several sparsities: where the curves of R² over L0 lie.

1. `python -m benchmarks.frontier export outputs/<run> vectors.safetensors`, here: the run's training vectors.
2. `python benchmarks/frontier.py train vectors.safetensors peers`, in an environment with sae-lens (benchmarks/requirements.txt):
   its own `SAETrainer` trains a BatchTopK and a JumpReLU SAE (the mode with a target L0) at each sparsity, both with its two
   ways of scaling inputs, on the same vectors, of the same width, for as many steps of as many vectors. No atomlab there.
3. `python evaluate.py run=outputs/<run> 'study.features={batchtopk_8: peers/batchtopk_8, ...}' study.controls=[]`, here: all
   as released, on the same held-out vectors.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

SCALINGS = {"": "expected_average_only_in", "_whitened": "covariance_whitening"}  # of the inputs, by the end of a name


def export(run: str, file: Path) -> None:
    """Writes the training vectors of a run, float32, in the order of the cache."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    config = OmegaConf.load(Path(run) / ".hydra" / "config.yaml")
    data = instantiate(config.activations, _convert_="all")
    data.prepare_data()
    data.setup()
    rows = data.rows["train"]
    save_file({"x": rows[torch.arange(len(rows))]}, str(file))


def batches(x: Tensor, size: int) -> Iterator[Tensor]:
    """Yields shuffled batches without end, each epoch in another order."""
    generator = torch.Generator().manual_seed(0)
    while True:
        for numbers in torch.randperm(len(x), generator=generator).split(size):
            if len(numbers) == size:
                yield x[numbers]


def untrained(name: str, l0: float, steps: int, shape: dict[str, Any]) -> Any:
    """Makes a peer's SAE, and draws its weights from seed 0."""
    from sae_lens import (  # pyright: ignore
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        JumpReLUTrainingSAE,
        JumpReLUTrainingSAEConfig,
    )

    torch.manual_seed(0)
    if name == "batchtopk":
        return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**shape, k=l0))
    target = {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": l0, "l0_warm_up_steps": steps // 10}
    return JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**shape, **target))


def train(arguments: argparse.Namespace) -> None:
    from sae_lens.config import SAETrainerConfig  # pyright: ignore
    from sae_lens.training.sae_trainer import SAETrainer  # pyright: ignore

    torch.set_num_threads(arguments.threads)
    x, steps = load_file(arguments.vectors)["x"], arguments.steps
    names: list[str] = arguments.architectures
    targets: list[float] = arguments.l0
    for (end, scaling), name, l0 in itertools.product(SCALINGS.items(), names, targets):
        shape = {"d_in": x.shape[1], "d_sae": round(arguments.expansion * x.shape[1]), "normalize_activations": scaling}
        options = SAETrainerConfig(
            total_training_samples=steps * arguments.batch,
            train_batch_size_samples=arguments.batch,
            lr=arguments.lr,
            lr_end=arguments.lr / 10,  # what its runner takes
            lr_warm_up_steps=steps // 10,
            lr_decay_steps=steps // 2,
            n_batches_for_norm_estimate=100,
            dead_feature_window=max(10, steps // 30),  # its default, 1,000 steps, is a whole short run
        )
        trained = SAETrainer(options, untrained(name, l0, steps, shape), batches(x, arguments.batch)).fit()
        folder = Path(arguments.folder) / f"{name}{end}_{l0:g}"
        trained.save_inference_model(str(folder))
        sys.stdout.write(f"{folder}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("export")
    first.add_argument("run")
    first.add_argument("file", type=Path)
    second = commands.add_parser("train")
    second.add_argument("vectors")
    second.add_argument("folder")
    second.add_argument("--architectures", nargs="+", default=["batchtopk", "jumprelu"])
    second.add_argument("--l0", nargs="+", type=float, default=[8, 32, 64])
    for name, kind, value in (
        ("expansion", float, 4.0),
        ("steps", int, 3000),
        ("batch", int, 512),
        ("lr", float, 1e-3),
    ):
        second.add_argument(f"--{name}", type=kind, default=value)
    second.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.command == "export":
        export(arguments.run, arguments.file)
    else:
        train(arguments)


if __name__ == "__main__":
    main()
