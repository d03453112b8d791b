"""The capacity null beside the atoms, in the closing table of a run."""

import json

import pytest

from atomlab.evaluation import Nulls, RunOrigin, StudyInputs, evaluate_run


def test_nulls_are_further_rows_and_change_no_other(inputs: StudyInputs) -> None:
    sae = inputs.retraining.train(inputs.data, seed=0)
    origin = RunOrigin("", {**inputs.identity, "seed": 0})
    tables = []
    for name, nulls in (("without", Nulls()), ("with", Nulls(["data", "gaussian"], inputs.retraining))):
        folder = inputs.folder / name
        folder.mkdir()
        rows, _ = evaluate_run(
            sae, inputs.data, inputs.sample_sizes, folder, shrinkage=1e-3, origin=origin, nulls=nulls
        )
        assert len(json.loads((folder / "results.json").read_text())["rows"]) == len(rows)
        tables.append({row["unit"]: row for row in rows})
    plain, more = tables
    for unit, row in plain.items():
        for key in ("r2", "r2_s", "l0", "certified_level_4"):
            assert more[unit][key] == row[key], (unit, key)
    own = more["Gaussian TSAE on its own"]
    assert {"data + OMP", "data, nearest", "Gaussian TSAE on its own"} <= set(more) - set(plain)
    fitted = min(plain["atoms"]["samples_fitted"], inputs.sample_sizes.controls)
    assert (own["d_sae"], own["samples_fitted"]) == (sae.d_sae, fitted)


def test_an_unknown_null_is_refused(inputs: StudyInputs) -> None:
    with pytest.raises(ValueError, match=r"^nulls names noise: choose from data, k_means, random, gaussian"):
        Nulls(["noise"], inputs.retraining)
    with pytest.raises(ValueError, match=r"^nulls=data is one word: expected a list"):
        Nulls("data")
