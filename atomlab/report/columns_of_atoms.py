"""Defines the columns about the dictionary: geometry, stability, uniqueness, recovery and restricted isometry."""

from atomlab.report.column_type import RESAMPLED, Column

_LOWER = "sufficient, so a lower bound"

GEOMETRY = (
    Column(
        "coherence", "μ", "Mutual coherence: the largest |cos_S| of two units; exact.", group="geometry", closing=True
    ),
    Column(
        "coherence_euclidean",
        "μ Euclid",
        "The largest |cos| of two units in the Euclidean norm, which others compute from the file alone; exact.",
        group="geometry",
        closing=True,
    ),
    Column(
        "coherence_euclidean_mean",
        "μ_i Euclid mean",
        "Mean over units of the largest |cos| with another unit in the Euclidean norm. SAEBench's "
        "average_max_decoder_cosine_sim is the same of the cosine with its sign, so at most this.",
        group="geometry",
    ),
    Column(
        "coherence_median",
        "μ_i median",
        "Median over units of the largest |cos_S| with another unit.",
        group="geometry",
    ),
    Column(
        "babel",
        "μ₁(K)",
        "Babel function at the median K: the largest sum of K |cos_S| with one unit; exact.",
        ".2f",
        "geometry",
    ),
    Column("pair_q50", "|cos| 50%", "Median of |cos_S| over all pairs of units.", group="geometry"),
    Column("pair_q99", "|cos| 99%", "99% quantile of |cos_S| over all pairs of units.", group="geometry"),
    Column("pair_q999", "|cos| 99.9%", "99.9% quantile of |cos_S| over all pairs of units.", group="geometry"),
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
        "Stability over pairs of units with the supports of held-out vectors: an index, not a certificate.",
        ".1%",
        "geometry",
        closing=True,
    ),
    Column(
        "stability_pairwise_random",
        "q* pairs, random",
        "Stability over pairs of random atoms, as many as this row has and at its L0, with held-out vectors.",
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
        "Stability over each atom's largest |cos_S| of random atoms, as many as this row has and at its L0.",
        ".1%",
        "geometry",
    ),
    Column(
        "metric_disagreement",
        "S against atoms",
        "How far the metric S of the data is from (W_decᵀ W_dec)⁻¹, the metric that these units alone would give: the sine "
        "of the angle between the two matrices, 0 if they are equal up to scale, at most 1. It grows when units fire "
        "together. Every number of the report is in the S of the data. Units that do not span the space have no value.",
        group="geometry",
    ),
)
RECOVERY = (
    Column(
        "certified_level_1",
        "cert. 1",
        f"Share of vectors with μ(2K − 1) < 1: the code is the unique sparsest one and ℓ1 finds it; {_LOWER}.",
        ".1%",
        "recovery",
        closing=True,
    ),
    Column("certified_level_1_interval", "cert. 1 95%", f"95% interval of “cert. 1”; {RESAMPLED}.", ".1%", "recovery"),
    Column(
        "certified_level_2a",
        "cert. 2a",
        f"Share of vectors with μ₁(2K − 1) < 1: the code is the unique sparsest one; {_LOWER}.",
        ".1%",
        "recovery",
    ),
    Column(
        "certified_level_2a_interval", "cert. 2a 95%", f"95% interval of “cert. 2a”; {RESAMPLED}.", ".1%", "recovery"
    ),
    Column(
        "certified_level_2b",
        "cert. 2b",
        f"Share of vectors with μ₁(K − 1) + μ₁(K) < 1: the code is the unique sparsest one and ℓ1 finds it; {_LOWER}.",
        ".1%",
        "recovery",
    ),
    Column(
        "certified_level_2b_interval", "cert. 2b 95%", f"95% interval of “cert. 2b”; {RESAMPLED}.", ".1%", "recovery"
    ),
    Column(
        "certified_level_3",
        "cert. 3",
        f"Share of vectors with ERC < 1: ℓ1 recovers every code on the support of this one; {_LOWER}.",
        ".1%",
        "recovery",
    ),
    Column("certified_level_3_interval", "cert. 3 95%", f"95% interval of “cert. 3”; {RESAMPLED}.", ".1%", "recovery"),
    Column(
        "certified_level_4",
        "cert. 4",
        "Share of vectors with a dual certificate: the code is the unique ℓ1-minimal one among non-negative codes, or among "
        f"all codes for OMP, whose codes have signs; {_LOWER}; supports of more than 256 count as not certified.",
        ".1%",
        "recovery",
        closing=True,
    ),
    Column("certified_level_4_interval", "cert. 4 95%", f"95% interval of “cert. 4”; {RESAMPLED}.", ".1%", "recovery"),
    Column(
        "certified_level_4_signed",
        "cert. 4 ±",
        "Share of vectors with a dual certificate among codes of any sign. It is the harder test, and the one that compares "
        f"rows whose codes have signs with rows whose codes have none; {_LOWER}.",
        ".1%",
        "recovery",
        closing=True,
    ),
    Column(
        "certified_level_4_signed_interval",
        "cert. 4 ± 95%",
        f"95% interval of “cert. 4 ±”; {RESAMPLED}.",
        ".1%",
        "recovery",
    ),
    Column(
        "solved_level_5",
        "solved 5",
        "Share of vectors whose code ℓ1 minimisation returns, by solving it. Level 4 implies it.",
        ".1%",
        "recovery",
    ),
    Column("solved_level_5_interval", "solved 5 95%", f"95% interval of “solved 5”; {RESAMPLED}.", ".1%", "recovery"),
    Column(
        "identifiable_a_priori",
        "window",
        "Share of vectors with μ K δ_max < δ_min − μ(K − 1)δ_max: a threshold that finds the support must exist.",
        ".1%",
        "recovery",
    ),
    Column(
        "identifiable_shared",
        "one-step",
        "Share of vectors for which {j : ⟨x, d_j⟩_S > τ_j} is the support of the code, with the same τ for all vectors.",
        ".1%",
        "recovery",
    ),
    Column(
        "identifiable_oracle",
        "one-step, own τ",
        "Share of vectors for which some threshold of their own finds the support in one step: an upper bound.",
        ".1%",
        "recovery",
    ),
    Column(
        "r2_s_before_refit",
        "R²_S codes",
        "R²_S of the codes, over the vectors that this table is measured on.",
        group="recovery",
    ),
    Column(
        "r2_s_after_refit",
        "R²_S refit",
        "R²_S of the best values on the supports of these codes, over the same vectors.",
        group="recovery",
    ),
)
ISOMETRY = (
    Column(
        "restricted_isometry_k",
        "δ_K",
        "Interval that contains the restricted isometry constant at the median K: a witness below, Gershgorin above.",
        ".2f",
        "isometry",
        closing=True,
    ),
    Column(
        "restricted_isometry_2k",
        "δ_2K",
        "Interval that contains the restricted isometry constant at twice the median K.",
        ".2f",
        "isometry",
    ),
    Column(
        "isometry_unique",
        "δ_2K < 1",
        "Shares of vectors: certified / failed / undecided. δ_2K < 1 makes the code the unique sparsest one.",
        ".0%",
        "isometry",
    ),
    Column(
        "isometry_stable",
        "δ_2K < 1/√2",
        "Shares of vectors: certified / failed / undecided. δ_2K < 1/√2 makes ℓ1 recovery exact and stable.",
        ".0%",
        "isometry",
    ),
    Column(
        "isometry_own", "δ(Λ)", "Median isometry constant of the supports of the codes themselves.", ".2f", "isometry"
    ),
    Column(
        "isometry_ratio",
        "‖x̂‖²/‖δ‖²",
        "1% and 99% quantiles over the codes δ of ‖x̂‖²/‖δ‖², which is 1 for orthogonal atoms.",
        ".2f",
        "isometry",
    ),
)
