"""Uploads a saved SAE to the Hugging Face hub, with a front page that says what it is."""

from pathlib import Path

from atomlab.files import regular
from atomlab.interop.export.model_card import model_card
from atomlab.interop.formats.saelens import CONFIG, SPARSITY, WEIGHTS, load_config
from atomlab.interop.load import find_sae, place_of

_TABLE = "results.md"


def push_to_hub(
    run: str | Path, repo: str, *, folder: str = "", private: bool = True, revision: str | None = None
) -> str:
    """Uploads the SAE of a run, or a SAELens folder, in one commit.

    The repository is made if it does not exist. The page (README.md) lies beside the SAE, so that of an
    SAE in the root is the repository's own. The closing table comes from the run's results.md.

    Args:
        run: a run's folder, or a folder of `save` in the format `saelens`.
        repo: `<owner>/<name>` on the hub.
        folder: where the SAE goes inside the repository; empty for its root.
        private: whether a repository that is made here is private.
        revision: branch that the commit goes to; None for the main branch.

    Returns:
        The address of the commit.

    Raises:
        FileNotFoundError: there is no SAE, or no finished one.
        ValueError: the SAE is damaged; or the hub refuses the upload: nobody is logged in, or the repository belongs to
            somebody else.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    place = place_of(Path(run))
    if place.suffix == ".ckpt":
        raise FileNotFoundError(f"{run} has no saved SAE yet: let the run finish, or save one with atomlab.save_sae.")
    find_sae(place)  # which compares the weights with their checksum
    config = load_config(place)
    tables = (place / _TABLE, place.parent / _TABLE)
    table = next((regular(file).read_text(encoding="utf-8") for file in tables if file.exists()), "")
    inner = f"{folder.strip('/')}/" if folder.strip("/") else ""
    files = [place / name for name in (CONFIG, WEIGHTS, SPARSITY) if (place / name).exists()]
    adds = [CommitOperationAdd(f"{inner}{file.name}", str(file)) for file in files]
    adds.append(CommitOperationAdd(f"{inner}README.md", model_card(repo, inner.rstrip("/"), config, table).encode()))
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.create_commit(repo, adds, commit_message="An SAE trained with atomlab", revision=revision)
    except (HfHubHTTPError, LocalTokenNotFoundError) as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ValueError(
            f"{repo} could not be written on the hub ({reason}): log in with `hf auth login`, and check the owner's name."
        ) from error
    return str(commit.commit_url)
