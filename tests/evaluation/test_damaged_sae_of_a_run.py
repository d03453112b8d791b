"""Where `sae/` of a run is damaged, the newest whole checkpoint beside it is measured, and the user is told."""

from collections.abc import Callable
from pathlib import Path

import pytest

from atomlab.evaluation import StudyInputs
from atomlab.interop.locate import load_at_site
from atomlab.training.build import reference_metric
from tests.evaluation.test_saes_of_a_study import same, trained

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a flipped bit": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "cut in half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_sae_of_a_run_gives_way_to_its_newest_whole_checkpoint(
    inputs: StudyInputs, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    run, metric = trained(inputs, tmp_path / "run"), reference_metric(inputs.data, inputs.shrinkage)
    whole = load_at_site(run, inputs.data, metric)
    for name in ("sae_weights.safetensors", "cfg.json", "SHA256SUMS"):
        file = run / "sae" / name
        content = file.read_bytes()
        file.write_bytes(DAMAGES[damage](content))
        assert same(load_at_site(run, inputs.data, metric), whole)
        said = capsys.readouterr().err
        assert "is damaged or was changed since it was saved" in said
        assert f"The TSAE of {run / 'checkpoints' / 'last.ckpt'} is used in its place." in said
        with pytest.raises(ValueError, match="is damaged or was changed"):  # asked for by its own name
            load_at_site(run / "sae", inputs.data, metric)
        file.write_bytes(content)
    assert load_at_site(run, inputs.data, metric)
    assert capsys.readouterr().err == ""
