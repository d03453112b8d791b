"""All records of a CounterFact file at both positions, layer 5, three sites: `python -m benchmarks.counterfact FILE`.

Every kept position is checked against the bytes of the tokens: SmolLM2's tokenizer works on bytes, and spells each
token with one character a byte.
"""

import json
import sys
import tempfile
import time
from itertools import accumulate
from pathlib import Path
from typing import Any

from atomlab.activations.corpora.corpus import Example, Position
from atomlab.activations.corpora.counterfact import CounterFact
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.harvest.cache import HarvestOptions
from atomlab.activations.model.hook_points import HookPoints
from atomlab.activations.model.smollm2 import smollm2
from atomlab.activations.store.row_origins import Origins
from atomlab.activations.tokens.tokenise import SPLITS, TokenRules


def measure(file: str, position: Position) -> dict[str, object]:
    model, corpus = smollm2("~/.cache/atomlab"), CounterFact(file, position=position, distinct=False)
    examples = list(corpus.examples())
    with tempfile.TemporaryDirectory() as folder:
        data = ActivationDataModule(
            model,
            corpus,
            corpus,
            hook_points=HookPoints(site="resid_post", layer=5, sites=["mlp_out", "attn_out"]),
            tokens=TokenRules(drop_first=False),
            harvest=HarvestOptions(cache_dir=folder, shard_rows=16_384),
        )
        since = time.perf_counter()
        data.prepare_data()
        seconds = time.perf_counter() - since
        origins = [Origins.read(data.folder(corpus), split) for split in SPLITS]
        kept = {number: at for part in origins for number, at in _kept(part)}
        expected = {number: _last(model.tokenizer, example, position) for number, example in enumerate(examples)}
        size = sum(file.stat().st_size for file in Path(folder).rglob("*-0*.safetensors"))
        tokens = sum(len(part.sequences.input_ids) for part in origins)
        data.setup()
        rows = sum(len(data.rows[split].store) for split in SPLITS)
    return {
        "position": position, "records": len(examples), "sites": len(data.points), "rows a site": rows,
        "positions as expected": sum(kept.get(number) == at for number, at in expected.items()),
        "tokens": tokens, "bytes": size, "seconds with loading and tokenising": round(seconds, 1),
        "tokens/s": round(tokens / seconds),
    }  # fmt: skip


def _kept(origins: Origins) -> list[tuple[int, int]]:
    sequences = origins.sequences
    kept = sequences.keep.nonzero().squeeze(1)
    return list(zip(sequences.document[kept].tolist(), sequences.position[kept].tolist(), strict=True))


def _last(tokenizer: Any, example: Example, position: Position) -> int:
    """The token with the last byte of the subject, or of the prompt."""
    assert example.subject is not None
    text = example.text[: example.subject[1]] if position == "last_subject" else example.text
    spelled = tokenizer.convert_ids_to_tokens(tokenizer(example.text)["input_ids"])
    ends = accumulate(map(len, spelled))
    return next(i for i, end in enumerate(ends) if end >= len(text.encode()))


if __name__ == "__main__":
    for position in ("last_subject", "last"):
        sys.stdout.write(json.dumps(measure(sys.argv[1], position)) + "\n")
        sys.stdout.flush()
