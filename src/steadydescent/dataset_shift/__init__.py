"""Dataset shift of test data, at five severities, measured afterwards. Imports `checks` alone.

`covariate` and `labels` make the three shifts below, `shifted` says what they return,
`verification` measures what moved; `mnist1d_signals` draws signals, `torchvision_shim` imports
torchvision.

Training and test data are draws from p(x, y) = p(x)·p(y|x) = p(y)·p(x|y). The slides (uit-slides)
name three ways in which the test data's distribution may differ; definitions as in Moreno-Torres et
al. (morenotorres2012unifying), who keep "covariate shift" for problems where x causes y and "prior
shift" for those where y causes x:

- **covariate shift**: p(x) moves. `shifted_signals` draws MNIST-1D with another setting of its
  generator, `shifted_images` corrupts pictures (after hendrycks2019benchmarking); labels stay.
- **prior shift**: p(y) moves, p(x|y) stays. `shifted_prior` samples again within the classes,
  `prior_shift` gives rows.
- **concept shift**: p(y|x) moves, p(x) stays. `shifted_concept` exchanges the labels of some
  classes, x untouched.

Severity 0 leaves the data as they are, 1 to 5 move them further and further. `verify` measures what
moved, and `MOVES` says what should, aspect by aspect. Where the plain definitions and the data
disagree:

- Changing x moves p(x|y) too, and where a corruption destroys information or carries x of one class
  to where those of another are, p(y|x) at that point as well. What stays is the rule from an
  example to its label: every example keeps its label, and the templates that made it are the same.
- Prior shift moves p(x) = Σ_y p(y)·p(x|y) with p(y), and by Bayes' rule p(y|x) wherever classes
  overlap. The labels of given x stay.
- Concept shift by permuting labels moves p(x|y). It leaves p(y) only if the permuted classes are
  equally frequent, as they are in both data sets of this study.

>>> before = shifted_signals("shear", 0, seed=0, count=500)
>>> after = shifted_signals("shear", 5, seed=0, count=500)
>>> verify(before, after).set_index("aspect")["moved"].to_dict()
{'p(x)': True, 'p(y)': False, 'p(x|y)': True, 'p(y|x)': False}
"""

from steadydescent.dataset_shift.covariate import (
    IMAGE_KNOBS,
    SIGNAL_KNOBS,
    shifted_images,
    shifted_signals,
)
from steadydescent.dataset_shift.labels import (
    label_permutation,
    largest_remainder,
    prior_proportions,
    prior_shift,
    shifted_concept,
    shifted_prior,
)
from steadydescent.dataset_shift.shifted import MOVES, SEVERITIES, Shifted
from steadydescent.dataset_shift.verification import verify

__all__ = [
    "IMAGE_KNOBS",
    "MOVES",
    "SEVERITIES",
    "SIGNAL_KNOBS",
    "Shifted",
    "label_permutation",
    "largest_remainder",
    "prior_proportions",
    "prior_shift",
    "shifted_concept",
    "shifted_images",
    "shifted_prior",
    "shifted_signals",
    "verify",
]
