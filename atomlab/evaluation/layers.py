"""The layers of a study over layers."""

from collections.abc import Sequence

from atomlab.activations.datamodule import ActivationDataModule


def layers_of(data: ActivationDataModule, layers: Sequence[int] | None, all_layers: int) -> list[int]:
    """The layers of a study over layers: those asked for, or the first `all_layers`.

    Raises:
        ValueError: no list of layers, an empty one, or a layer that the model does not have.
    """
    if layers is None:
        return list(range(all_layers))
    if not isinstance(layers, Sequence) or not layers:
        raise ValueError(f"study.layers={layers} names no layer: give a list such as [0,5], or null for all.")
    for layer in layers:
        _ = data.at(data.site, layer).point  # raises where there is no such layer
    return list(layers)
