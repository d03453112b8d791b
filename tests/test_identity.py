"""What a run is stands in the run, and where two meet, they are held against one another."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atomlab.activations.store.files import write_index
from atomlab.identity import (
    FORMAT,
    check_same,
    comparable_identity,
    differences,
    read_identity,
    warn_of_other_code,
    write_identity,
)
from atomlab.interop.checkpoint import read_checkpoint
from tests.processes import one_sentence, run
from tests.tiny import OPTIONS, save_model, save_text, workplace

LAST = "first/checkpoints/last.ckpt"
QUICK = [
    "study.controls=[]",
    "study.browser=null",
    "study.loss=false",
    "study.certify=false",
    "sample_sizes.measured=100",
]
leaves = st.none() | st.integers(0, 3) | st.sampled_from(["a", "b"])
records = st.recursive(leaves, lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, max_size=3), max_leaves=9)
runs = st.dictionaries(st.sampled_from("xyz"), records, max_size=3)


@given(runs, runs)
def test_differences_are_none_exactly_for_equal_records(a: dict, b: dict) -> None:
    found = differences(a, b)
    assert (not found) == (a == b)
    assert {key: (y, x) for key, (x, y) in differences(b, a).items()} == found
    for key, pair in found.items():
        for record, value in zip((a, b), pair, strict=True):
            for part in key.split("."):
                record = record.get(part, "absent")
            assert record == value


def test_only_what_is_listed_may_differ() -> None:
    now, then = {"seed": 0, "steps": 9, "code": {"source": "b"}}, {"seed": 0, "steps": 5, "code": {"source": "a"}}
    check_same(now, then, what="x", remedy="y")
    with pytest.raises(ValueError, match="x does not belong to this run: seed was 1 and is 0 now; y"):
        check_same(now, then | {"seed": 1}, what="x", remedy="y")
    with pytest.raises(ValueError, match="data was absent and is 1 now"):
        check_same(now | {"data": 1}, then, what="x", remedy="y")
    check_same(now | {"data": 1}, then, what="x", remedy="y", only=("seed",))


def test_three_differences_are_named_and_the_others_counted() -> None:
    then = {name: {"x": 0, "y": 0} for name in "abc"}
    now = {name: {"x": 1, "y": "z" * 100} for name in "abc"}
    with pytest.raises(ValueError, match=r"a\.x was 0 and is 1 now, .* \(and 3 more\); y") as found:
        check_same(now, then, what="x", remedy="y", may_differ=())
    assert f"a.y was 0 and is {'z' * 57}... now, b.x was" in str(found.value)
    with pytest.raises(ValueError, match=r"run: c\.y was"):
        check_same(now, then, what="x", remedy="y", may_differ=("a", "b", "c.x"))


def test_other_source_files_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    warn_of_other_code({"code": {"source": "a"}}, {"code": {"source": "a"}}, "resume=x")
    assert capsys.readouterr().err == ""
    warn_of_other_code({"code": {"source": "a"}}, {"code": {"source": "b"}}, "resume=x")
    assert "resume=x was made by other source files" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 99}', '"format"', "null"])
def test_a_record_is_looked_at_before_it_is_trusted(tmp_path: Path, content: str) -> None:
    (tmp_path / "identity.json").write_text(content)
    if content:
        with pytest.raises(ValueError, match=rf"format .*, expected {FORMAT}"):
            comparable_identity(json.loads(content), "file")
    else:
        with pytest.raises(ValueError, match=r"identity.json is damaged"):
            read_identity(tmp_path)
    write_identity(tmp_path, {"format": FORMAT, "seed": 1})
    assert comparable_identity(read_identity(tmp_path), "file")["seed"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["identity.json"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workplace with a finished run of 20 steps."""
    folder = workplace(tmp_path_factory.mktemp("identity"))
    finished = run("train.py", *OPTIONS, "steps=20", "hydra.run.dir=first", cwd=folder, cache=folder / "cache")
    assert finished.returncode == 0, finished.stderr
    return folder


def test_everything_that_a_run_leaves_says_what_it_is(place: Path) -> None:
    identity = read_identity(place / "first")
    assert identity["hook_point"] == "model.layers.1.output"
    assert identity["sae"]["expansion"] == 2
    assert identity["steps"] == 20
    config = json.loads((place / "first" / "sae" / "cfg.json").read_text())
    assert config["metadata"]["atomlab_identity"] == identity
    assert read_checkpoint(place / LAST)["identity"] == identity
    assert json.loads((place / "first" / "results.json").read_text())["identity"] == identity


REFUSED = {
    "layer": (["layer=2"], "hook_point was model.layers.1.output and is model.layers.2.output now"),
    "rate": (["training.schedule.learning_rate=0.1"], "training.schedule.learning_rate was None and is 0.1 now"),
    "inputs": (["sae.inputs=raw"], "sae.inputs was scaled and is raw now"),
    "expansion": (["sae.expansion=3"], "sae.expansion was 2 and is 3 now"),
    "target": (["training.sparsity.target=6"], "training.sparsity.target was 5 and is 6 now"),
    "shrinkage": (["shrinkage=0.1"], "shrinkage was 0.0 and is 0.1 now"),
    "context": (["activations.tokens.context=16"], "activations.tokens.context was 32 and is 16 now"),
    "seed": (["seed=1"], "activations.batches.seed was 0 and is 1 now, seed was 0 and is 1 now"),
    "data seed": (["activations.tokens.seed=1"], "activations.tokens.seed was 0 and is 1 now"),
    "clipping": (["trainer.gradient_clip_val=1.0"], "trainer.gradient_clip_val was None and is 1.0 now"),
    "fewer steps": (["steps=10"], "has done 20 steps, more than steps=10"),
    "text": (["corpus.path=other.txt"], "corpus.local was"),
    "reference": (["reference.path=other.txt"], "reference.local was"),
    "model": (["model.name=other"], "model.folder was"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_resume_refuses_another_run(place: Path, name: str) -> None:
    """faults.md A4 (layer, rate, inputs, expansion, steps), and what else a checkpoint depends on."""
    if name == "model" and not (place / "other").exists():
        save_model(place / "other", seed=1)
    if name in ("text", "reference"):
        save_text(place / "other.txt", seed=1)
    before = sorted(path.name for path in place.iterdir())
    finished = run(
        "train.py", *OPTIONS, "steps=20", f"resume={LAST}", *REFUSED[name][0], cwd=place, cache=place / "cache"
    )
    assert f"resume={LAST}" in one_sentence(finished)
    assert REFUSED[name][1] in one_sentence(finished)
    assert sorted(path.name for path in place.iterdir()) == before


@pytest.mark.parametrize("every", [250, 20])
def test_a_finished_run_trains_on_when_it_is_given_more_steps(place: Path, every: int) -> None:
    """faults.md A5: it trained nothing, and reported the old numbers under the new `steps`.

    The last checkpoint may be of the training's end (every 250), or of its last step (every 20).
    """
    last, more = (LAST, "more") if every == 250 else ("exact/checkpoints/last.ckpt", "exact more")
    if every == 20:
        words = ["steps=20", f"callbacks.last.every={every}", "hydra.run.dir=exact"]
        assert run("train.py", *OPTIONS, *words, cwd=place, cache=place / "cache").returncode == 0
    words = ["steps=30", f"resume={last}", f"hydra.run.dir='{more}'", "trainer.log_every_n_steps=1"]
    finished = run("train.py", *OPTIONS, *words, cwd=place, cache=place / "cache")
    assert finished.returncode == 0, finished.stderr
    before, after = (read_checkpoint(place / path) for path in (last, f"{more}/checkpoints/last.ckpt"))
    assert (before["global_step"], after["global_step"]) == (20, 30)
    moments = after["optimizer_states"][0]["state"]
    assert {int(state["step"]) for state in moments.values()} == {30}
    assert after["lr_schedulers"][0]["last_epoch"] == 30
    assert after["lr_schedulers"][0]["_last_lr"][0] == 0  # the schedule of 30 steps is at its end
    assert after["ActivationDataModule"]["step"] == 30
    assert not torch.equal(before["state_dict"]["sae.W_dec"], after["state_dict"]["sae.W_dec"])
    lines = list(csv.DictReader((place / more / "csv" / "metrics.csv").read_text().splitlines()))
    assert {int(line["step"]) for line in lines if line["train/loss"]} == set(range(20, 30))
    assert read_identity(place / more)["steps"] == 30


def test_evaluate_refuses_what_is_no_longer_what_was_trained(place: Path, tmp_path: Path) -> None:
    """faults.md A11: another model under the same path was measured under the old run's name. And a text that was edited."""
    moved = tmp_path / "moved"
    shutil.copytree(place, moved, ignore=shutil.ignore_patterns("more", "exact*", "outputs"))
    quick = ["run=first", *QUICK]
    cache = moved / "cache"
    finished = run("evaluate.py", *quick, "hydra.run.dir=same", cwd=moved, cache=cache)
    assert finished.returncode == 0, finished.stderr
    text = (moved / "text.txt").read_text()
    (moved / "text.txt").write_text(text.replace("w1 ", "w2 ", 1))
    assert "run=first does not belong to this run: corpus.local was" in one_sentence(
        run("evaluate.py", *quick, cwd=moved, cache=cache)
    )
    (moved / "text.txt").write_text(text)
    save_model(moved / "model", seed=1)
    said = one_sentence(run("evaluate.py", *quick, cwd=moved, cache=cache))
    assert "run=first does not belong to this run: model.folder was" in said
    (moved / "first" / "identity.json").unlink()
    assert "first has no identity.json" in one_sentence(run("evaluate.py", *quick, cwd=moved, cache=cache))


def test_what_lies_under_another_ones_name_is_refused(place: Path, tmp_path: Path) -> None:
    """The next case of A11: another run's SAE in a run's folder, and another harvest in a harvest's folder."""
    moved = tmp_path / "moved"
    shutil.copytree(place, moved, ignore=shutil.ignore_patterns("more", "exact*", "outputs"))
    file = moved / "first" / "sae" / "cfg.json"
    config = json.loads(file.read_text())
    config["metadata"]["atomlab_identity"]["seed"] = 7
    file.write_text(json.dumps(config))
    (file.parent / "SHA256SUMS").unlink()  # as whoever copied it there would
    said = one_sentence(run("evaluate.py", "run=first", *QUICK, cwd=moved, cache=moved / "cache"))
    assert "The SAE in first does not belong to this run: seed was 7 and is 0 now" in said
    (index,) = (moved / "cache" / "activations").glob("*/model.layers.1.output/index.json")
    content = json.loads(index.read_text())
    content["model"]["folder"] = "another"
    del content["checksum"]
    write_index(index, content)
    said = one_sentence(run("train.py", *OPTIONS, "steps=20", cwd=moved, cache=moved / "cache"))
    assert "does not belong to this run: model.folder was another and is" in said


STRANGERS = {
    "atoms of another model": (["study.atoms=first", "model.name=twin"], "model.folder was"),
    "features of another layer": (["study.features={mine: first}", "layer=2"], "was trained at model.layers.1.output"),
    "seed of another width": (["study.atoms=first", "study.seeds=[wide]"], "sae.expansion was 3 and is 2 now"),
    "seed of another text": (["study.atoms=first", "study.seeds=[edited]"], "corpus.local was"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_studies_refuse_saes_of_other_runs(place: Path, name: str) -> None:
    """What is compared is what the SAE says of itself, wherever its folder lies and whatever its name is."""
    words, sentence = STRANGERS[name]
    if "twin" in words[-1]:
        save_model(place / "twin", seed=2)
    for folder, change in (("wide", {"sae": {"expansion": 3}}), ("edited", {"corpus": {"local": ["other"]}})):
        if folder in words[-1]:
            shutil.copytree(place / "first" / "sae", place / folder)
            config = json.loads((place / folder / "cfg.json").read_text())
            for part, values in change.items():
                config["metadata"]["atomlab_identity"][part] |= values
            (place / folder / "cfg.json").write_text(json.dumps(config))
            (place / folder / "SHA256SUMS").unlink()
    options = [word for word in OPTIONS if not word.startswith("logger")]
    finished = run("evaluate.py", *options, *QUICK, *words, cwd=place, cache=place / "cache")
    assert sentence in one_sentence(finished)


def test_the_cache_is_named_by_what_determines_the_activations_and_by_nothing_else(place: Path, tmp_path: Path) -> None:
    """faults.md D6 and D9: another seed, a copy of the model, other sizes of files and passes are the same harvest."""
    cache = place / "cache"
    before = list((cache / "activations").iterdir())
    shutil.copytree(place / "model", tmp_path / "copy")
    sizes = ["activations.harvest.shard_rows=100", "activations.harvest.batch_tokens=64"]
    words = [*OPTIONS, "seed=1", f"model.name={tmp_path / 'copy'}", *sizes, "harvest_only=true"]
    finished = run("train.py", *words, cwd=place, cache=cache)
    assert finished.returncode == 0, finished.stderr
    assert "harvest:" not in finished.stderr
    assert list((cache / "activations").iterdir()) == before
