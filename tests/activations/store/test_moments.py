"""Moments are exact whatever the size of the blocks, are kept on disk with their checksum, and damage is named."""

from pathlib import Path

import numpy as np
import pytest
import torch

from atomlab.activations.store.activation_store import ActivationStore, Rows
from atomlab.activations.store.moments import exact_moments, stored_moments
from tests.activations.store.test_activation_store import harvest


@pytest.mark.parametrize("block", [1, 7, 8192])
def test_moments_are_those_of_numpy_for_any_block(block: int) -> None:
    """With a mean far from zero, so that the uncentred moment is not the covariance."""
    x = torch.randn(61, 5, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, 3.0, -7.0, 1.0, 100.0])
    found, exact = exact_moments(x, block), x.numpy().astype(np.float64)
    assert (found.count, found.mean.dtype, found.second_moment.dtype) == (61, torch.float64, torch.float64)
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.second_moment, exact.T @ exact / 61, rtol=1e-13)


def test_moments_are_computed_once_and_of_the_selected_rows_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = harvest(tmp_path)["train"].double()
    numbers = torch.tensor([0, 4, 5, 16])
    rows, file = (
        Rows(ActivationStore(tmp_path / "point", "train"), numbers),
        tmp_path / "point" / "moments-3.safetensors",
    )
    first = stored_moments(rows, file, tmp_path / "lock")
    torch.testing.assert_close(first.second_moment, x[numbers].T @ x[numbers] / 4, rtol=1e-13, atol=0)
    monkeypatch.setattr("atomlab.activations.store.moments.exact_moments", None)
    again = stored_moments(rows, file, tmp_path / "lock")
    assert again.count == 4
    assert torch.equal(again.mean, first.mean)
    assert torch.equal(again.second_moment, first.second_moment)


def test_moments_of_another_file_or_width_are_refused(tmp_path: Path) -> None:
    """A checksum that fits does not help: the file is another one's, or about vectors of another width."""
    harvest(tmp_path)
    rows = Rows(ActivationStore(tmp_path / "point", "train"), torch.arange(5))
    one, other = (tmp_path / "point" / f"moments-{name}.safetensors" for name in "ab")
    stored_moments(rows, one, tmp_path / "lock")
    other.write_bytes(one.read_bytes())
    other.with_suffix(".json").write_bytes(one.with_suffix(".json").read_bytes())
    with pytest.raises(ValueError, match=r"it is not about moments-b\.safetensors"):
        stored_moments(rows, other, tmp_path / "lock")
    narrow = replace_width(rows, 4)
    with pytest.raises(ValueError, match="these are no moments of vectors of width 4"):
        stored_moments(narrow, one, tmp_path / "lock")


def replace_width(rows: Rows, width: int) -> Rows:
    """The same rows of a store that says that it has another width."""
    rows.store._shards = [shard[:, :width] for shard in rows.store._shards]
    return rows
