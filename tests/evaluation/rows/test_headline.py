"""The numbers and figures at the top of a report: each is the row's own, with its interval and the surrogate beside it."""

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from atomlab.evaluation.rows.conclusion import conclude
from atomlab.evaluation.rows.headline import headline, overview_figures
from atomlab.evaluation.rows.rates_by_support_size import in_bins


def row(unit: str, r2: float, certified: float | None, **others: Any) -> dict[str, Any]:
    ends = {"low": r2 - 0.125, "high": r2 + 0.0625}
    return {
        "unit": unit, "coder": "one-step", "signed": False, "l0": 12.5, "d_sae": 2000, "samples_documents": 9,
        "r2": r2, "r2_s": r2 - 0.25, "r2_train": r2 + 0.125, "r2_s_train": r2 - 0.125, "r2_interval": ends,
        "r2_s_interval": None, "l0_interval": {"low": 12.25, "high": 12.75}, "certified_level_4": certified,
        "certified_level_4_interval": None if certified is None else {"low": certified - 0.125, "high": certified},
        "level_4_by_k": None if certified is None else {"samples": [5, 0, 40, 40], "rate": [0.0, 0.0, 1.0, 0.5]},
    } | others  # fmt: skip


ROWS = [
    row("atoms", 0.75, 0.875),
    row("neurons", 1.0, None, l0=576.0),
    row("atoms + pursuit", 0.8125, 0.75),
    row("random + OMP", -0.5, 0.0625, signed=True, coder="OMP"),
    row("Gaussian TSAE", 0.25, 0.859375),
]


def test_the_certified_rate_stands_beside_the_surrogates() -> None:
    facts = {fact.name: fact for fact in headline(ROWS)}
    r2 = facts["R² held out"]
    assert (r2.value, r2.interval) == ("75.0%", "[62.5%, 81.2%]")
    assert r2.beside == "atoms + pursuit 81.2%; Gaussian TSAE 25.0%; random + OMP -50.0%"
    assert facts["R² held out, S-norm"].interval == ""
    certified = facts["Codes certified as the unique one (level 4)"]
    assert (certified.value, certified.interval) == ("87.5%", "[75.0%, 87.5%]")
    assert "Gaussian TSAE 85.9%" in certified.beside
    assert "neurons" not in "".join(fact.beside for fact in facts.values())
    said = conclude(ROWS)
    assert "87.5% [75.0%, 87.5%] of the vectors the code is certified" in said
    assert "85.9% [73.4%, 85.9%] with the Gaussian TSAE" in said
    assert "Gaussian TSAE" not in conclude(ROWS[:3])
    without = [row("atoms", 0.75, None)]
    assert [fact.name for fact in headline(without)] == ["R² held out", "R² held out, S-norm", "L0: atoms a vector"]
    assert len(overview_figures(without)) == 2


@pytest.mark.parametrize(("runs", "said"), [(3, "(37.5% to 50.0% in 3 runs)"), (1, "(one other run, so no range)")])
def test_atoms_that_come_back_have_the_range_over_the_other_runs(runs: int, said: str) -> None:
    shares = {"consistency_share_runs": {"value": 0.4375, "low": 0.375, "high": 0.5}, "consistency_share": 0.4375}
    fact = headline([row("atoms", 0.75, None, samples_seeds=runs, consistency_share_random=0.0, **shares)])[-1]
    assert (fact.value, fact.interval, fact.beside) == ("43.8%", said, "random dictionaries 0.0%")


def test_the_figures_draw_the_numbers_of_the_rows() -> None:
    drawn = [draw() for draw in overview_figures(ROWS).values()]
    assert len(drawn) == 3
    sparsity, rates, memory = drawn
    points = [container.lines[0].get_xydata() for container in sparsity.axes[0].containers]
    assert np.concatenate(points).tolist() == [[12.5, 0.75], [12.5, 0.8125], [12.5, 0.25]]  # below −0.25: an arrow
    assert [text.get_text() for text in sparsity.axes[0].texts] == ["↓"]
    first = rates.axes[0].containers[0].lines[0].get_xydata().tolist()
    assert [y for _, y in first] == [1.0, 0.5]
    assert [text.get_text() for text in rates.axes[0].texts] == ["n=40", "n=40"]
    in_sample = [line.get_xydata().tolist() for line in memory.axes[0].lines if line.get_marker() != "None"]
    assert [[0.875, 0.75]] in in_sample
    for figure in drawn:  # a legend is no half of the figure
        figure.draw_without_rendering()
        box = figure.legends[0].get_window_extent()
        assert box.height < 0.25 * figure.bbox.height


@pytest.mark.parametrize("bins", [1, 4, 8])
def test_bins_hold_every_vector_once_with_wilsons_interval(bins: int) -> None:
    generator = np.random.default_rng(0)
    counts = generator.integers(0, 9, size=60)
    certified = generator.binomial(counts, 0.7)
    rates = np.divide(certified, counts, out=np.zeros(60), where=counts > 0)
    found = in_bins({"samples": counts.tolist(), "rate": rates.tolist()}, bins)
    assert sum(one["samples"] for one in found) == counts[1:].sum()
    assert abs(len(found) - bins) <= 1
    z = NormalDist().inv_cdf(0.975)
    for one, following in zip(found, [*found[1:], None], strict=True):
        inside = slice(one["low"], one["high"] + 1)
        n, k = counts[inside].sum(), certified[inside].sum()
        assert (one["samples"], one["rate"]) == (n, pytest.approx(k / n))
        middle, half = (k + z * z / 2) / (n + z * z), z / (n + z * z) * (k * (n - k) / n + z * z / 4) ** 0.5
        assert one["interval"] == pytest.approx((middle - half, middle + half))
        assert following is None or following["low"] > one["high"]
