"""Several corpora as one, by weight."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, final

from atomlab.activations.corpora.corpus import Corpus, Example, Position, Tally, tallies

_CHARACTERS_A_TOKEN = 4  # what a token id counts for beside text


@final
class Mixture:
    """Corpora interleaved so that each has its weight's share of the characters, up to one document, at any point.

    It ends where one of them ends. No random numbers: the next document is one of the corpus that lags most.

    Args:
        corpora: by name; all packed or none, with the same position.
        weights: by the same names, positive.

    Raises:
        ValueError: names that differ, weights that are not positive, corpora that do not go together.
    """

    def __init__(self, corpora: Mapping[str, Corpus], weights: Mapping[str, float]) -> None:
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
        return next(iter(self.corpora.values())).packed

    @property
    def position(self) -> Position:
        return next(iter(self.corpora.values())).position

    @property
    def held_out_by(self) -> str:
        return " or ".join(dict.fromkeys(corpus.held_out_by for corpus in self.corpora.values()))

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {"mixture": {name: [corpus.fingerprint, self.weights[name]] for name, corpus in self.corpora.items()}}

    def examples(self) -> Iterator[Example]:
        return self._mix({name: corpus.examples() for name, corpus in self.corpora.items()})

    def stream(self, rank: int, world_size: int) -> Iterator[Example]:
        return self._mix({name: corpus.stream(rank, world_size) for name, corpus in self.corpora.items()})

    def _mix(self, sources: dict[str, Iterator[Example]]) -> Iterator[Example]:
        given, counted = dict.fromkeys(sources, 0.0), list[Tally]()
        sources = {name: tallies(examples, counted) for name, examples in sources.items()}
        while True:
            name = min(given, key=lambda name: given[name] / self.weights[name])
            example = next(sources[name], None)
            if example is None:
                for tally in counted:  # of those that are not read to their end, too
                    tally.decide()
                return
            size = len(example.text) if example.input_ids is None else _CHARACTERS_A_TOKEN * len(example.input_ids)
            given[name] += max(size, 1)
            yield replace(example, group=f"{name}/{example.group}")
