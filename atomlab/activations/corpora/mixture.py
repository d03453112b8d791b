"""Several corpora mixed by weight into one."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, final

from atomlab.activations.corpora.corpus import Corpus, Example, Position, RecordCounter, collect_counters
from atomlab.ranges import Positive

_CHARACTERS_PER_TOKEN = 4  # how many characters a token id stands for beside text


@final
class Mixture:
    """Corpora interleaved so that each has its weight's share of the characters at any point, up to one document.

    The next document comes from the corpus that is furthest behind its share, so no random numbers are needed. The
    mixture ends where one of the corpora ends.

    Args:
        corpora: the corpora by name. They have the same `position`, and all of them are packed or none.
        weights: positive weights by the same names.

    Raises:
        ValueError: the names differ, a weight is not positive, or the corpora cannot be mixed.
    """

    def __init__(self, corpora: Mapping[str, Corpus], weights: Mapping[str, Positive]) -> None:
        if not corpora or set(corpora) != set(weights) or min(weights.values()) <= 0:
            raise ValueError(
                f"corpus.weights={dict(weights)} should give each of the corpora {', '.join(corpora)} a positive number."
            )
        if len({(corpus.packed, corpus.position) for corpus in corpora.values()}) > 1:
            raise ValueError(
                f"The corpora {', '.join(corpora)} cannot be mixed: they differ in corpus.packed or corpus.position."
            )
        self.corpora, self.weights = dict(corpora), dict(weights)

    @property
    def packed(self) -> bool:
        """Whether the texts are packed into full contexts, as in `Corpus`."""
        return next(iter(self.corpora.values())).packed

    @property
    def position(self) -> Position:
        """Of which tokens the activations are kept, as in `Corpus`."""
        return next(iter(self.corpora.values())).position

    @property
    def group_kind(self) -> str:
        """What the groups of the corpora are, joined by "or"."""
        return " or ".join(dict.fromkeys(corpus.group_kind for corpus in self.corpora.values()))

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint and weight of each corpus by its name. Raises as the corpora."""
        return {"mixture": {name: [corpus.fingerprint, self.weights[name]] for name, corpus in self.corpora.items()}}

    def examples(self) -> Iterator[Example]:
        """Mixes the examples that are harvested, as in `Corpus`.

        Returns:
            Iterator over the examples of all corpora. Each group is named with its corpus: `<corpus>/<group>`.

        Raises:
            ValueError: too many records of one corpus are bad among those read; and as the corpora.
        """
        return self._mix({name: corpus.examples() for name, corpus in self.corpora.items()})

    def stream(self, rank: int, world_size: int) -> Iterator[Example]:
        """Mixes the process's shares of the corpora, as in `Corpus`.

        Args:
            rank: number of the process, from 0.
            world_size: number of processes.

        Returns:
            Iterator over the process's examples, with groups named as in `examples`.

        Raises:
            ValueError: as `examples`.
        """
        return self._mix({name: corpus.stream(rank, world_size) for name, corpus in self.corpora.items()})

    def _mix(self, sources: dict[str, Iterator[Example]]) -> Iterator[Example]:
        characters, counters = dict.fromkeys(sources, 0.0), list[RecordCounter]()
        sources = {name: collect_counters(examples, counters) for name, examples in sources.items()}
        while True:
            name = min(characters, key=lambda name: characters[name] / self.weights[name])
            example = next(sources[name], None)
            if example is None:
                for counter in counters:  # also of corpora that are not read to their end
                    counter.check_share()
                return
            size = len(example.text) if example.input_ids is None else _CHARACTERS_PER_TOKEN * len(example.input_ids)
            characters[name] += max(size, 1)
            yield replace(example, group=f"{name}/{example.group}")
