"""Downloads one SAE from the Hugging Face hub, and nothing else of its repository."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import final

from atomlab.interop.formats import dictionary_learning, gemma_scope, llamascopium, saelens, sparsify

_NAME = re.compile(
    r"(?P<marked>hf://)?(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[^/]+))?(?:/(?P<inner>.+))?"
)
_SHOWN = 3  # SAEs that an error message names
# Weights that make a folder an SAE, by the path below it; of one folder the first that is there is taken.
_OF_FOLDERS = (
    saelens.WEIGHTS, gemma_scope.ARCHIVE, gemma_scope.WEIGHTS, sparsify.WEIGHTS, dictionary_learning.WEIGHTS,
    llamascopium.FIRST_WEIGHTS,
)  # fmt: skip
_SINGLE = (".safetensors", ".npz", ".pt", ".pth")
_CONFIGURATION = (".json", ".yaml")
_BESIDE = ("activation_whitening.safetensors",)  # small files of weights that belong to an SAE


@final
@dataclass(frozen=True)
class HubName:
    """The name of an SAE on the hub.

    Attributes:
        repo: `<owner>/<name>` of the repository.
        inner: path inside the repository, empty for its root.
        revision: commit, branch or tag; None for the main branch.
    """

    repo: str
    inner: str
    revision: str | None

    @classmethod
    def parse(cls, name: str, revision: str | None = None) -> "HubName | None":
        """Reads `<owner>/<name>[@<revision>][/<path>]`, with or without `hf://` in front; None for other text.

        >>> HubName.parse("google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82")
        HubName(repo='google/gemma-scope-2b-pt-res', inner='layer_12/width_16k/average_l0_82', revision=None)
        """
        found = _NAME.fullmatch(name.rstrip("/"))
        if found is None:
            return None
        return cls(found["repo"], found["inner"] or "", revision or found["revision"])


def download(name: HubName) -> Path:
    """Downloads the files of one SAE into the hub's cache, or finds them there.

    These are its weights, and the configurations beside it and in the folders above it. All are of the one commit that
    `revision` means now.

    Args:
        name: of the SAE.

    Returns:
        The folder or file in the cache that `inner` means. Without a network that is what an earlier download left.

    Raises:
        FileNotFoundError: there is no such repository, revision or file, or the hub could not be reached.
        ValueError: `inner` holds several SAEs; the message names some of them.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    at = f" at revision {name.revision!r}" if name.revision else ""
    try:
        info = HfApi().model_info(name.repo, revision=name.revision)
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise FileNotFoundError(
            f"{name.repo}{at} is neither a file or folder here nor a repository on the hub that you may see: check the name, "
            "or log in with `hf auth login` if it is gated."
        ) from error
    except Exception as error:  # the hub was not reached, for whatever reason: the cache may have the SAE
        return _cached(name, error)
    files = [PurePosixPath(sibling.rfilename) for sibling in info.siblings or []]
    root = None
    for file in _wanted(files, name):
        here = Path(hf_hub_download(name.repo, str(file), revision=info.sha))
        root = here.parents[len(file.parts) - 1]
    assert root is not None  # there are weights
    return root / name.inner


def _cached(name: HubName, error: Exception) -> Path:
    """Finds the SAE in the hub's cache."""
    from huggingface_hub import snapshot_download

    try:
        place = Path(snapshot_download(name.repo, revision=name.revision, local_files_only=True)) / name.inner
    except (OSError, ValueError):  # it is not there, or its name is none of a repository
        place = None
    if place is None or not place.exists():
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        whole = f"{name.repo}/{name.inner}".rstrip("/")
        raise FileNotFoundError(
            f"{whole} is no file or folder here, and the hub could not be reached: check its name and the "
            f"network. ({reason})"
        ) from error
    return place


def _wanted(files: Sequence[PurePosixPath], name: HubName) -> list[PurePosixPath]:
    """Chooses the files of one SAE: those of its weights, and all configurations beside and above them."""
    inner = PurePosixPath(name.inner)
    below = [file for file in files if file == inner or inner in file.parents or not name.inner]
    weights = _weights(files, below, name)
    folders = {weights.parent, *weights.parents}
    kept = [file for file in files if file.parent in folders and file.suffix in _CONFIGURATION]
    return [weights, *kept, *(file for file in files if file.parent == weights.parent and file.name in _BESIDE)]


def _weights(files: Sequence[PurePosixPath], below: Sequence[PurePosixPath], name: HubName) -> PurePosixPath:
    inner = PurePosixPath(name.inner)
    if inner in files and inner.suffix not in _CONFIGURATION:
        return inner
    for known in _OF_FOLDERS:
        if inner / known in files:
            return inner / known
    saes = [file for file in below if any(str(file).endswith(f"/{known}") for known in _OF_FOLDERS)]
    single = [file for file in below if file.parent == inner and file.suffix in _SINGLE]
    found = saes or single
    if len(found) == 1:
        return found[0]
    if not found:
        raise FileNotFoundError(
            f"{name.repo} has no SAE of a known format in {name.inner or 'its root'}: look at its files, and give the path "
            f"of one as {name.repo}/<path>."
        )
    folders = [str(file.parent) if file in saes else str(file) for file in found]
    raise ValueError(
        f"{'/'.join(filter(None, (name.repo, name.inner)))} holds {len(found)} SAEs: name one of them, such as "
        f"{', '.join(f'{name.repo}/{folder}' for folder in folders[:_SHOWN])}."
    )
