"""Every option of conf/ composes, and every leaf is called with arguments that its target knows."""

import inspect
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

CONF = Path(__file__).parent.parent / "conf"
OPTIONS = sorted(
    f"{file.parent.name}={file.stem}"
    for file in CONF.glob("*/*.yaml")
    if file.parent.name not in ("experiment", "sweep")
)
EXTRAS = sorted(
    f"{file.parent.name}={file.stem}" for group in ("experiment", "sweep") for file in (CONF / group).glob("*.yaml")
)
OF_EVALUATE = {"study", "experiment=paper_table", "experiment=representation_shift", "experiment=capacity"}
MODELS = ("gemma2_2b", "gemma2_9b", "llama31_8b", "smollm2_embedded")


def leaves(node: object):
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from leaves(value)


def composed(overrides: list[str], name: str = "train") -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides)


@pytest.mark.parametrize("option", [*OPTIONS, *EXTRAS])
def test_every_option_binds_to_its_targets(option: str) -> None:
    primary = "evaluate" if {option, option.split("=")[0]} & OF_EVALUATE else "train"
    config = OmegaConf.to_container(composed([option], primary), resolve=False)
    found = list(leaves(config))
    assert len(found) >= 8
    for leaf in found:
        arguments = {key: value for key, value in leaf.items() if not key.startswith("_")}
        target = get_object(leaf["_target_"])
        supplied = {"data": None} if leaf["_target_"].endswith("module.build") else {}
        supplied |= {"callbacks": None} if leaf["_target_"].endswith("Trainer") else {}
        inspect.signature(target).bind(**arguments, **supplied)


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
