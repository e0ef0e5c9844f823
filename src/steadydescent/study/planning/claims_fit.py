"""Claims beside the study: what they name is there to be trained."""

from collections.abc import Mapping

from steadydescent.checks import check_choice
from steadydescent.study.judging.claims import Claim, error_in, load_claims
from steadydescent.study.judging.contrasts import Contrast
from steadydescent.study.judging.measures.measure import SHIFTED
from steadydescent.study.planning.experiment import Experiment


def check_claims(study: Mapping[str, Experiment]) -> None:
    """See that the study has every experiment, task, condition and arm that a claim names.

    Raises:
        ValueError: for the first that it has not, with its line in `experiments/claims.yml`.
    """
    for number, claim in enumerate(load_claims().values()):
        try:
            check_claim(claim, study)
        except ValueError as error:
            raise error_in(number, str(error)) from None


def check_claim(claim: Claim, study: Mapping[str, Experiment]) -> None:
    """`check_claims` of one claim; the error names it, without a line."""
    check_choice(claim.experiment, sorted(study), f"claim {claim.id!r}: experiment")
    for contrast in claim.contrasts:
        name = claim.experiment_of(contrast)
        check_choice(name, sorted(study), f"claim {claim.id!r}: experiment of a contrast")
        _check_places(claim, contrast, study[name])
        tasks = study[name].rates
        if set(contrast.margins) - set(tasks):
            raise ValueError(
                f"claim {claim.id!r}: margins are for some of {sorted(tasks)}, "
                f"got {contrast.margins}"
            )


def _check_places(claim: Claim, contrast: Contrast, experiment: Experiment) -> None:
    for own in contrast.conditions:
        check_choice(own, experiment.conditions, f"claim {claim.id!r}: condition")
        for condition, arm in contrast.places(own):
            check_choice(condition, experiment.conditions, f"claim {claim.id!r}: condition")
            check_choice(arm, sorted(experiment.arms), f"claim {claim.id!r}: arm")
            if SHIFTED.fullmatch(contrast.needs.measure or "") and experiment.shifted:
                what = f"claim {claim.id!r}: an arm that the experiment scores on shifted inputs"
                check_choice(arm, experiment.shifted, what)
