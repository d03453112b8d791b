"""Which hook points of a language model a run reads: the one that it trains on, and others of the same pass."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.sites import HookPoint
from atomlab.ranges import Index


@final
@dataclass(frozen=True)
class HookPoints:
    """The hook point of a run, and those that are harvested beside it.

    Attributes:
        site: a short name such as `resid_post`, or the path of a hook point, in which `{layer}` stands for the layer.
        layer: number of the layer, counted from 0.
        sites: further sites. Each of them, and `site`, is harvested at `layer` and at each of `layers`.
        layers: further layers.
    """

    site: str
    layer: Index
    sites: Sequence[str] = ()
    layers: Sequence[Index] = ()

    def own(self, model: LanguageModel) -> HookPoint:
        """Finds the hook point that the run trains on.

        Args:
            model: the language model; its weights are not loaded.

        Returns:
            The hook point of `site` at `layer`.

        Raises:
            ValueError: the model has no such site or layer, or the path names another layer than `layer`.
        """
        return _hook_point(model, self.site, self.layer)

    def harvested(self, model: LanguageModel) -> list[HookPoint]:
        """Finds all hook points that one pass of the model reads.

        Args:
            model: the language model; its weights are not loaded.

        Returns:
            Each hook point once, the run's own first.

        Raises:
            ValueError: as `own`, for any of them.
        """
        sites, layers = (self.site, *self.sites), (self.layer, *self.layers)
        others = (_hook_point(model, site, layer) for site in sites for layer in layers)
        return list(dict.fromkeys([self.own(model), *others]))

    def at(self, site: str, layer: int) -> "HookPoints":
        """Makes the hook points of a run that trains at another site and layer, and harvests these ones beside it.

        Args:
            site: site of the other run, as in the class.
            layer: its layer, counted from 0.

        Returns:
            New hook points, whose further sites and layers are all sites and layers of this one.
        """
        sites, layers = (self.site, *self.sites), (self.layer, *self.layers)
        return replace(self, site=site, layer=layer, sites=sites, layers=layers)


def _hook_point(model: LanguageModel, site: str, layer: int) -> HookPoint:
    point = model.hook_point(site, layer)
    if "." in site and "{layer}" not in site and point.num_layers not in (None, layer + 1):
        raise ValueError(
            f"site.name={site} names layer {(point.num_layers or 0) - 1}, and layer={layer}: write {{layer}} in the "
            "place of its number, or give the same number as layer."
        )
    return point
