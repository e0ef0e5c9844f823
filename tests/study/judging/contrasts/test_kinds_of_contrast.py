"""Every kind of contrast is a class in a file of its own, and a new one needs nothing else."""

import importlib
import sys
from pathlib import Path

import pytest

from fabricated import SMALL_CLAIM, experiments_from, write_experiments
from judged import TASK, contrast_of, rows_of, score, toy_plan
from steadydescent.study.judging import contrasts
from steadydescent.study.judging.claims import load_claims, questions_for
from steadydescent.study.judging.contrasts import CONTRASTS, Needs
from steadydescent.study.planning import load_study

FOLDER = Path(contrasts.__file__).parent
UNITS = {
    "search regret": "pp",
    "range test": "pp",
    "decades below": "decades",
    "noise slope": "",
    "matching window": "nats",
    "faster size": "%",
    "closed form": "%",
    "tuned": "pp",
    "equal loss": "pp",
    "time to target": "×",
    "range test regimes": "%",
    "cost of a wrong choice": "pp",
}
OPTIONS = {
    "search regret": {"method": "log-uniform", "than": "uniform", "trials": 3},
    "range test": {"suggestion": "middle", "updates": 100},
    "decades below": {"limit": 0.1},
    "matching window": {"against": ["short", "long"]},
    "tuned": {"against": "ema"},
    "equal loss": {"against": "ema", "better": True},
    "time to target": {"against": "ema", "better": True},
    "range test regimes": {"updates": 100, "part": "rise beyond"},
    "cost of a wrong choice": {"factor": 10.0, "rules": ["last", "ema"]},
}
NEEDS = {
    "range test": Needs(ramp=100),
    "noise slope": Needs(probe="gradient-noise"),
    "faster size": Needs(timed=True),
    "tuned": Needs(measure="accuracy"),
    "equal loss": Needs(probe="training-loss"),
    "time to target": Needs(measure="examples to target", timed=True),
    "range test regimes": Needs(ramp=100),
    "cost of a wrong choice": Needs(measure="accuracy"),
}
RATIOS = {"time to target"}
TOY = '''
from typing import ClassVar

import numpy as np

from steadydescent.study.judging.contrasts.contrast import Contrast, Needs
from steadydescent.study.judging.statistics import paired


class RateSquared(Contrast, kind="rate squared"):
    """The arm's tuned rate to some power, over report seeds."""

    unit: ClassVar[str] = "rates"
    power: int

    @property
    def needs(self):
        return Needs(probe="orbit")

    def estimate(self, evidence, condition, level):
        lr = evidence.candidates(*self.arm.under(condition)).chosen.lr
        return paired(lr**self.power * np.array([0.9, 1.1]), level)
'''


def test_every_kind_is_known_with_its_unit():
    assert {name: contrast_of(name, **OPTIONS.get(name, {})).unit for name in CONTRASTS} == UNITS


def test_every_kind_says_what_it_needs():
    for name in CONTRASTS:
        needs = contrast_of(name, **OPTIONS.get(name, {})).needs
        assert needs == NEEDS.get(name, Needs()), name


def test_ratios_are_those_of_the_measure():
    spread = contrast_of("tuned", against="ema", measure="seed spread")
    assert (spread.ratio, spread.unit) == (True, "×")
    ratios = {name for name in CONTRASTS if contrast_of(name, **OPTIONS.get(name, {})).ratio}
    assert ratios == RATIOS


def test_a_file_has_one_kind_and_every_kind_a_file():
    modules = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "contrast", "sides"}
    homes = [kind.__module__.rpartition(".")[2] for kind in CONTRASTS.values()]
    assert sorted(homes) == sorted(modules)


def test_every_kind_has_its_line_among_the_claims():
    stated = {contrast.kind for claim in load_claims().values() for contrast in claim.contrasts}
    assert stated == set(CONTRASTS)


def test_a_kind_that_is_there_is_not_defined_again():
    with pytest.raises(ValueError, match="kind 'tuned' is that of TunedDifference"):
        type("Other", (contrasts.Contrast,), {}, kind="tuned")


@pytest.fixture
def toy_kind(tmp_path, monkeypatch):
    """A kind that is a file in the folder of contrasts."""
    (tmp_path / "rate_squared.py").write_text(TOY)
    monkeypatch.setattr(contrasts, "__path__", [*contrasts.__path__, str(tmp_path)])
    contrasts.register(contrasts.__path__)
    yield "rate squared"
    CONTRASTS.pop("rate squared")
    sys.modules.pop("steadydescent.study.judging.contrasts.rate_squared")
    importlib.invalidate_caches()


def test_a_new_kind_is_a_file_and_a_line(tmp_path, toy_kind):
    """It is read, planned where its probe looks, judged and shown."""
    usual = {"arm": "last", "conditions": ["linear"], "margins": {TASK: 0.001}}
    usual |= {"rule": "superiority", "measure": "squares", "label": "squared"}
    usual |= {"registered": "2026-01-02"}
    claims = [SMALL_CLAIM | {"primary": [usual | {"kind": toy_kind, "power": 2}]}]
    write_experiments(tmp_path, claims=claims)
    with experiments_from(tmp_path):
        assert questions_for(toy_plan()) == []
        plain = load_study()["toy"]
        size = plain.profiles["laptop"][TASK].model_copy(update={"probes": ("orbit",)})
        plain.profiles["laptop"][TASK] = size
        (question,) = questions_for(toy_plan())
        assert question.row.condition == "linear, squared"
        (row,) = rows_of(score)
    assert row["estimate"] == pytest.approx(0.1**2) and row["unit"] == "rates"
    assert row["networks"] == 2 * 3 * (3 + 5) and row["rates"] == {}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"power": "two"}, "power.*valid integer"),
        ({"powr": 2}, "an option of a contrast 'rate squared': 'powr' is unknown; .* 'power'"),
        ({"better": True}, "an option of a contrast 'rate squared': must be one of .*'better'"),
        ({"kind": "rate square"}, "kind 'rate square' is unknown; did you mean 'rate squared'"),
    ],
)
def test_options_of_a_new_kind_are_checked_with_their_line(tmp_path, toy_kind, change, sentence):
    usual = {"arm": "last", "conditions": ["linear"], "margins": {TASK: 0.001}}
    usual |= {"rule": "superiority", "measure": "squares", "kind": toy_kind, "power": 2}
    usual |= {"registered": "2026-01-02"}
    write_experiments(tmp_path, claims=[SMALL_CLAIM | {"primary": [usual | change]}])
    with (
        experiments_from(tmp_path),
        pytest.raises(ValueError, match=rf"claims\.yml, line 1: number 1: primary: .*{sentence}"),
    ):
        load_claims()
