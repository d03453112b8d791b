"""Option files of the user: a folder conf/ where the command is given, beside that of atomlab."""

from pathlib import Path

OWN_FOLDER = "conf"
_GIVEN = ("--config-dir", "-cd")


def with_own_options(words: list[str], folder: Path) -> list[str]:
    """Adds the user's configuration folder to the command line, so that Hydra finds option files in it.

    A file conf/experiment/mine.yaml in the working folder is then `experiment=mine`, and conf/corpus/mine.yaml is
    `corpus=mine`. Files of atomlab come first where both have the same name.

    Args:
        words: of the command line, without the program.
        folder: the configuration folder of atomlab.

    Returns:
        `words` with `--config-dir=<conf>` in front. `words` themselves where the working folder has no conf/ with a folder of
        one of atomlab's groups in it, where that is `folder` itself, and where a word names such a folder already.
    """
    own = Path.cwd() / OWN_FOLDER
    if not own.is_dir() or own.resolve() == folder.resolve() or any(word.startswith(_GIVEN) for word in words):
        return words
    if not any((folder / part.name).is_dir() for part in own.iterdir() if part.is_dir()):
        return words
    return [f"--config-dir={own}", *words]
