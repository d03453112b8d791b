"""Statistics of SmolLM2's residual stream over its layers as a figure: `python -m benchmarks.site_statistics FILE.png`.

Position 0 is kept here, to show why it is left out by default.
"""

import json
import sys
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

from atomlab.activations.corpora.wikipedia import WikipediaEmbedded
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.harvest.cache import HarvestOptions
from atomlab.activations.model.hook_points import HookPoints
from atomlab.activations.model.smollm2 import smollm2
from atomlab.activations.store.outliers import Outliers
from atomlab.activations.store.statistics import LEVELS, SiteStatistics, site_statistics
from atomlab.activations.tokens.tokenise import TokenRules

LAYERS, ROWS, RATIO = (0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 29), 20_000, 10.0
_SHOWN = {0: "#0072B2", 9: "#009E73", 18: "#E69F00", 27: "#D55E00", 29: "#000000"}


def statistics() -> dict[int, SiteStatistics]:
    model, corpus = smollm2("~/.cache/atomlab"), WikipediaEmbedded()
    with tempfile.TemporaryDirectory() as folder:
        data = ActivationDataModule(
            model,
            corpus,
            corpus,
            hook_points=HookPoints(site="resid_post", layer=LAYERS[-1], layers=LAYERS),
            tokens=TokenRules(max_tokens=ROWS, drop_first=False),
            outliers=Outliers(max_norm_ratio=RATIO),
            harvest=HarvestOptions(cache_dir=folder),
        )
        data.prepare_data()
        result = {}
        for layer in LAYERS:
            rows, moments = data.harvests.open(corpus, data.at("resid_post", layer).point, Outliers(RATIO))
            result[layer] = site_statistics(rows["train"].store, moments, Outliers(RATIO))
        return result


def draw(found: dict[int, SiteStatistics]) -> Figure:
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    norms, sinks, spectrum = figure.subplots(1, 3)
    of = {level: [s.norm_quantiles[i] for s in found.values()] for i, level in enumerate(LEVELS)}
    layers = list(found)
    norms.fill_between(layers, of[0.01], of[0.9], color="#0072B2", alpha=0.25, label="1% to 90%")
    norms.semilogy(layers, of[0.5], color="#0072B2", label="median")
    norms.semilogy(layers, of[1.0], "v", color="#D55E00", label="largest")
    norms.semilogy(layers, [s.mean_norm for s in found.values()], ":", color="black", label="norm of the mean")
    norms.set(xlabel="layer", ylabel="norm", title="Norms, position 0 included")
    first = [dict(s.outlier_positions).get(0, 0) for s in found.values()]
    other = [s.outliers - count for s, count in zip(found.values(), first, strict=True)]
    sinks.bar(layers, first, width=2, color="#D55E00", label="at position 0 (attention sink)")
    sinks.bar(layers, other, width=2, bottom=first, color="#999999", label="elsewhere")
    sinks.set(xlabel="layer", ylabel="rows", title=f"Outliers: norm above {RATIO:.0f} medians")
    for layer, colour in _SHOWN.items():
        s = found[layer]
        label = f"layer {layer}: cond. {s.condition_number:.1e}, eff. rank {s.effective_rank:.0f}"
        spectrum.loglog(
            range(1, len(s.eigenvalues) + 1), s.eigenvalues / s.eigenvalues.sum(), color=colour, label=label
        )
    spectrum.set(xlabel="number", ylabel="share of the trace", title="Eigenvalues of E[x xᵀ], outliers left out")
    for axes in (norms, sinks, spectrum):
        axes.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    found = statistics()
    for layer, s in found.items():
        line = {
            "layer": layer, "rows": s.rows, "median norm": s.norm_quantiles[3], "largest norm": s.norm_quantiles[-1],
            "outliers": s.outliers, "at positions": dict(s.outlier_positions[:3]), "norm of the mean": s.mean_norm,
            "condition number": s.condition_number, "effective rank": s.effective_rank,
        }  # fmt: skip
        sys.stdout.write(json.dumps(line) + "\n")
    draw(found).savefig(Path(sys.argv[1]), dpi=110)
