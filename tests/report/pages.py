"""A report with everything in it, and text that tries to break out of it."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from atomlab.report import (
    COLUMNS,
    AtomBrowser,
    AtomColumn,
    Fact,
    Page,
    Results,
    coherence_figure,
    memory_figure,
    png,
    sparsity_figure,
    spectrum_figure,
    thresholds_figure,
    write_report,
)

EVIL = '<script>window.broken = 1</script>"><img src=x onerror="window.broken = 2"></script><!--'
ROW: dict[str, Any] = {column.key: 0.25 for column in COLUMNS} | {
    "unit": EVIL,
    "l0_median": 3,
    "l0_q998": 9,
    "babel": {"k": 3, "value": 0.5},
    "restricted_isometry_k": {"k": 3, "low": 0.5, "high": 1.5},
    "restricted_isometry_2k": {"k": 6, "low": 0.5, "high": 1.5},
    "isometry_ratio": {"k": 3, "low": 0.5, "high": 1.5},
    "isometry_unique": {"certified": 0.25, "failed": 0.5, "undecided": 0.25},
    "isometry_stable": {"certified": 0.0, "failed": 0.5, "undecided": 0.5},
    "samples": 9,
    "coder": "one-step",
    "signed": False,
    "against": "atoms",
    "r2_difference": {"value": 0.25, "low": -0.125, "high": 0.5},
    "r2_s_difference": {"value": -0.25, "low": None, "high": None},
    **{column.key: {"low": 0.125, "high": 0.5} for column in COLUMNS if column.key.endswith("_interval")},
}
ROWS = [
    ROW,
    ROW | {"unit": "neurons", "coherence": float("nan"), "certified_level_4": None},
    ROW | {"unit": "c", "coherence": 10.5, "certified_level_4": 1.0},
    ROW | {"unit": "10 of d", "coherence": None, "certified_level_4": None},
    ROW | {"unit": "e", "coherence": 9.25, "certified_level_4": 0.5},
    ROW | {"unit": "9 of f", "coherence": -0.5, "certified_level_4": 0.0},
]


def atoms(count: int, contexts: int = 8, length: int = 23) -> AtomBrowser:
    """Browser data of `count` atoms: rates rise in an order of their own, atom 7 never fires, the first text is evil.

    There are 2,000 documents of 40 tokens. Atom i fires on token i mod 2000, and document d has word d at its place 16 and
    random words else; the contexts of an atom are in other documents too.
    """
    rng = np.random.default_rng(0)
    words = [EVIL, *(f" word{i}" for i in range(2000))]
    tokens = rng.integers(1, len(words), size=(2000, 40))
    tokens[:, 16] = np.arange(2000) + 1
    tokens[0, :16] = 0
    rate = (np.arange(count) * 7919 % count) / count
    kinds, documents = (
        [0, 0, 0, 4, 3, 2, 1, 5, 0, 0, 0, 0, 0, 4, 3, 2, 1, 5, 5, 5],
        rng.integers(0, 2000, size=(count, contexts)),
    )
    documents[:, 0] = np.arange(count) % 2000
    values = np.round(rng.random((count, contexts)) + 0.5, 2)
    values[:, 0] = 1.5

    return AtomBrowser(
        samples=1000,
        columns=[
            AtomColumn("atom", "atom", EVIL, list(range(count))),
            AtomColumn("rate", "rate", EVIL, rate.tolist()),
            AtomColumn("h_token", "h_token", EVIL, [math.nan if i == 7 else float(i % 5) for i in range(count)]),
            AtomColumn("max", "max", EVIL, [1.5] * count),
            AtomColumn("threshold", "θ", EVIL, [0.5] * count),
            AtomColumn(
                "telling", "telling", EVIL, [math.nan if i == 7 else float((i * 31) % count) for i in range(count)]
            ),
            AtomColumn("seeds", "seeds", EVIL, [math.nan if i == 7 else 0.8 for i in range(count)]),
        ],
        histograms=[[0] * 20 if i == 7 else [0, 0, 9, *([1] * 17)] for i in range(count)],
        nearest=[[((i + 1) % count, -0.5), ((i + 2) % count, 0.25)] for i in range(count)],
        maps=[[0.5, -0.5, -0.25, 0.25, 0.0, 0.75] for _ in range(count)],
        raised=[[(i % 2000 + 1, 2.5), (0, 1.5)] for i in range(count)],
        lowered=[[(0, -1.5)] for _ in range(count)],
        contexts=[
            []
            if i == 7
            else [
                [kind, int(document) * 40 + 16, -2, 0.5, 0, value]
                for kind, document, value in zip(kinds[:contexts], documents[i], values[i].tolist(), strict=True)
            ]
            for i in range(count)
        ],
        tokens=tokens.ravel().tolist(),
        starts=list(range(0, 80_000, 40)),
        window=(16, length - 17),
        vocabulary=words,
    )


def write(path: Path, count: int, contexts: int = 8) -> None:
    figures = {
        EVIL: png(coherence_figure({"atoms": np.linspace(0, 1, 50)}, 0.1)),
        "b": png(thresholds_figure(np.ones(9), np.zeros(9))),
        "c": png(spectrum_figure(np.arange(9.0))),
    }
    page = Page(
        EVIL,
        configuration=EVIL,
        notes={EVIL: EVIL},
        browser=atoms(count, contexts),
        facts=[Fact(EVIL, EVIL, EVIL, EVIL)],
        overview=("b",),
        missing=[EVIL],
    )
    write_report(path, Results(ROWS, conclusion=EVIL, provenance={EVIL: EVIL}, identity={}), page, figures)


def write_first_screen(path: Path) -> None:
    """A page whose top has what the closing table of a real run puts there, in the lengths that it has."""
    verdict = (
        "Atoms in the S-norm: R² 61.5% held out and 68.4% in sample. Beyond what random atoms lose, 5.2% of it is memory. "
        "Against k-means + OMP, whose codes may be negative, the atoms' pursuit codes have .042 [.034, .051] more of R² and "
        ".093 [.074, .113] more in the S-norm. One-step codes: .013 [−.002, .027] and −.005 [−.019, .008]. "
    ) * 2
    beside = "atoms + pursuit 85.8%; Gaussian TSAE on its own 82.1%; k-means + OMP 81.6%; random + OMP 26.1%"
    facts = [
        Fact(name, "82.9%", "[81.0%, 84.6%]", beside)
        for name in ("R² held out", "R² held out, S-norm", "Codes certified")
    ]
    facts.append(Fact("L0: atoms a vector", "42.9", "[41.0, 44.6]", "of 2,304 atoms"))
    points = [
        {"unit": f"{source} + {coder}", "source": source, "coder": coder, "l0": 40.0, "r2": 0.8, "r2_s": 0.6}
        | {"r2_train": 0.8, "r2_s_train": 0.6, "r2_interval": None, "r2_s_interval": None}
        for source in ("atoms", "k-means", "data", "random")
        for coder in ("own codes", "pursuit", "OMP")
    ]
    captions = (
        "R² against L0, " * 6,
        "Codes certified against their size, " * 5,
        "R² held out against in sample, " * 4,
    )
    figures = {captions[0]: png(sparsity_figure(points)), captions[2]: png(memory_figure(points))}
    figures[captions[1]] = png(coherence_figure({"atoms": np.linspace(0, 1, 50)}, 0.1))
    page = Page("The trained atoms beside their controls", "", facts=facts, overview=captions)
    write_report(path, Results(ROWS, conclusion=verdict, provenance={}, identity={}), page, figures)
