"""All records of a CounterFact file at both positions, layer 5, three sites: `python benchmarks/counterfact.py FILE`.

Every kept position is checked against the tokenizer's own `char_to_token`.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from atomlab.activations.counterfact import CounterFact
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.embedded import smollm2
from atomlab.activations.origins import Origins
from atomlab.activations.tokens import SPLITS

if __name__ == "__main__":
    model = smollm2(str(Path("~/.cache/atomlab").expanduser()))
    for position in ("last_subject", "last"):
        corpus = CounterFact(sys.argv[1], position=position, distinct=False)
        examples = list(corpus.examples())
        with tempfile.TemporaryDirectory() as folder:
            data = ActivationDataModule(
                model, corpus, corpus, site="resid_post", layer=5, cache_dir=folder, sites=["mlp_out", "attn_out"],
                drop_first=False, shard_rows=16_384,
            )  # fmt: skip
            since = time.perf_counter()
            data.prepare_data()
            seconds = time.perf_counter() - since
            checked = tokens = 0
            for split in SPLITS:
                origins = Origins.read(data.folder(corpus), split)
                tokens += len(origins.sequences.input_ids)
                kept = origins.sequences.keep.nonzero().squeeze(1)
                for number, at in zip(
                    origins.sequences.document[kept].tolist(), origins.sequences.position[kept].tolist(), strict=True
                ):
                    encoding = model.tokenizer(examples[number].text)
                    end = examples[number].subject[1] if position == "last_subject" else len(examples[number].text)
                    assert at == encoding.char_to_token(end - 1), examples[number]
                    checked += 1
            size = sum(file.stat().st_size for file in Path(folder).rglob("*-0*.safetensors"))
        sys.stdout.write(json.dumps({
            "position": position, "records": len(examples), "rows a site": checked, "tokens": tokens, "seconds":
            seconds,
            "tokens/s with loading and tokenising": tokens / seconds, "bytes": size,
        }) + "\n")  # fmt: skip
        sys.stdout.flush()
