"""Every option of conf/ composes, and every leaf is called with arguments that its target knows."""

import inspect
import itertools
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from atomlab.launch.options import _leaves, check_options
from atomlab.ranges import has_range

CONF = Path(__file__).parent.parent / "conf"
OPTIONS = sorted(
    f"{file.parent.name}={file.stem}"
    for file in CONF.glob("*/*.yaml")
    if file.parent.name not in ("experiment", "sweep")
)
EXTRAS = sorted(
    f"{file.parent.name}={file.stem}" for group in ("experiment", "sweep") for file in (CONF / group).glob("*.yaml")
)
OF_EVALUATE = {
    "study",
    "experiment=paper_table",
    "experiment=representation_shift",
    "experiment=capacity",
    "experiment=synthetic",
}
MISSING = {"corpus=local": "corpus.path=a.txt", "model=hf": "model.name=a", "site=module": "site.name=a.output"}
MODELS = ("gemma2_2b", "gemma2_9b", "llama31_8b", "smollm2_embedded")


def composed(overrides: list[str], name: str = "train") -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides)


def with_hydra(overrides: list[str], name: str = "train") -> DictConfig:
    """Composed as a run has it: `${hydra:...}` resolves."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(name, overrides, return_hydra_config=True)
    with read_write(config), open_dict(config), read_write(config.hydra.runtime):
        config.hydra.runtime.output_dir = "out"
        HydraConfig.instance().set_config(config)
        del config["hydra"]
    return config


@pytest.mark.parametrize("option", [*OPTIONS, *EXTRAS])
def test_every_option_fits_its_targets(option: str) -> None:
    """By the function that holds a user's configuration against the signatures."""
    primary = "evaluate" if {option, option.split("=")[0]} & OF_EVALUATE else "train"
    missing = [word for choice, word in MISSING.items() if choice == option]
    check_options(with_hydra([option, *missing], primary), composed([], primary))


@pytest.mark.parametrize("preset", sorted(file.stem for file in (CONF / "sweep").glob("*.yaml")))
def test_every_job_of_a_preset_composes(preset: str) -> None:
    """By Hydra's own parser of `-m`, so that a preset cannot name a job that only fails when the sweep is run."""
    params = OmegaConf.load(CONF / "sweep" / f"{preset}.yaml").hydra.sweeper.params
    parsed = OverridesParser.create().parse_overrides([f"{key}={values}" for key, values in params.items()])
    choices = [list(override.sweep_string_iterator()) for override in parsed]
    assert all(len(values) > 1 for values in choices)
    for values in itertools.product(*choices):
        words = [f"{key}={value}" for key, value in zip(params, values, strict=True)]
        check_options(with_hydra([f"sweep={preset}", *words]), composed([]))


def test_every_number_that_goes_to_a_class_of_ours_has_a_range() -> None:
    """So that layer=-1 is refused by the command line, and not by whatever happens to use it first."""

    def is_number(hint: object) -> bool:
        return hint in (int, float) or any(map(is_number, get_args(hint)))

    without = set()
    for option in [None, *OPTIONS, *EXTRAS]:
        primary = "evaluate" if option and {option, option.split("=")[0]} & OF_EVALUATE else "train"
        words = [word for word in (option, MISSING.get(option or "")) if word]
        for _, leaf in _leaves("", OmegaConf.to_container(composed(words, primary))):
            if leaf["_target_"].startswith("atomlab."):
                target = get_object(leaf["_target_"])
                hints = get_type_hints(target.__init__ if isinstance(target, type) else target, include_extras=True)
                without |= {name for name in leaf if is_number(hints.get(name)) and not has_range(hints[name])}
    assert without == {
        "device_map",  # numbers of devices, by the name of a module
        "fractions",  # three shares whose sum is 1, which TokenRules refuses otherwise
    }


def test_a_hub_model_reads_hub_text_unless_told_otherwise() -> None:
    assert composed(["model=gemma2_2b", "site=mlp_hidden", "layer=12", "trainer=gpu"]).corpus._target_.endswith(
        "HubText"
    )
    assert composed(["model=gemma2_2b", "corpus=local"]).corpus._target_.endswith("LocalText")


@pytest.mark.parametrize("model", MODELS)
def test_the_papers_models_read_counterfact_and_take_s_from_wikipedia(model: str) -> None:
    config = composed(["experiment=paper_table", f"model={model}", "corpus.path=p.jsonl"], "evaluate")
    assert config.corpus._target_.endswith("CounterFact")
    assert config.reference._target_.endswith("WikipediaEmbedded" if "embedded" in model else "HubText")
    assert (config.sae.expansion, config.study._target_) == (4, "atomlab.evaluation.PaperTable")


def test_evaluate_shares_its_configuration_with_training() -> None:
    shared = OmegaConf.load(CONF / "common.yaml")
    for name in ("train", "evaluate"):
        config = composed([], name)
        assert {key: config[key] for key in ("layer", "seed", "steps")} == {
            k: shared[k] for k in ("layer", "seed", "steps")
        }


def test_imported_saes_are_named_on_the_command_line() -> None:
    """As docs/evaluation.md writes it: a mapping that starts empty would refuse the names."""
    config = composed(["study.features={a: folder, b: params.npz}"], "evaluate")
    assert OmegaConf.to_container(config.study.features) == {"a": "folder", "b": "params.npz"}


# Options whose default on the command line is meant to be another one than in a notebook.
ON_PURPOSE = {
    "callbacks.progress_bar.refresh_rate": "the default is Lightning's own, and too often for a log file",
    "activations.tokens.max_tokens": "a first run takes minutes; a notebook says itself how much it harvests",
}


@pytest.mark.parametrize(
    ("name", "words"),
    [("train", []), *(("evaluate", [f"study={file.stem}"]) for file in (CONF / "study").glob("*.yaml"))],
)
def test_a_default_is_the_same_in_conf_and_in_the_signature(name: str, words: list[str]) -> None:
    """So that a notebook and the command line do the same. Values that come from elsewhere (`${...}`) are not compared."""
    config = composed(words, name)
    raw = OmegaConf.to_container(config)
    compared = set()
    for path, leaf in _leaves("", raw):
        if not leaf["_target_"].startswith("atomlab."):
            continue
        parameters = inspect.signature(get_object(leaf["_target_"])).parameters
        for key, value in leaf.items():
            known = parameters[key].default if key in parameters else inspect.Parameter.empty
            shared = isinstance(value, dict) or (isinstance(value, str) and "${" in value)
            if known is inspect.Parameter.empty or shared or f"{path}.{key}" in ON_PURPOSE:
                continue
            plain = list(known) if isinstance(known, tuple) else known
            assert value == plain, f"{path}.{key} is {value} in conf/ and {plain} in {leaf['_target_']}"
            compared.add(f"{path}.{key}")
    assert {
        "sae.bandwidth",
        "training.schedule.decay",
        "activations.tokens.context",
        "sample_sizes.measured",
    } <= compared


def test_an_ablation_changes_one_choice_of_the_recipe_and_the_sweep_has_them_all() -> None:
    def leaves(config: object, path: str = "") -> dict[str, object]:
        if not isinstance(config, dict):
            return {path: config}
        return {key: value for name, part in config.items() for key, value in leaves(part, f"{path}.{name}").items()}

    default = leaves(OmegaConf.to_container(composed([]), resolve=False))
    names = sorted(file.stem for file in (CONF / "ablation").glob("*.yaml"))
    for name in names:
        changed = leaves(OmegaConf.to_container(composed([f"ablation={name}"]), resolve=False))
        assert changed.keys() == default.keys()
        assert len([key for key in default if default[key] != changed[key]]) == (name != "none"), name
    swept = OmegaConf.load(CONF / "sweep" / "recipe.yaml").hydra.sweeper.params.ablation
    assert sorted(swept.split(",")) == names
