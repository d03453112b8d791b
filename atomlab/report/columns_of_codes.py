"""Defines the columns about reconstructions and codes, and about what a row is measured on."""

from atomlab.report.column_type import RESAMPLED, Column

_R2 = "1 − Σ‖x − x̂‖² / Σ‖x − x̄‖², pooled over vectors and dimensions"
_S = "S is the inverse second moment of the reference corpus, so that every direction counts alike"
_INDEPENDENT = "; runs with starts of their own."
_SHARED = "; runs that start from the same atoms, so that like ends prove little."

FAITHFULNESS = (
    Column("r2_train", "R² train", f"{_R2}; Euclidean, on training vectors.", closing=True),
    Column("r2", "R² held out", f"{_R2}; Euclidean, on held-out vectors.", closing=True),
    Column("r2_interval", "R² 95%", f"95% interval of R² held out; {RESAMPLED}."),
    Column("r2_s_train", "R²_S train", f"R² with S-norms on training vectors; {_S}.", closing=True),
    Column("r2_s", "R²_S held out", f"R² with S-norms on held-out vectors; {_S}.", closing=True),
    Column("r2_s_interval", "R²_S 95%", f"95% interval of R²_S held out; {RESAMPLED}."),
    Column(
        "r2_difference",
        "Δ R²",
        "R² held out of the atoms less that of the row, with its 95% interval over the same resampled documents. The atoms are "
        "coded like the row, or for OMP with the best of their non-negative codes (column “against”). Where the interval lies "
        "above 0, the atoms explain more.",
        "+.3f",
    ),
    Column("r2_s_difference", "Δ R²_S", "The same difference of R²_S held out.", "+.3f"),
    Column("against", "against", "The row of the atoms that Δ R² and Δ R²_S compare this row with."),
    Column(
        "r2_vector_median",
        "R² median",
        "Median over held-out vectors of 1 − ‖x − x̂‖² / ‖x − x̄‖²: every vector counts alike, large or small.",
    ),
    Column("r2_vector_q10", "R² 10%", "10% quantile over held-out vectors of 1 − ‖x − x̂‖² / ‖x − x̄‖²."),
    Column("r2_s_vector_median", "R²_S median", "The same median with S-norms."),
    Column("r2_s_vector_q10", "R²_S 10%", "The same 10% quantile with S-norms."),
    Column(
        "memory",
        "memory",
        "R² train − R² held out, less the same difference of random + OMP, which cannot memorise. Held-out text may be harder "
        "for any dictionary, so only the excess is memory. Around or below 0, there is no sign of it.",
        closing=True,
    ),
    Column(
        "memory_s", "memory_S", "R²_S train − R²_S held out, less the same difference of random + OMP.", closing=True
    ),
    Column(
        "r2_s_validation",
        "R²_S validation",
        "R² with S-norms on validation vectors. Choices between runs go by it, so that none of them uses held-out vectors.",
    ),
    Column(
        "r2_uncentred_train",
        "R²₀ train",
        "1 − Σ‖x − x̂‖² / Σ‖x‖² on training vectors: it also counts the mean as explained, so it is larger than R².",
    ),
    Column("r2_uncentred", "R²₀ held out", "1 − Σ‖x − x̂‖² / Σ‖x‖² on held-out vectors."),
    Column(
        "loss_recovered_zero",
        "loss rec. (zero)",
        "(L_zero − L_x̂) / (L_zero − L), where L is the cross-entropy of the next token, L_x̂ that with x̂ in place of x and "
        "L_zero that with zero in place of x.",
    ),
    Column(
        "loss_recovered_mean",
        "loss rec. (mean)",
        "(L_mean − L_x̂) / (L_mean − L), where L_mean is the cross-entropy with the mean training vector in place of x.",
    ),
    Column(
        "kl",
        "KL",
        "Mean KL divergence in nats from the model's own next-token distribution to that with x̂ in place of x.",
    ),
    Column(
        "loss_gap",
        "L_mean − L",
        "What replacing x by the mean training vector costs, in nats a token. Loss recovered divides by it, so only KL is "
        "meaningful where it is near 0.",
    ),
    Column(
        "samples_loss", "tokens replaced", "Number of held-out tokens whose activation is replaced for loss and KL."
    ),
    Column(
        "samples_compared",
        "tokens read",
        "Number of tokens at or after the replaced ones, over which loss and KL are means.",
    ),
)
CODES = (
    Column(
        "coder",
        "coder",
        "How codes are found. one-step: a threshold on each latent. refit, pursuit: non-negative least squares on chosen "
        "atoms, in one or four stages; stepwise pursuit: in as many stages as the L0. OMP: orthogonal matching pursuit, one "
        "atom at a time.",
        group="codes",
    ),
    Column(
        "signed", "signed", "Whether values may be negative, which makes two directions of each atom.", group="codes"
    ),
    Column("l0_train", "L0 train", "Mean number of non-zero codes of a training vector.", ".1f", "codes"),
    Column("l0", "L0", "Mean number of non-zero codes of a held-out vector.", ".1f", "codes", closing=True),
    Column("l0_interval", "L0 95%", f"95% interval of L0; {RESAMPLED}.", ".1f", "codes"),
    Column("l0_median", "L0 median", "Median number of non-zero codes of a held-out vector.", "d", "codes"),
    Column("l0_q998", "L0 99.8%", "99.8% quantile of the number of non-zero codes of a held-out vector.", "d", "codes"),
    Column(
        "empty",
        "K = 0",
        "Share of held-out vectors whose codes are all zero. No certified rate counts them.",
        ".1%",
        "codes",
    ),
    Column(
        "dead",
        "dead",
        "Share of units with one-step codes that fire on none of many training vectors (n fired).",
        ".1%",
        "codes",
        closing=True,
    ),
    Column(
        "single_sample",
        "single",
        "Share of units with one-step codes that fire on exactly one of many training vectors (n fired). If these are all, such "
        "a unit remembers a single vector.",
        ".1%",
        "codes",
    ),
    *(
        Column(f"{key}{end}", f"{header}{where}", f"{definition}{meaning}", form, "codes")
        for end, where, meaning in (("", "", _INDEPENDENT), ("_shared_start", ", one start", _SHARED))
        for key, header, definition, form in (
            ("consistency", "seeds", "Mean cosine of the atoms with those of another seed, matched one to one", ".3f"),
            ("consistency_share", "came back", "Share of the atoms whose matched cosine is above .7", ".1%"),
            ("consistency_share_runs", "came back, runs", "The same: mean and range over the other runs", ".1%"),
            (
                "consistency_subspace",
                "in span",
                "Mean share of an atom's squared length in the span of its nearest 8 atoms of another seed",
                ".3f",
            ),
            ("stable", "stable", "Share of the atoms that came back in more than half of the other runs", ".1%"),
        )
    ),
    Column(
        "consistency_random",
        "seeds, random",
        "Mean matched cosine of two random dictionaries of this size: the null of the column “seeds”.",
        ".3f",
        "codes",
    ),
    Column(
        "consistency_share_random",
        "came back, random",
        "Share of the atoms of two random dictionaries whose matched cosine is above .7.",
        ".1%",
        "codes",
    ),
    Column(
        "consistency_subspace_random",
        "in span, random",
        "The column “in span” for two random dictionaries of this size.",
        ".3f",
        "codes",
    ),
    Column(
        "r2_of_stable",
        "R² of stable",
        "R² held out if all but the stable atoms are left out of the codes.",
        group="codes",
    ),
    Column("r2_s_of_stable", "R²_S of stable", "The same with S-norms.", group="codes"),
    Column("r2_seeds", "R² seeds", "Mean R² held out over all seeds, and its range (no interval).", group="codes"),
    Column("r2_s_seeds", "R²_S seeds", "Mean R²_S held out over all seeds, and its range.", group="codes"),
    Column("l0_seeds", "L0 seeds", "Mean L0 over all seeds, and its range.", ".1f", "codes"),
    Column(
        "token_entropy",
        "H token",
        "Median over atoms of the entropy (bits) of the token given that the atom fires.",
        ".2f",
        "codes",
    ),
    Column(
        "token_entropy_null",
        "H token, null",
        "Median over atoms of the entropy (bits) of the token if the firings fell on tokens drawn at random.",
        ".2f",
        "codes",
    ),
    Column(
        "document_entropy",
        "H document",
        "Median over atoms of the entropy (bits) of the document, subject or template given that the atom fires.",
        ".2f",
        "codes",
    ),
    Column(
        "document_entropy_null",
        "H doc., null",
        "Median over atoms of the entropy (bits) of the document, subject or template if the firings fell at random.",
        ".2f",
        "codes",
    ),
    Column(
        "context_agreement",
        "agreement",
        "Median over atoms of the mean cosine between the sentence embeddings of the atom's strongest contexts.",
        ".3f",
        "codes",
    ),
    Column(
        "context_agreement_null",
        "agr., null",
        "Median of the mean cosine between contexts drawn at random.",
        ".3f",
        "codes",
    ),
)
SIZES = (
    Column("d_sae", "d_sae", "Number of units.", group="sizes"),
    Column(
        "l0_median",
        "K",
        "Median number of non-zero codes of a held-out vector: the K of μ₁, δ_K and δ_2K.",
        ".1f",
        "sizes",
    ),
    Column(
        "samples_train",
        "n train",
        "Number of training vectors measured, for every column called train.",
        group="sizes",
    ),
    Column(
        "samples_fired",
        "n fired",
        "Number of training vectors on which the columns dead and single are counted.",
        group="sizes",
    ),
    Column(
        "samples_fitted",
        "n fitted",
        "Number of training vectors that the units were fitted to: all of the run for the atoms, at most "
        "sample_sizes.controls of them for the controls.",
        group="sizes",
    ),
    Column(
        "samples",
        "n held out",
        "Number of held-out vectors measured, for every number without a sample size of its own.",
        group="sizes",
    ),
    Column(
        "samples_documents",
        "documents",
        "Number of documents, subjects or templates that the held-out vectors come from. Intervals resample them, joined to 200 "
        "where there are more.",
        group="sizes",
    ),
    Column(
        "samples_certified",
        "n levels 2 to 4",
        "Number of held-out vectors with K ≥ 1 that levels 2 to 4, isometry and identifiability are measured on.",
        group="sizes",
    ),
    Column(
        "samples_solved",
        "n level 5",
        "Number of held-out vectors with K ≥ 1 that level 5 is measured on.",
        group="sizes",
    ),
    Column(
        "samples_browsed",
        "n entropies",
        "Number of held-out vectors searched for entropies and the atom browser.",
        group="sizes",
    ),
    Column(
        "samples_entropy_atoms",
        "atoms, entropies",
        "Number of atoms that fire at least ten times on the searched vectors; the entropies are their medians.",
        group="sizes",
    ),
    Column(
        "samples_agreement_atoms", "atoms, agreement", "Number of atoms whose contexts were embedded.", group="sizes"
    ),
    Column("samples_seeds", "seeds", "Number of other seeds that the atoms are compared with.", group="sizes"),
    Column("s_corpus", "S from", "The corpus whose second moment gives the metric S.", group="sizes"),
    Column("s_vectors", "vectors of S", "Number of vectors of that corpus in the second moment.", group="sizes"),
    Column("shrinkage", "shrinkage", "λ of S = (C + λ tr(C)/d I)⁻¹.", "g", "sizes"),
)
