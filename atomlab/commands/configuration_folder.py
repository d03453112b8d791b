"""Where the configuration lies: conf/ of a checkout, or of the installed package."""

from pathlib import Path

import atomlab


def configuration_folder() -> Path:
    """Returns the folder of train.yaml, evaluate.yaml and the groups.

    The package holds it as `atomlab/conf` when it is installed. In a checkout it lies beside `atomlab`, also where the
    checkout is installed with `pip install -e`.
    """
    package = Path(atomlab.__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"
