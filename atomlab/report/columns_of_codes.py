"""Columns about reconstructions and codes, and about what a row is measured on."""

from atomlab.report.column import Column

_R2 = "1 − Σ‖x − x̂‖² / Σ‖x − x̄‖², pooled over vectors and dimensions"
_S = "S is the inverse second moment of the reference corpus, so that every direction counts alike"

FAITHFULNESS = (
    Column("r2_train", "R² train", f"{_R2}; Euclidean, on training vectors.", closing=True),
    Column("r2", "R² held out", "The same on held-out vectors.", closing=True),
    Column("r2_s_train", "R²_S train", f"R² with S-norms on training vectors; {_S}.", closing=True),
    Column("r2_s", "R²_S held out", "The same on held-out vectors.", closing=True),
    Column(
        "memory",
        "memory",
        "(R² train − R² held out) less the same of random + OMP, which cannot remember: held-out text may be harder for "
        "any dictionary, and only the excess is memory. Around or below 0: no sign of it.",
        closing=True,
    ),
    Column("memory_s", "memory_S", "The same in the S-norm.", closing=True),
    Column(
        "r2_s_validation",
        "R²_S validation",
        "R² with S-norms on validation vectors, which choices between runs go by: held-out vectors serve no choice.",
    ),
    Column("r2_uncentred_train", "R²₀ train", "1 − Σ‖x − x̂‖² / Σ‖x‖²: about zero instead of the mean, so flattering."),
    Column("r2_uncentred", "R²₀ held out", "The same on held-out vectors."),
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
CODES = (
    Column("l0_train", "L0 train", "Mean number of non-zero codes a training vector.", ".1f", "codes"),
    Column("l0", "L0", "The same, a held-out vector.", ".1f", "codes", closing=True),
    Column("l0_median", "L0 median", "Its median.", "d", "codes"),
    Column("l0_q998", "L0 99.8%", "Its 99.8% quantile.", "d", "codes"),
    Column("empty", "K = 0", "Share of held-out vectors without any code: no rate counts them.", ".1%", "codes"),
    Column(
        "dead_train",
        "dead",
        "Share of units that fire on none of the measured training vectors (n train; more were trained on where there are "
        "more).",
        ".1%",
        "codes",
        closing=True,
    ),
    Column(
        "single_sample_train",
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
SIZES = (
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
    Column(
        "samples_fitted",
        "n fitted",
        "Training vectors that the units were fitted to: those of the run for the atoms, the same ones (up to "
        "sample_sizes.controls) for the controls.",
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
