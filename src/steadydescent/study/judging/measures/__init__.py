"""Measures: what claims may be about, from the tables of a result.

`measure` has every measure's name, unit and direction; `finals` reads them off a result. What a
result keeps for that (`kept`) follows from curves (`along`, `ceilings`, `equal_loss`,
`range_tests`) and from predictions (`churn`, `sampling`).
"""

from steadydescent.study.judging.measures.along import ARRIVAL, HIGHEST_POINT, derived, held_from
from steadydescent.study.judging.measures.ceilings import ceiling
from steadydescent.study.judging.measures.churn import churned
from steadydescent.study.judging.measures.finals import (
    best_single_by_validation,
    values,
)
from steadydescent.study.judging.measures.kept import kept
from steadydescent.study.judging.measures.measure import (
    EARLY,
    FINALS,
    MEASURES,
    SEVERITY,
    TO_TARGET,
    Measure,
    measure_named,
    measured,
    on_test_set,
    single_checkpoints,
)
from steadydescent.study.judging.measures.rows import table
from steadydescent.study.judging.measures.sampling import sampled

__all__ = [
    "ARRIVAL",
    "EARLY",
    "FINALS",
    "HIGHEST_POINT",
    "MEASURES",
    "SEVERITY",
    "TO_TARGET",
    "Measure",
    "best_single_by_validation",
    "ceiling",
    "churned",
    "derived",
    "held_from",
    "kept",
    "measure_named",
    "measured",
    "on_test_set",
    "sampled",
    "single_checkpoints",
    "table",
    "values",
]
