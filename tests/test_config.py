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


def leaves(node: object):
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from leaves(value)


def composed(overrides: list[str]) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides)


@pytest.mark.parametrize("option", [*OPTIONS, *EXTRAS])
def test_every_option_binds_to_its_targets(option: str) -> None:
    config = OmegaConf.to_container(composed([option]), resolve=False)
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


def test_evaluate_composes() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("evaluate", ["run=somewhere"]).metrics.samples == 4096
