"""The kept token of a CounterFact prompt holds the subject's last byte, counted in bytes without any offsets."""

import json
import random
from itertools import accumulate
from pathlib import Path

import pytest

from atomlab.activations.corpora.counterfact import CounterFact
from atomlab.activations.model.smollm2 import smollm2
from atomlab.activations.tokens.tokenise import encode

RECORDS = Path(__file__).parents[4] / "shared" / "data" / "counterfact.jsonl"  # 20,000 of them, where they are kept
LETTERS = "abcdeABC 0189.-'’éßşğıŁæøñçščžяйκα東京中文한글🎵🏳️‍🌈"


def drawn(file: Path) -> Path:
    """2,000 records whose subjects end in letters that the tokenizer knows, and in such that it spells in bytes."""
    generator, lines = random.Random(0), []
    for number in range(2000):
        word = "".join(generator.choices(LETTERS, k=generator.randint(1, 12))).strip() or "x"
        prompt = (
            f"{'The mother tongue of ' * generator.randint(0, 1)}{word}{generator.choice([' is', ', the', '’s', 's'])}"
        )
        lines.append(json.dumps({"case_id": number, "prompt": prompt, "subject": word}))
    file.write_text("\n".join(lines))
    return file


@pytest.mark.parametrize("source", ["drawn", *(["all records"] if RECORDS.exists() else [])])
@pytest.mark.parametrize("position", ["last_subject", "last"])
def test_every_kept_token_holds_the_last_byte(cache: Path, tmp_path: Path, source: str, position) -> None:
    file = RECORDS if source == "all records" else drawn(tmp_path / "drawn.jsonl")
    tokenizer = smollm2(str(cache)).tokenizer
    examples = list(CounterFact(str(file), position=position, distinct=False).examples())
    documents = list(encode(examples, tokenizer, position))
    assert len(documents) == len(examples) == (20_000 if source == "all records" else 2000)
    split = 0
    for example, document in zip(examples, documents, strict=True):
        assert example.subject is not None
        text = example.text[: example.subject[1]] if position == "last_subject" else example.text
        # a byte-level tokenizer spells each byte with one character
        ends = list(accumulate(map(len, tokenizer.convert_ids_to_tokens(document.tokens.tolist()))))
        assert ends[-1] == len(example.text.encode())
        last = next(i for i, end in enumerate(ends) if end >= len(text.encode()))
        assert document.wanted == last, example
        split += last > 0 and ends[last - 1] > len(text[:-1].encode())
    assert split > 100 or (source, position) != ("drawn", "last_subject")  # characters of several tokens
