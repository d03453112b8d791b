"""Time and memory of a training step, as ratios to the encoder's product alone: `python -m benchmarks.step --json
step.json`.

Everything that is compared runs interleaved in one process; medians. Inputs are Gaussian with E‖x‖² = 1, thresholds
are calibrated to --l0 on other vectors. `forward_backward_s` is loss and gradients of the objective; `incoherence_s` those
of the incoherence term, averaged over the steps with and without it; `step_s` is a whole step of Lightning's Trainer: the
input transform, noise, both losses,
gradients, Adam, unit-norm projection, metrics and logging. `peak_bytes` is the peak of the process's resident memory
over whole steps, each implementation in a process of its own. `encoder_product_s` is x @ W_enc in float32 on the same
vectors. `compiled` is the dense loss through torch.compile, without whole steps.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any, cast

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from atomlab.sae import Incoherence, InputTransform, TargetL0, ThresholdSAE, calibrate_thresholds_
from atomlab.sae.ops import Dense, DensitySwitch, objective
from atomlab.theory import AtomicInnerProduct
from atomlab.training.callbacks import DecoderNorm
from atomlab.training.module import SAEModule
from atomlab.training.recipe import Schedule, TrainingRecipe

SWITCHES: dict[str, Callable[[], DensitySwitch]] = {
    "dense": lambda: DensitySwitch(0.0, 0.0),
    "compiled": lambda: DensitySwitch(0.0, 0.0),
    "sparse": lambda: DensitySwitch(2.0, 2.0, screened=False),
    "screened": lambda: DensitySwitch(2.0, 2.0, screened=True),
    "automatic": DensitySwitch,
}


def problem(
    d_in: int, d_sae: int, batch: int, l0: float, device: str, tied: bool = False
) -> tuple[ThresholdSAE, Tensor]:
    torch.manual_seed(0)
    sae = ThresholdSAE(d_in, d_sae, tied=tied)
    calibrate_thresholds_(sae, torch.randn(4096, d_in) / d_in**0.5, l0)
    return sae.to(device), (torch.randn(batch, d_in) / d_in**0.5).to(device)


def narrow(x: Tensor) -> torch.autocast:
    """bfloat16 products on a GPU; on the CPU all is float32."""
    return torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda)


def seconds(work: Callable[[], object], now: Callable[[], float] = time.perf_counter) -> float:
    wait()
    begun = now()
    work()
    wait()
    return now() - begun


def wait() -> None:
    """Until a GPU, if there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@torch.no_grad()
def product(sae: ThresholdSAE, x: Tensor) -> None:
    with narrow(x):
        torch.mm(x, sae.W_enc)


def forward_backward(name: str, sae: ThresholdSAE, x: Tensor, l0: float) -> Callable[[], None]:
    """Loss and gradients, with the switch's choice and its counting."""
    switch, sparsity = SWITCHES[name](), TargetL0(1.0, l0)

    def loss() -> Tensor:
        terms = objective(switch.choose(sae, x), sae, x, sparsity)
        switch.observe(sae, terms.code)
        return terms.loss

    compiled = torch.compile(lambda: objective(Dense(), sae, x, sparsity).loss) if name == "compiled" else loss

    def work() -> None:
        sae.zero_grad()
        with narrow(x):
            value = compiled()
        value.backward()

    return work


def incoherence(sae: ThresholdSAE) -> Callable[[], None]:
    """The incoherence term with its gradient, at its defaults, in a step that has it."""
    term, generator = Incoherence(), torch.Generator(sae.W_dec.device).manual_seed(0)

    def work() -> None:
        sae.zero_grad()
        term(sae, generator).backward()

    return work


def measure_forward_backward(sae: ThresholdSAE, x: Tensor, l0: float, names: list[str], repeats: int) -> dict[str, Any]:
    works: dict[str, Callable[[], object]] = {"product": lambda: product(sae, x)}
    works |= {name: forward_backward(name, sae, x, l0) for name in names}
    works["incoherence"] = incoherence(sae)
    times: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            taken = seconds(work)
            if repeat:  # the first round warms up
                times[name].append(taken)
    sae.zero_grad()
    medians = {name: median(values) for name, values in times.items()}
    return medians | {"incoherence": medians["incoherence"] / Incoherence().every}


class Clock(Callback):
    """Times the encoder's product before each step, and the step from then on to the end of the next callbacks."""

    def __init__(self, x: Tensor, now: Callable[[], float]) -> None:
        self.x, self.now = x, now
        self.products, self.steps, self.since = list[float](), list[float](), 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        wait()
        if self.since:
            self.steps.append(self.now() - self.since)
        self.products.append(seconds(lambda: product(pl_module.sae, self.x), self.now))
        self.since = self.now()


def train(
    sae: ThresholdSAE, x: Tensor, l0: float, name: str, steps: int, now: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """Seconds of the product and of a whole step in Lightning's Trainer, without the first step. The seconds of a step are
    means over groups of consecutive steps, one of which has the incoherence term; the median group counts.
    """
    d_in, group = x.shape[1], Incoherence().every
    metric = AtomicInnerProduct(torch.eye(d_in, dtype=torch.float64))
    module = SAEModule(
        sae,
        InputTransform.identity(d_in),
        metric,
        TrainingRecipe(TargetL0(1.0, l0), schedule=Schedule(learning_rate=1e-4)),
        SWITCHES[name](),
        root_mean_square=d_in**-0.5,  # of the inputs, whose noise would bury them otherwise
    )
    clock = Clock(x, now)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            accelerator="gpu" if x.is_cuda else "cpu",
            devices=1,
            precision="bf16-mixed" if x.is_cuda else "32-true",
            max_steps=steps + 1,
            max_epochs=1,
            logger=False,
            deterministic=not x.is_cuda,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[DecoderNorm(), clock],
        )
        trainer.fit(module, DataLoader(cast(Any, [x] * (steps + 1)), batch_size=None))
    groups = [mean(clock.steps[i : i + group]) for i in range(0, steps - group + 1, group)]
    return median(clock.products[1:]), median(groups)


def peak_bytes() -> int:
    """Of a GPU's memory, or of the process's."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")  # ru_maxrss would count the parent's memory at the fork too
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_new_process(arguments: argparse.Namespace, name: str) -> int:
    shape = [
        f"--{key.replace('_', '-')}={getattr(arguments, key)}"
        for key in ("d_in", "d_sae", "batch", "l0", "threads", "device")
    ]
    command = [sys.executable, "-m", "benchmarks.step", *shape, *["--tied"] * arguments.tied, f"--peak={name}"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, kind, value in (("d-in", int, 768), ("d-sae", int, 12_288), ("batch", int, 4096), ("l0", float, 40.0)):
        parser.add_argument(f"--{name}", type=kind, default=value)
    parser.add_argument("--implementations", nargs="+", default=["dense", "sparse", "screened"], choices=list(SWITCHES))
    parser.add_argument("--repeats", type=int, default=12, help="at least 4")
    parser.add_argument("--device", default="cpu", help="cuda: products in bfloat16, and so is encoder_product_s")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--tied", action="store_true", help="one matrix for encoder and decoder, as the recipe has it")
    parser.add_argument("--peak", choices=list(SWITCHES), help="only run steps and print the peak memory in bytes")
    arguments = parser.parse_args()
    if arguments.repeats < (least := Incoherence().every):
        parser.error(
            f"--repeats {arguments.repeats} should be {least} or more: one step in {least} has the incoherence term"
        )
    torch.set_num_threads(arguments.threads)
    shape = (arguments.d_in, arguments.d_sae, arguments.batch, arguments.l0, arguments.device, arguments.tied)
    sae, x = problem(*shape)
    if arguments.peak:
        train(sae, x, arguments.l0, arguments.peak, Incoherence().every)
        print(peak_bytes())
        return
    times = measure_forward_backward(sae, x, arguments.l0, arguments.implementations, arguments.repeats)
    result: dict[str, Any] = {
        "shape": {
            key: getattr(arguments, key) for key in ("d_in", "d_sae", "batch", "l0", "threads", "device", "tied")
        },
        "torch": torch.__version__,
        "machine": platform.machine(),
        "encoder_product_s": times["product"],
        "incoherence_s": times["incoherence"],
        "incoherence_ratio": times["incoherence"] / times["product"],
    }
    for name in arguments.implementations:
        result[name] = {
            "forward_backward_s": times[name],
            "forward_backward_ratio": times[name] / times["product"],
        }
        if name == "compiled":
            continue
        alone, step = train(sae, x, arguments.l0, name, arguments.repeats)
        result[name] |= {
            "step_s": step,
            "step_ratio": step / alone,
            "peak_bytes": in_new_process(arguments, name),
        }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
