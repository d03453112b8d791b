"""The atoms that SAEs share: by hand, by brute force over permutations, and from files."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from atomlab import save_sae
from atomlab.evaluation.consistency import compare, main, metric_of_moments, metric_of_run
from atomlab.identity import FORMAT, write_identity
from atomlab.interop.checkpoint_file import write_checkpoint_file
from atomlab.sae import BaselineSAE, InputTransform, Relu, ThresholdSAE
from atomlab.theory import AtomicInnerProduct


def drawn(rows: int, seed: int, d_in: int = 4) -> torch.Tensor:
    return torch.randn(rows, d_in, generator=torch.Generator().manual_seed(seed)).double()


def best_mean(a: torch.Tensor, b: torch.Tensor) -> float:
    """The best mean cosine over all one-to-one matchings, one by one."""
    cosines = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=2)
    return max(
        float(cosines[range(len(a)), list(chosen)].mean()) for chosen in itertools.permutations(range(len(b)), len(a))
    )


def test_each_pair_and_metric_has_the_best_of_all_matchings() -> None:
    a, b, c = drawn(4, 0), drawn(4, 1), drawn(6, 2)
    metric = AtomicInnerProduct(torch.diag(torch.tensor([1.0, 4.0, 9.0, 0.25]).double()))
    found = compare({"a": a, "b": b, "c": c}, {"euclidean": None, "s": metric})
    white = {name: rows * torch.tensor([1.0, 2.0, 3.0, 0.5]) for name, rows in (("a", a), ("b", b), ("c", c))}
    expected = {
        (x, y, name): best_mean(rows[x], rows[y])
        for name, rows in (("euclidean", {"a": a, "b": b, "c": c}), ("s", white))
        for x, y in (("a", "b"), ("a", "c"), ("b", "c"))
    }
    for pair in found["pairs"]:
        assert pair["mean"] == pytest.approx(expected[pair["a"], pair["b"], pair["metric"]])
        assert sum(pair["histogram"]) == pair["atoms"] == 4
    for name in ("euclidean", "s"):
        of_metric = [value for (_, _, metric_name), value in expected.items() if metric_name == name]
        assert found["pw_mcc"][name] == pytest.approx(sum(of_metric) / 3)


def test_the_same_atoms_in_another_order_are_all_found_and_their_negatives_are_not() -> None:
    a = torch.eye(4)
    found = compare({"a": a, "b": 3 * a.flip(0)}, {"euclidean": None})
    assert found["pairs"][0]["share"] == 1
    assert found["pairs"][0]["histogram"] == [0] * 39 + [4]
    assert compare({"a": a, "b": -a}, {"euclidean": None})["pw_mcc"]["euclidean"] == pytest.approx(0)
    with pytest.raises(ValueError, match="two SAEs or more, got 1"):
        compare({"a": a}, {"euclidean": None})
    with pytest.raises(ValueError, match="a has d_in=4, b has d_in=3"):
        compare({"a": a, "b": torch.eye(3)}, {"euclidean": None})


def test_files_of_several_kinds_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = ThresholdSAE(4, 9), BaselineSAE(4, 9, Relu())
    second.start_from_(first.W_dec.detach().flip(0))
    save_sae(first, tmp_path / "run" / "sae", {})
    save_sae(second, tmp_path / "relu", {})
    x = drawn(50, 3)
    moment = x.T @ x / 50
    save_file({"second_moment": moment, "count": torch.tensor(50)}, tmp_path / "moments.safetensors")
    torch.testing.assert_close(metric_of_moments(tmp_path / "moments.safetensors").matrix, torch.linalg.inv(moment))
    names = [str(tmp_path / "run"), str(tmp_path / "relu")]
    assert main(names) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["pw_mcc"] == {"euclidean": pytest.approx(1)}
    assert plain["provenance"]["metric_s"] == "not known"
    assert set(plain["provenance"]["sha256"][names[0]]) == {"cfg.json", "sae_weights.safetensors", "SHA256SUMS"}
    output = tmp_path / "found.json"
    assert main([*names, "--moments", str(tmp_path / "moments.safetensors"), "--output", str(output)]) == 0
    assert json.loads(output.read_text())["pw_mcc"]["s"] == pytest.approx(1)


@pytest.mark.parametrize("alpha", [1.0, 0.5, 0.0])
def test_the_metric_of_a_run_is_that_of_its_coordinates(tmp_path: Path, alpha: float) -> None:
    """The checkpoint has c·S^(α/2); S itself differs from what is read by a factor alone, which no cosine shows."""
    x = drawn(50, 4)
    metric = AtomicInnerProduct.from_second_moment(x.T @ x / 50)
    transform = InputTransform.scaled(x.mean(0), metric.power(alpha / 2), metric.power(-alpha / 2), x.T @ x / 50)
    (tmp_path / "checkpoints").mkdir()
    state = {f"sae.{name}": value for name, value in ThresholdSAE(4, 6).state_dict().items()}
    state |= {f"transform.{name}": value for name, value in transform.state_dict().items()}
    parts = {"state_dict": state, "optimizer_states": [], "loops": {}, "global_step": 1}
    write_checkpoint_file(parts, tmp_path / "checkpoints" / "last.ckpt")
    assert metric_of_run(tmp_path) is None  # no record of a run
    write_identity(tmp_path, {"format": FORMAT, "sae": {"inputs": "scaled", "alpha": alpha}})
    found = metric_of_run(tmp_path)
    if alpha == 0:
        assert found is None
    else:
        assert found is not None
        ratio = found.matrix / metric.matrix
        torch.testing.assert_close(ratio, ratio[0, 0].expand(4, 4), rtol=1e-4, atol=0)


def test_a_mistake_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nothing"), str(tmp_path / "nothing")]) == 1
    assert "nothing does not exist" in capsys.readouterr().err
    save_sae(ThresholdSAE(4, 5), tmp_path / "a", {})
    save_sae(ThresholdSAE(4, 5), tmp_path / "b", {})
    save_file({"mean": torch.zeros(4)}, tmp_path / "moments.safetensors")
    words = [str(tmp_path / "a"), str(tmp_path / "b"), "--moments", str(tmp_path / "moments.safetensors")]
    assert main(words) == 1
    assert "has mean: expected second_moment" in capsys.readouterr().err
    save_file({"second_moment": torch.eye(3)}, tmp_path / "moments.safetensors")
    assert main(words) == 1
    assert "of width 3 and the SAEs of 4" in capsys.readouterr().err
