"""A model that is spread over memory and disk computes what it computes on one device."""

from pathlib import Path
from typing import Any

import pytest
import torch

from atomlab.activations.model.language_model import LanguageModel
from tests import spread_model
from tests.spread_model import harvested, on_disk, spread

ON_DISK = on_disk(0, 2)


@pytest.fixture
def whole(tiny: Path) -> LanguageModel:
    return spread_model.whole(tiny)


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}, ON_DISK], ids=["auto", "cpu", "disk"])
@torch.no_grad()
def test_logits_are_the_same_to_the_bit(tiny: Path, whole: LanguageModel, tmp_path: Path, device_map: Any) -> None:
    """As the evaluation loads a model: all layers and the head."""
    ids = torch.arange(4, 40)[None]
    model = spread(tiny, tmp_path, device_map).load()
    assert (device_map == ON_DISK) == any(weight.is_meta for weight in model.parameters())
    assert torch.equal(model(ids).logits, whole.load()(ids).logits)


def test_a_harvest_is_the_same_to_the_bit_and_has_the_same_name(
    tiny: Path, whole: LanguageModel, tmp_path: Path
) -> None:
    stores = []
    for number, model in enumerate((whole, spread(tiny, tmp_path / "disk", ON_DISK))):
        data = harvested(tiny, model, tmp_path / str(number), layer=2)
        stores.append((data.sample("train", 500), data.folder(data.corpus).name))
    assert torch.equal(stores[0][0], stores[1][0])
    assert stores[0][1] == stores[1][1]


def test_a_first_module_on_the_disk_is_refused(tiny: Path, tmp_path: Path) -> None:
    model = spread(tiny, tmp_path, ON_DISK | {"model.embed_tokens": "disk"})
    with pytest.raises(ValueError, match=r"puts the first module of model on the disk, and tokens are given to cpu"):
        model.load()


def test_without_accelerate_it_is_refused_at_once(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atomlab.activations.model.placement.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"model\.device_map=auto needs the package accelerate: pip install accelerate\."
    ):
        spread(tiny, tmp_path, "auto")
