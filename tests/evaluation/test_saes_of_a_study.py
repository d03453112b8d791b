"""What `study.atoms`, `study.features` and `study.seeds` may name, and that it was trained where it is measured."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from lightning import seed_everything

from atomlab import ThresholdSAE, load_sae, save_sae
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.harvest.cache import HarvestCache
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.sites import find_module, first_tensor, resolve_site
from atomlab.evaluation import BrowserOptions, ControlledTable, StudyInputs, origin_of, retraining
from atomlab.evaluation.controls import CONTROL_SOURCES, CONTROLS
from atomlab.evaluation.studies.controlled_table import SOURCES
from atomlab.evaluation.studies.controlled_table_figures import table_figures
from atomlab.interop.locate import check_seed, load_at_site, locate, same_start
from atomlab.theory import AtomicInnerProduct
from atomlab.training.build import build, reference_metric
from atomlab.training.callbacks import DecoderNorm
from atomlab.training.last_checkpoint import LastCheckpoint
from atomlab.training.recipe import InitialAtoms
from atomlab.training.resuming import RunIdentity
from atomlab.training.vectors import VectorsDataModule
from atomlab.units import CODERS

Data = Callable[..., ActivationDataModule]
QUICK = ControlledTable(controls=[], certify=False, loss=False, browser=None)


def trained(study: StudyInputs, folder: Path, *, seed: int = 0, **architecture: Any) -> Path:
    """A run's folder as train.py leaves it: checkpoints/last.ckpt and sae/, which say what they are."""
    seed_everything(seed, verbose=False)
    plan = study.retraining
    module = build(study.data, replace(plan.architecture, **architecture), plan.recipe, shrinkage=plan.shrinkage)
    callbacks = [DecoderNorm(), LastCheckpoint(str(folder / "checkpoints")), RunIdentity(study.identity)]
    options = {"callbacks": callbacks, "logger": False, "limit_val_batches": 0, "enable_checkpointing": False}
    study.retraining.trainer(**options).fit(module, study.data)
    save_sae(module.folded(), folder / "sae", origin_of(study.data, study.identity))
    return folder


def same(a: ThresholdSAE, b: ThresholdSAE) -> bool:
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


@pytest.fixture
def metric(inputs: StudyInputs) -> AtomicInnerProduct:
    return reference_metric(inputs.data, inputs.shrinkage)


@pytest.mark.parametrize("coordinates", [{"inputs": "raw"}, {"alpha": 0.0}, {"alpha": 1.0}])
@pytest.mark.parametrize("tied", [False, True])
def test_a_checkpoint_is_bit_for_bit_what_its_run_saved(
    inputs: StudyInputs, metric: AtomicInnerProduct, tmp_path: Path, coordinates: dict[str, Any], tied: bool
) -> None:
    run = trained(inputs, tmp_path / "run", tied=tied, **coordinates)
    saved = load_sae(run / "sae")
    for path in (run, run / "sae", run / "checkpoints" / "last.ckpt", str(run)):
        assert same(load_at_site(path, inputs.data, metric), saved), path
    (run / "sae").rename(tmp_path / "elsewhere")
    assert locate(run, inputs.data) == run / "checkpoints" / "last.ckpt"
    assert same(load_at_site(run, inputs.data, metric), saved)


def test_a_training_starts_from_the_atoms_of_another_run(inputs: StudyInputs, tmp_path: Path) -> None:
    """In its own coordinates, whatever those of the other were; another number of atoms or vectors without a site are refused."""
    run = trained(inputs, tmp_path / "run", alpha=0.5)
    plan = inputs.retraining
    recipe = replace(plan.recipe, initial_atoms=InitialAtoms(str(run)))
    module = build(inputs.data, plan.architecture, recipe, shrinkage=plan.shrinkage)
    raw = load_sae(run / "sae").W_dec.detach() @ module.transform.matrix
    cosines = torch.nn.functional.cosine_similarity(module.sae.W_dec.detach(), raw)
    torch.testing.assert_close(cosines, torch.ones(len(raw)), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"has 32 atoms and this run 48: set sae\.expansion=2"):
        build(inputs.data, replace(plan.architecture, expansion=3), recipe, shrinkage=plan.shrinkage)
    vectors = VectorsDataModule(inputs.data.sample("train", 300), inputs.data.reference_moments, batch_size=64, steps=1)
    with pytest.raises(ValueError, match="is a path, and these vectors have no model and site"):
        build(vectors, plan.architecture, recipe, shrinkage=plan.shrinkage)
    foreign = replace(plan, recipe=recipe, steps=20)  # a surrogate's own training starts from its own vectors
    assert replace(recipe.initial_atoms, source="data") == foreign.recipe.without_foreign_atoms().initial_atoms


def test_a_training_starts_from_the_atoms_that_most_of_several_runs_have(
    inputs: StudyInputs, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two copies of one run share all atoms, in whatever coordinates; the number of atoms may be another."""
    run = trained(inputs, tmp_path / "run", alpha=0.5)
    plan = inputs.retraining
    recipe = replace(plan.recipe, initial_atoms=InitialAtoms([str(run), str(run / "sae")], bound=0.999))
    module = build(inputs.data, replace(plan.architecture, expansion=3), recipe, shrinkage=plan.shrinkage)
    theirs = load_sae(run / "sae").W_dec.detach() @ module.transform.matrix
    cosines = torch.nn.functional.normalize(theirs, dim=1) @ module.sae.W_dec.detach().T
    torch.testing.assert_close(cosines.amax(1), torch.ones(len(theirs)), rtol=0, atol=1e-4)
    assert module.sae.d_sae == 48
    assert "32 atoms are in more than half of 2 runs" in capfd.readouterr().err


def test_two_runs_from_the_same_atoms_are_reported_apart_from_two_of_different_starts(
    inputs: StudyInputs, tmp_path: Path
) -> None:
    record = inputs.identity
    starts = {"a": "one", "b": "two", "c": "data"}
    records: dict[str, Any] = {
        name: {**record, "training": {"initial_atoms": {"source": source}}} for name, source in starts.items()
    }
    for name, own in records.items():
        run = trained(replace(inputs, identity=own), tmp_path / name)
        check_seed(run / "sae", own)
    assert same_start(tmp_path / "a" / "sae", records["a"])
    assert not same_start(tmp_path / "b" / "sae", records["a"])
    assert not same_start(tmp_path / "c" / "sae", records["c"])  # each drew its own vectors
    check_seed(tmp_path / "b" / "sae", records["a"])
    with pytest.raises(ValueError, match=r"training\.initial_atoms\.source was data and is one now"):
        check_seed(tmp_path / "c" / "sae", records["a"])


def test_a_stopped_run_is_measured_and_seeds_may_be_of_every_kind(inputs: StudyInputs, tmp_path: Path) -> None:
    run, other = trained(inputs, tmp_path / "run"), trained(inputs, tmp_path / "other", seed=1)
    _, finished = QUICK(replace(inputs, run=run))
    (run / "sae").rename(tmp_path / "sae")
    (tmp_path / "stopped").mkdir()
    _, stopped = QUICK(replace(inputs, run=run, folder=tmp_path / "stopped"))
    assert stopped == finished
    found = []
    for seed in (other, other / "sae", other / "checkpoints" / "last.ckpt"):
        replace(QUICK, atoms=str(run / "checkpoints" / "last.ckpt"), seeds=[str(seed)])(inputs)
        found.append(json.loads((inputs.folder / "results.json").read_text())["rows"][0]["consistency"])
    assert found[0] == found[1] == found[2] < 0.999


@pytest.mark.parametrize(
    ("named", "agrees"),
    [
        ("model.layers.1.output", True),
        ("model.layers.2.input", True),
        ("blocks.1.hook_resid_post", True),
        ("blocks.2.hook_resid_pre", True),
        ("blocks.1.hook_something_else", True),
        ("model.layers.1", True),
        ("what others call it", True),
        (None, True),
        ("model.layers.2.output", False),
        ("model.layers.1.input", False),
        ("model.layers.1.mlp.output", False),
        ("model.layers.25.output", False),
        ("model.layers.25", False),
        ("blocks.2.hook_resid_post", False),
        ("blocks.1.hook_resid_pre", False),
        ("blocks.1.hook_mlp_out", False),
        ("blocks.1.hook_attn_out", False),
        ("blocks.1.attn.hook_z", False),
        ("blocks.1.mlp.hook_post", False),
        ("blocks.25.hook_resid_post", False),
        ("blocks.0.hook_something_else", False),
    ],
)
def test_an_sae_is_measured_where_it_was_trained(
    data_of: Data, tmp_path: Path, named: str | None, agrees: bool
) -> None:
    data = data_of()
    save_sae(ThresholdSAE(16, 8), tmp_path / "new", {} if named is None else {"hook_name": named})
    save_sae(ThresholdSAE(16, 8), tmp_path / "old", {})
    (tmp_path / "old" / "SHA256SUMS").unlink()  # as others save it
    config = json.loads((tmp_path / "old" / "cfg.json").read_text())
    (tmp_path / "old" / "cfg.json").write_text(json.dumps({**config, "metadata": None, "hook_name": named}))
    for folder in (tmp_path / "new", tmp_path / "old"):
        if agrees:
            assert locate(folder, data) == folder
        else:
            with pytest.raises(ValueError, match=r"was trained at .* and model\.layers\.1\.output is measured"):
                locate(folder, data)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("hook_resid_pre", "resid_pre"),
        ("hook_resid_post", "resid_post"),
        ("hook_mlp_out", "mlp_out"),
        ("hook_attn_out", "attn_out"),
        ("attn.hook_z", "attn_z"),
        ("mlp.hook_post", "mlp_hidden"),
    ],
)
def test_transformer_lens_names_mean_one_site_each(
    data_of: Data, tmp_path: Path, family: str, name: str, site: str
) -> None:
    save_sae(ThresholdSAE(16, 8), tmp_path, {"hook_name": f"blocks.1.{name}"})
    data = data_of(family)
    accepted = []
    for candidate in ("resid_pre", "resid_post", "mlp_in", "mlp_hidden", "mlp_out", "attn_z", "attn_out"):
        try:
            locate(tmp_path, data.at(candidate, 1))
            accepted.append(candidate)
        except ValueError:
            pass
    assert accepted == [site]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_a_block_reads_is_what_the_one_before_it_gave(models_of: dict[str, LanguageModel], family: str) -> None:
    model, seen = models_of[family].load(), {}
    before, after = resolve_site("resid_post", 0, family, 3), resolve_site("resid_pre", 1, family, 3)
    find_module(model, before).register_forward_hook(lambda _, __, out: seen.update(given=first_tensor(out)))
    find_module(model, after).register_forward_pre_hook(lambda _, given: seen.update(read=first_tensor(given)))
    model(torch.arange(3, 20)[None])
    assert torch.equal(seen["given"], seen["read"])


def test_heads_outputs_are_flat_here_and_belong_to_one_site(data_of: Data, tmp_path: Path) -> None:
    data = data_of()
    save_sae(ThresholdSAE(16, 8), tmp_path, {})
    (tmp_path / "SHA256SUMS").unlink()  # as others save it
    config = json.loads((tmp_path / "cfg.json").read_text()) | {"reshape_activations": "hook_z"}
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    assert locate(tmp_path, data.at("attn_z", 1)) == tmp_path
    assert load_sae(tmp_path).d_in == 16
    with pytest.raises(ValueError, match=r"trained at attn\.hook_z"):
        locate(tmp_path, data)


def test_a_checkpoint_is_measured_where_its_run_was_trained(inputs: StudyInputs, tmp_path: Path) -> None:
    run = trained(inputs, tmp_path / "run")
    checkpoint = run / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match=r"trained at model\.layers\.1\.output and model\.layers\.2\.output is"):
        locate(checkpoint, inputs.data.at("resid_post", 2))
    (tmp_path / "copy.ckpt").write_bytes(checkpoint.read_bytes())  # and says so wherever it lies
    assert locate(tmp_path / "copy.ckpt", inputs.data) == tmp_path / "copy.ckpt"
    with pytest.raises(ValueError, match=r"copy\.ckpt was trained at model\.layers\.1\.output and"):
        locate(tmp_path / "copy.ckpt", inputs.data.at("resid_post", 2))


def test_what_is_no_sae_is_refused_in_one_sentence(
    inputs: StudyInputs, metric: AtomicInnerProduct, tmp_path: Path
) -> None:
    for path, said in (
        ("nowhere", "does not exist"),
        ("nowhere.ckpt", "does not exist"),
        ("", r"holds no SAE of a known format \(it is empty\)"),
    ):
        with pytest.raises(FileNotFoundError, match=rf"{said}: expected a run's folder"):
            locate(tmp_path / path, inputs.data)
    whole = trained(inputs, tmp_path / "run") / "checkpoints" / "last.ckpt"
    other = {"state_dict": {"transform.mean": torch.zeros(3)}}
    torch.save(other, tmp_path / "other.ckpt")
    torch.save([1], tmp_path / "list.ckpt")
    (tmp_path / "half.ckpt").write_bytes(whole.read_bytes()[:5000])
    (tmp_path / "text.ckpt").write_text("text")
    (tmp_path / "empty.ckpt").write_text("")
    for name in ("other", "list", "half", "text", "empty"):
        with pytest.raises(
            ValueError, match=rf"{name}\.ckpt is no readable checkpoint of train\.py \(.+\): give another"
        ):
            load_at_site(tmp_path / f"{name}.ckpt", inputs.data, metric)
    save_sae(ThresholdSAE(8, 9), tmp_path / "narrow", {})
    with pytest.raises(ValueError, match="d_in=8 and this site 16"):
        load_at_site(tmp_path / "narrow", inputs.data, metric)


def never(*given: object, **options: object) -> NoReturn:
    raise AssertionError("trained")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"controls": ["random", "nonsense"]}, r"study\.controls names nonsense"),
        ({"controls": "random"}, r"study\.controls=\[random\]"),
        ({"coders": ["omp", "guess"]}, r"study\.coders names guess: choose from threshold, refit"),
        ({"coders": "omp"}, r"study\.coders=\[omp\]"),
        ({"seeds": "outputs/a"}, r"study\.seeds=\[outputs/a\]"),
        ({"seeds": ["nowhere"]}, "nowhere does not exist"),
        ({"atoms": "nowhere"}, "nowhere does not exist"),
        ({"features": {"imported": "nowhere"}}, "nowhere does not exist"),
        ({"browser": BrowserOptions(LanguageModel("/nowhere", device="cpu"))}, "The model of '/nowhere'"),
        *(
            ({"features": {name: "nowhere"}}, re.escape(f"study.features names a row {name},"))
            for name in (*SOURCES, "a + OMP")
        ),
    ],
)
def test_a_mistake_costs_neither_a_harvest_nor_a_training(
    inputs: StudyInputs, options: dict, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retraining, "build", never)
    unharvested, known = inputs.data.at("resid_post", 0), inputs.data.harvests
    elsewhere = replace(known.options, cache_dir=str(inputs.folder / "cache"))
    unharvested.harvests = HarvestCache(known.model, known.rules, elsewhere)
    idle = replace(inputs, data=unharvested)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        replace(QUICK, **options)(idle)
    assert not list(inputs.folder.iterdir())


def test_an_sae_that_cannot_be_read_is_refused_before_the_training(
    inputs: StudyInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retraining, "build", never)
    save_sae(ThresholdSAE(8, 9), tmp_path / "narrow", {})
    narrow = str(tmp_path / "narrow")
    for study in (replace(QUICK, features={"imported": narrow}), replace(QUICK, seeds=[narrow])):
        with pytest.raises(ValueError, match="d_in=8 and this site 16"):
            study(inputs)


def test_every_dictionary_is_drawn_once_and_controls_go_before_imported_saes(
    inputs: StudyInputs, metric: AtomicInnerProduct
) -> None:
    """In the coherence, Babel and isometry figures, in one order and so in one colour; up to eight."""
    study = replace(QUICK, certify=True, controls=list(CONTROLS))
    sae, names = inputs.retraining.train(inputs.data, seed=1), [f"f{i}" for i in range(4)]
    missing: list[str] = []
    cases, rows = study._measure(sae, dict.fromkeys(names, sae), metric, inputs, missing)
    assert not missing
    suffixes = [f" + {CODERS[coder]}" for coder in study.coders]
    wanted = ["atoms", *(f"atoms{suffix}" for suffix in suffixes[1:]), "neurons", "data, nearest"]
    wanted += [f"{source}{suffix}" for source in (*CONTROL_SOURCES, *names) for suffix in suffixes]
    wanted += [*names, "Gaussian TSAE on its own"]
    assert sorted(row["unit"] for row in rows) == sorted(wanted)
    for row in rows:
        if " + " in row["unit"]:
            assert row["l0"] == pytest.approx(rows[0]["l0"], rel=0.02), row["unit"]
    figures = table_figures(rows, sae, metric, cases)
    expected = ["atoms", *CONTROL_SOURCES, "f0", "f1", "f2"]
    drawn = [figure() for name, figure in figures.items() if "Welch" in name or "isometry" in name]
    assert len(drawn) == 3
    for figure in drawn:
        texts = [text.get_text() for text in figure.legends[0].get_texts()]
        assert [text for text in texts if text in (*SOURCES, *names)] == expected
    lines = [line for line in drawn[1].axes[0].lines if line.get_label() in expected]
    assert len({line.get_color() for line in lines}) == len(expected) == len(lines)
