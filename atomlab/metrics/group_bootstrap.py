"""Numbers of which one also knows how much they would differ over other documents."""

from collections.abc import Iterable, Iterator, Mapping
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from atomlab.theory import group_weights

_TOGETHER = 128  # samples whose states are added up in one product


@final
class GroupBootstrap:
    """A collection of metrics, fed group by group, whose numbers can be computed again for other samples of the groups.

    It keeps the states of the metrics for each group. The state of any sample of groups is the sum of their states,
    each times how often its group was drawn. So it takes metrics whose states are sums over vectors, such as all those
    of `atomlab.metrics.by_name` that are updated with vectors or codes. Sums are not added up over processes.

    Cost: one update a group, and one `compute` a metric and sample, or a metric and 128 samples where the metric says of
    itself that it `computes_many`: where its states have a leading dimension, `compute` gives one number for each entry
    there. Memory: the states of the metrics for each group, and for 128 samples.

    Args:
        collection: the metrics, not updated yet. Names leave out its prefix and postfix.
        groups: number of groups G, at least 1.
    """

    def __init__(self, collection: MetricCollection, groups: int) -> None:
        self._collection, self.groups = collection, groups
        self.metrics: dict[str, Metric] = dict(collection.items(keep_base=True, copy_state=False))
        self._sharing = list(collection.compute_groups.values()) or [[name] for name in self.metrics]  # one state each
        self._states: dict[str, dict[str, Tensor]] = {}

    def update(self, group: int, *args: Tensor) -> None:
        """Adds vectors of one group.

        Args:
            group: number of the group, from 0.
            args: what the metrics are updated with.

        Raises:
            ValueError: a metric refuses its arguments.
        """
        self._collection.reset()
        self._collection.update(*args)
        for names in self._sharing:
            leader = {k: v for k, v in self.metrics[names[0]].metric_state.items() if isinstance(v, Tensor)}
            kept = self._states.setdefault(names[0], {k: v.new_zeros(self.groups, *v.shape) for k, v in leader.items()})
            for name, value in leader.items():
                kept[name][group] += value

    def whole(self) -> dict[str, float | int]:
        """Computes every number over all groups, and leaves the metrics in that state.

        Returns:
            Numbers by the names of their metrics, NaN where nothing was seen; numbers of several parts are left out.
        """
        everything = torch.ones(1, self.groups, dtype=torch.float64)
        return {name: value[0].item() for name, value in self._computed(self.metrics, everything).items()}

    def replicates(self, names: Iterable[str], count: int, seed: int) -> dict[str, Float[Tensor, " count"]]:
        """Computes numbers on samples of as many groups, drawn with replacement (`group_weights`).

        The same groups, count and seed draw the same samples, so that two units can be compared sample by sample.

        Args:
            names: names of the metrics.
            count: number of samples.
            seed: of the samples.

        Returns:
            For each name the numbers, float64, NaN where a sample has nothing to measure.
        """
        weights = group_weights(self.groups, count, torch.Generator().manual_seed(seed))
        found = self._computed(names, weights)
        self.whole()
        return {name: values.double() for name, values in found.items()}

    def _computed(self, names: Iterable[str], weights: Tensor) -> dict[str, Tensor]:
        found: dict[str, list[Tensor]] = {}
        for members in self._sharing:
            wanted = [name for name in members if name in set(names)]
            states = self._states.get(members[0], {}) if wanted else {}
            wide = {state: (each.double(), each.dtype) for state, each in states.items()}
            for drawn in weights.split(_TOGETHER) if wide else ():
                sums = {state: torch.tensordot(drawn, each, 1).to(dtype) for state, (each, dtype) in wide.items()}
                for name in wanted:
                    found.setdefault(name, []).extend(_numbers(self.metrics[name], sums, len(drawn)))
        return {name: torch.cat(values) for name, values in found.items() if values}


def _numbers(metric: Metric, sums: Mapping[str, Tensor], samples: int) -> Iterator[Tensor]:
    """Gives what a metric computes of the states of several samples, shape `(samples,)` in all; nothing of several parts."""
    together = samples > 1 and getattr(metric, "computes_many", False)
    for chosen in [slice(None)] if together else range(samples):
        for state, values in sums.items():
            setattr(metric, state, values[chosen])
        value = type(metric).compute(metric)  # not `metric.compute`, which remembers its first result
        if isinstance(value, Tensor):
            yield value.reshape(samples if together else 1)
