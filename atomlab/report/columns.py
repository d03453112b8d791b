"""The columns of every table: key in a row, header, definition, format of its numbers, and the table it stands in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column: the key in a row, the header, what it means in one sentence, the format of its numbers, and its group.

    Groups are the tables of the report; `closing` marks what train.py prints at its end.
    """

    key: str
    header: str
    definition: str
    format: str = ".3f"
    group: str = "faithfulness"
    closing: bool = False


_R2 = "1 − Σ‖x − x̂‖² / Σ‖x − x̄‖², pooled over vectors and dimensions"
_S = "S is the inverse second moment of the reference corpus, so that every direction counts alike"
_LOWER = "sufficient, so a lower bound"

UNIT = Column("unit", "units", "The set of units, as described in the text below the tables.", closing=True)
_FAITHFULNESS = (
    Column("r2_train", "R² train", f"{_R2}; Euclidean, on training vectors.", closing=True),
    Column("r2_test", "R² held out", "The same on held-out vectors.", closing=True),
    Column("r2_train_s", "R²_S train", f"R² with S-norms on training vectors; {_S}.", closing=True),
    Column("r2_test_s", "R²_S held out", "The same on held-out vectors.", closing=True),
    Column("r2_train_uncentred", "R²₀ train", "1 − Σ‖x − x̂‖² / Σ‖x‖²: about zero instead of the mean, so flattering."),
    Column("r2_test_uncentred", "R²₀ held out", "The same on held-out vectors."),
    Column(
        "loss_recovered_zero",
        "loss rec. (zero)",
        "(L_zero − L_x̂) / (L_zero − L): cross-entropy of the next token when x̂ replaces x, against replacing it by "
        "zero.",
    ),
    Column("loss_recovered_mean", "loss rec. (mean)", "The same against replacing x by the mean training vector."),
    Column(
        "kl",
        "KL",
        "Mean KL divergence in nats from the model's own next-token distribution to that with x̂ in place of x.",
    ),
    Column(
        "loss_gap",
        "L_mean − L",
        "What the mean ablation costs in nats a token: loss recovered divides by it, and where it is near 0 only KL can "
        "be read.",
    ),
    Column("samples_loss", "tokens replaced", "Held-out tokens whose activation is replaced, for loss and KL."),
    Column("samples_compared", "tokens read", "Tokens at or after them, over which loss and KL are means."),
)
_CODES = (
    Column("l0_train", "L0 train", "Mean number of non-zero codes a training vector.", ".1f", "codes"),
    Column("l0", "L0", "The same, a held-out vector.", ".1f", "codes", closing=True),
    Column("l0_median", "L0 median", "Its median.", "d", "codes"),
    Column("l0_q998", "L0 99.8%", "Its 99.8% quantile.", "d", "codes"),
    Column("empty", "K = 0", "Share of held-out vectors without any code: no rate counts them.", ".1%", "codes"),
    Column(
        "dead",
        "dead",
        "Share of units that fire on none of the measured training vectors (n train; more were trained on where there are "
        "more).",
        ".1%",
        "codes",
        closing=True,
    ),
    Column(
        "single_sample",
        "single",
        "Share of units that fire on exactly one of them: memory of one vector where all training vectors are measured.",
        ".1%",
        "codes",
    ),
    Column(
        "consistency",
        "seeds",
        "Mean cosine of the atoms matched one to one (Hungarian) with those of another seed.",
        ".3f",
        "codes",
    ),
    Column(
        "consistency_random",
        "seeds, random",
        "The same between two random dictionaries of this size: the null.",
        ".3f",
        "codes",
    ),
    Column(
        "token_entropy",
        "H token",
        "Median over atoms of the entropy (bits) of the token given that the atom fires.",
        ".2f",
        "codes",
    ),
    Column(
        "token_entropy_null", "H token, null", "The same if the firings fell on tokens drawn at random.", ".2f", "codes"
    ),
    Column(
        "document_entropy",
        "H document",
        "Median entropy (bits) of the document, subject or template given firing.",
        ".2f",
        "codes",
    ),
    Column("document_entropy_null", "H doc., null", "The same if the firings fell at random.", ".2f", "codes"),
    Column(
        "context_agreement",
        "agreement",
        "Median over atoms of the mean cosine of its top contexts' sentence embeddings.",
        ".3f",
        "codes",
    ),
    Column("context_agreement_null", "agr., null", "The same for contexts drawn at random.", ".3f", "codes"),
)
_GEOMETRY = (
    Column(
        "coherence", "μ", "Mutual coherence: the largest |cos_S| of two units; exact.", group="geometry", closing=True
    ),
    Column(
        "coherence_median", "μ_i median", "Median over units of the largest |cos_S| with another.", group="geometry"
    ),
    Column(
        "babel",
        "μ₁(K)",
        "Babel function at the median K: the largest sum of K |cos_S| with one unit; exact.",
        ".2f",
        "geometry",
    ),
    Column("pair_q50", "|cos| 50%", "Median of |cos_S| over all pairs of units.", group="geometry"),
    Column("pair_q99", "|cos| 99%", "Its 99% quantile over pairs.", group="geometry"),
    Column("pair_q999", "|cos| 99.9%", "Its 99.9% quantile over pairs.", group="geometry"),
    Column(
        "stability_pairwise_train",
        "q* pairs, train",
        "Stability over pairs of units with the supports of training vectors, as the paper reports it.",
        ".1%",
        "geometry",
    ),
    Column(
        "stability_pairwise",
        "q* pairs",
        "The same with the supports of held-out vectors: an index, not a certificate.",
        ".1%",
        "geometry",
        closing=True,
    ),
    Column(
        "stability_pairwise_random",
        "q* pairs, random",
        "The same of random atoms of this size at this row's L0, held out.",
        ".1%",
        "geometry",
    ),
    Column(
        "stability_per_atom",
        "q* atoms",
        "Stability over each unit's largest |cos_S|: the stricter reading.",
        ".1%",
        "geometry",
        closing=True,
    ),
    Column(
        "stability_per_atom_random",
        "q* atoms, random",
        "The same of random atoms of this size at this row's L0.",
        ".1%",
        "geometry",
    ),
)
_RECOVERY = (
    Column(
        "certified_level_1",
        "cert. 1",
        f"Share of vectors with μ(2K − 1) < 1: the code is the unique sparsest one and ℓ1 finds it; {_LOWER}.",
        ".1%",
        "recovery",
        closing=True,
    ),
    Column(
        "certified_level_2a", "cert. 2a", f"Share with μ₁(2K − 1) < 1: unique sparsest; {_LOWER}.", ".1%", "recovery"
    ),
    Column(
        "certified_level_2b",
        "cert. 2b",
        f"Share with μ₁(K − 1) + μ₁(K) < 1: unique sparsest, ℓ1 exact; {_LOWER}.",
        ".1%",
        "recovery",
    ),
    Column(
        "certified_level_3",
        "cert. 3",
        f"Share with ERC < 1: ℓ1 recovers every code on this support; {_LOWER}.",
        ".1%",
        "recovery",
    ),
    Column(
        "certified_level_4",
        "cert. 4",
        "Share with a dual certificate: the code is the unique ℓ1-minimal one among non-negative codes (OMP codes have "
        f"signs: among all); {_LOWER}; supports beyond 256 do not count.",
        ".1%",
        "recovery",
        closing=True,
    ),
    Column(
        "certified_level_4_signed",
        "cert. 4 ±",
        f"The same among codes of any sign, the harder test: what compares rows of either kind; {_LOWER}.",
        ".1%",
        "recovery",
        closing=True,
    ),
    Column(
        "solved_level_5",
        "solved 5",
        "Share whose code ℓ1 minimisation returns (solved; implied by level 4).",
        ".1%",
        "recovery",
    ),
    Column(
        "identifiable_a_priori",
        "window",
        "Share of vectors for which μ K δ_max < δ_min − μ(K − 1)δ_max: a threshold must exist.",
        ".1%",
        "recovery",
    ),
    Column(
        "identifiable_shared",
        "one-step",
        "Share whose support {j : ⟨x, d_j⟩_S > τ_j} is the code's, with one τ for all vectors.",
        ".1%",
        "recovery",
    ),
    Column(
        "identifiable_oracle",
        "one-step, own τ",
        "The same with a threshold of each vector's own: an upper bound.",
        ".1%",
        "recovery",
    ),
    Column("r2_s_before_refit", "R²_S codes", "R²_S of these vectors' codes.", group="recovery"),
    Column("r2_s_after_refit", "R²_S refit", "R²_S of the best values on the same supports.", group="recovery"),
)
_ISOMETRY = (
    Column(
        "restricted_isometry_k",
        "δ_K",
        "Interval that contains the restricted isometry constant at the median K: a witness below, Gershgorin above.",
        ".2f",
        "isometry",
        closing=True,
    ),
    Column("restricted_isometry_2k", "δ_2K", "The same for twice as many atoms.", ".2f", "isometry"),
    Column(
        "isometry_unique",
        "δ_2K < 1",
        "Shares of vectors: certified / failed / undecided; < 1 makes the code the unique sparsest.",
        ".0%",
        "isometry",
    ),
    Column("isometry_stable", "δ_2K < 1/√2", "The same for exact and stable ℓ1 recovery.", ".0%", "isometry"),
    Column("isometry_own", "δ(Λ)", "Median isometry constant of the codes' own supports.", ".2f", "isometry"),
    Column(
        "isometry_ratio", "‖x̂‖²/‖δ‖²", "1% and 99% quantiles over the codes: 1 for orthogonal atoms.", ".2f", "isometry"
    ),
)
_SIZES = (
    Column("d_sae", "d_sae", "Number of units.", group="sizes"),
    Column(
        "l0_median",
        "K",
        "Median number of non-zero codes a held-out vector: the K of μ₁, δ_K and δ_2K.",
        ".1f",
        "sizes",
    ),
    Column(
        "samples_train",
        "n train",
        "Training vectors measured, for what is called train, dead and single.",
        group="sizes",
    ),
    Column("samples", "n held out", "Held-out vectors measured, for all that is not named below.", group="sizes"),
    Column(
        "samples_certified",
        "n levels 2 to 4",
        "Of them, with K ≥ 1, for levels 2 to 4, isometry and identifiability.",
        group="sizes",
    ),
    Column("samples_solved", "n level 5", "Of them, with K ≥ 1, for level 5.", group="sizes"),
    Column(
        "samples_browsed", "n entropies", "Held-out vectors read for entropies and the atom browser.", group="sizes"
    ),
    Column("samples_entropy_atoms", "atoms, entropies", "Atoms that fire at least ten times on these.", group="sizes"),
    Column("samples_agreement_atoms", "atoms, agreement", "Atoms whose contexts were embedded.", group="sizes"),
    Column("samples_seeds", "seeds", "Other seeds for consistency.", group="sizes"),
    Column("s_corpus", "S from", "Corpus whose second moment gives the metric S.", group="sizes"),
    Column("s_vectors", "vectors of S", "Its vectors.", group="sizes"),
    Column("shrinkage", "shrinkage", "λ of S = (C + λ tr(C)/d I)⁻¹.", "g", "sizes"),
)
GROUPS = {
    "faithfulness": "Faithfulness",
    "codes": "Codes",
    "geometry": "Geometry and stability",
    "recovery": "Uniqueness, recovery and identifiability",
    "isometry": "Restricted isometry",
    "sizes": "What each row is measured on",
}
COLUMNS = (UNIT, *_FAITHFULNESS, *_CODES, *_GEOMETRY, *_RECOVERY, *_ISOMETRY, *_SIZES)
CLOSING = tuple(column for column in COLUMNS if column.closing)
