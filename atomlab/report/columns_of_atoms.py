"""Columns about the dictionary: geometry and stability, uniqueness and recovery, restricted isometry."""

from atomlab.report.column import Column

_LOWER = "sufficient, so a lower bound"

GEOMETRY = (
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
    Column(
        "metric_disagreement",
        "S against atoms",
        "How far the metric S of the data is from (W_decᵀ W_dec)⁻¹, the metric that these units alone would give: the sine "
        "of the angle between the two matrices, 0 if they are equal up to scale, at most 1. It grows when units fire "
        "together; every number here is in S of the data. No value for units that do not span the space.",
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
ISOMETRY = (
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
