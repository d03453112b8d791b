"""The configuration is held against the signatures that it goes to (faults.md C7)."""

import re

import pytest

from atomlab.launch.options import check_options
from tests.processes import one_sentence, run
from tests.test_config import composed, with_hydra

THROUGHPUT = "atomlab.training.callbacks.Throughput"
WRONG = {
    "sae.expansion=abc": "sae.expansion=abc should be a number above 0.",
    "sae.expansion=true": "sae.expansion=true should be a number above 0.",
    "steps=ten": "steps=ten should be a whole number.",
    "layer=1.5": "layer=1.5 should be a whole number.",
    "layer=-1": "layer=-1 should be a whole number of 0 or more",
    "activations.hook_points.layers=[3,-1]": "activations.hook_points.layers=[3, -1] should be a list (a whole",
    "activations.tokens.fractions=3": "activations.tokens.fractions=3 should be a list of 3 (a number, a number, a number)",
    "activations.tokens.fractions=[1,2]": "activations.tokens.fractions=[1, 2] should be a list of 3",
    "activations.hook_points.sites=mlp_out": "activations.hook_points.sites=mlp_out should be a list (text each), as [a,b]",
    "training.sparsity.target=null": "training.sparsity.target=null should be a number above 0.",
    "training.sparsity.target=many": "training.sparsity.target=many should be a number above 0.",
    "sae.inputs=raww": "sae.inputs=raww should be one of raw, scaled.",
    "trainer.precision=bf16mixed": "trainer.precision=bf16mixed should be one of 64, 32, 16, transformer-engine",
    "activations.model=abc": "activations.model=abc should be LanguageModel (a _target_ with its arguments)",
    "harvest_only=perhaps": "harvest_only=perhaps should be true or false.",
    "resume=3": "resume=3 should be text or null; text in quotes: \"resume='3'\".",
    "callbacks.last.every=2.5": "callbacks.last.every=2.5 should be a whole number of 1 or more.",
    "batch_size=0": "batch_size=0 should be a whole number of 1 or more (it goes to activations.batches.size).",
    "seed=-1": "seed=-1 should be a whole number from 0 to 4294967295 (it goes to activations.batches.seed).",
    "sae.alpha=1.5": "sae.alpha=1.5 should be a number from 0 to 1.",
    "sae.bandwidth=nan": "sae.bandwidth=nan should be a number above 0.",
    "training.calibration.l0=-1": "training.calibration.l0=-1 should be a number above 0 or null.",
    "sample_sizes.measured=1": "sample_sizes.measured=1 should be a whole number of 2 or more.",
    "activations.outliers.max_norm_ratio=0.5": "max_norm_ratio=0.5 should be a number of 1 or more or null.",
    "+foo=1": "foo=1: nothing reads this key",
    "+modle=gpt2": "modle=gpt2: nothing reads this key; did you mean model?",
    "+site.nme=x": "site.nme=x: nothing reads this key; did you mean site.name?",
    "+training.schedule.learning_rat=1": "Schedule has no option 'learning_rat'; did you mean learning_rate?",
    f"+callbacks.more={{_target_: {THROUGHPUT}, evry: 3}}": "Throughput has no option 'evry'; did you mean every?",
    "~activations.hook_points.site": "activations.hook_points.site is missing",
    "+callbacks.more={_target_: atomlab.nowhere.Callback}": "callbacks.more._target_=atomlab.nowhere.Callback cannot be imported",
    "corpus@reference=local": "reference.path has no value yet: give reference.path=...",
    "model=hf": "model.name has no value yet: give model.name=...",
    "corpus=local": "corpus.path has no value yet: give corpus.path=...",
}
RIGHT = [
    "sae.expansion=2", "training.schedule.learning_rate=1", "activations.tokens.max_tokens=null",
    "activations.tokens.fractions=[1,0,0]",
    "activations.hook_points.sites=[mlp_out]", "trainer.devices=[0,1]", "trainer.devices=auto", "trainer.precision=16",
    "training.sparsity._target_=atomlab.sae.L0 ~training.sparsity.target training.calibration.l0=40",
    "+width=3 sae.expansion=${width}",
    f"+callbacks.more={{_target_: {THROUGHPUT}, every: 3}}", "trainer=ddp", "resume=last.ckpt",
]  # fmt: skip


def check(overrides: list[str], name: str = "train") -> None:
    config = with_hydra(overrides, name)
    check_options(config, composed([], name))


@pytest.mark.parametrize("word", WRONG)
def test_a_value_that_does_not_fit_is_named_with_what_was_expected(word: str) -> None:
    with pytest.raises(ValueError, match=re.escape(WRONG[word])):
        check([word])


@pytest.mark.parametrize("words", RIGHT)
def test_what_fits_passes(words: str) -> None:
    check(words.split(" ") if "{_target_" not in words else [words])


def test_a_study_is_checked_too() -> None:
    """C7: `study.seeds=x` was taken for a list of letters."""
    with pytest.raises(ValueError, match=r"study.seeds=x should be a list \(text each\)"):
        check(["study.seeds=x"], "evaluate")


def test_numbers_in_a_list_are_checked_too() -> None:
    with pytest.raises(
        ValueError, match=re.escape("study.vectors=[100, 0] should be a list (a whole number of 1 or more each)")
    ):
        check(["study=capacity", "study.vectors=[100,0]"], "evaluate")


def test_an_unknown_key_gets_the_nearest_one_and_no_plus(tmp_path) -> None:
    """C7: `modle=gpt2` advised `+modle=gpt2`, which would have been taken."""
    said = one_sentence(run("train.py", "modle=gpt2", cwd=tmp_path, cache=tmp_path / "cache"))
    assert said == "atomlab: There is no key 'modle': did you mean model?"
    assert "There is no key 'corpus.pth': did you mean corpus.path?" in one_sentence(
        run("train.py", "corpus=local", "corpus.pth=x", cwd=tmp_path, cache=tmp_path / "cache")
    )
    assert list(tmp_path.iterdir()) == []
