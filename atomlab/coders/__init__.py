"""Codes as a choice of their own: several ways to write activations as sparse sums of the atoms of one dictionary.

- `threshold`: the one-step threshold code for any dictionary, as a TSAE.
- `refit`: the best non-negative values on the supports that codes have.
- `threshold_pursuit`: a few stages, in each of which a threshold lets atoms join; `pursuit_calibration` chooses the
  thresholds.
- `matching_pursuit`: one atom at a time, signed or non-negative.
- `encode`: all of them by name, for notebooks.
- `nonnegative_least_squares`: the solver of small problems that the non-negative coders share; `fitting` brings supports
  and metric to it.

All are batched, work in float64 where systems are solved, and give CSR codes whose values belong to the dictionary as
given. To add a coder, write a function from vectors and a dictionary to CSR codes, and name it in `encode`.
"""

from atomlab.coders.encode import encode
from atomlab.coders.matching_pursuit import nonnegative_omp, omp
from atomlab.coders.nonnegative_least_squares import nonnegative_least_squares
from atomlab.coders.pursuit_calibration import calibrate_threshold_pursuit
from atomlab.coders.refit import refit
from atomlab.coders.threshold import threshold_coder
from atomlab.coders.threshold_pursuit import ThresholdPursuit, threshold_pursuit

__all__ = [
    "ThresholdPursuit",
    "calibrate_threshold_pursuit",
    "encode",
    "nonnegative_least_squares",
    "nonnegative_omp",
    "omp",
    "refit",
    "threshold_coder",
    "threshold_pursuit",
]
