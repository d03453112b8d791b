"""Where the weights of a language model lie: on one device, or spread over GPUs, memory and disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, final

import torch
from torch import nn


@final
@dataclass(frozen=True)
class Placement:
    """Where the weights of a language model lie.

    Attributes:
        device: that tokens are given to, and on which the whole model lies unless it is spread.
        device_map: how transformers spreads the model, as `LanguageModel` takes it; None if it does not.
        offload_folder: where the layers go that `device_map` puts on the disk.
    """

    device: torch.device
    device_map: str | dict[str, str | int] | None = None
    offload_folder: str | None = None

    @classmethod
    def of(
        cls, device: str, device_map: str | Mapping[str, str | int] | None, offload_folder: str | None
    ) -> "Placement":
        """Checks the options of a model's configuration, and returns what they mean.

        Raises:
            ValueError: a device that this machine lacks, or a `device_map` without the package accelerate.
        """
        if device_map is not None and find_spec("accelerate") is None:
            raise ValueError(f"model.device_map={device_map} needs the package accelerate: pip install accelerate.")
        spread = device_map if device_map is None or isinstance(device_map, str) else dict(device_map)
        return cls(_device(device), spread, offload_folder)

    @property
    def loading_options(self) -> dict[str, Any]:
        """Further arguments of `from_pretrained`; none for a model on one device."""
        spread = {"device_map": self.device_map, "offload_folder": self.offload_folder}
        return {} if self.device_map is None else spread

    def place(self, model: nn.Module, title: str) -> nn.Module:
        """Moves a loaded model to its device, unless transformers has placed it already.

        Args:
            model: that was loaded with `loading_options`.
            title: of the model. Error messages name it.

        Raises:
            ValueError: the first module of a spread model is not on `device`, where it is given its tokens.
        """
        if self.device_map is None:
            return nn.Module.to(model, self.device)
        first = next(model.parameters()).device
        if first.type != self.device.type:
            place = "the disk" if first.type == "meta" else str(first)
            raise ValueError(
                f"model.device_map={self.device_map} puts the first module of {title} on {place}, and tokens are given to "
                f"{self.device}: put the first module there, or choose another model.device."
            )
        return model


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except Exception as error:  # AssertionError where PyTorch was built without it
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"model.device={name} is not here: use auto or cpu. ({reason})") from error
