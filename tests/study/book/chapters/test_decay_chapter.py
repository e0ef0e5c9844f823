"""What the chapter on decay schedules says, against formulas and loops by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from steadydescent.study.book import page
from steadydescent.study.book.chapters.decay_schedules import along, ends, shapes
from steadydescent.study.planning import load_study

UPDATES = np.arange(1, shapes.TOTAL + 1)
EPOCHS = np.ceil(UPDATES / shapes.EPOCH)


def test_the_schedules_that_are_drawn_are_those_of_the_study():
    arms = load_study()["decay_schedules"].arms
    assert {arm: arms[arm].schedule for arm in shapes.SCHEDULES} == shapes.SCHEDULES
    assert sorted(arm for group in shapes.GROUPS.values() for arm in group) == sorted(
        shapes.SCHEDULES
    )


@pytest.mark.parametrize(
    ("arm", "formula"),
    [
        ("linear", 1 - (UPDATES - 1) / shapes.TOTAL),
        ("cosine", (1 + np.cos(np.pi * (UPDATES - 1) / shapes.TOTAL)) / 2),
        ("exponential", 0.95**EPOCHS),
        ("inverse-time", 1 / (1 + EPOCHS)),
        ("inverse-sqrt-epoch", EPOCHS**-0.5),
        ("noam-100", np.minimum(UPDATES / 100, (UPDATES / 100) ** -0.5)),
    ],
)
def test_a_shape_is_its_formula(arm, formula):
    np.testing.assert_allclose(shapes.factors(arm), formula, rtol=1e-12)


def test_shapes_have_a_row_an_arm_and_update():
    table = shapes.table_of_shapes()
    assert len(table) == len(shapes.SCHEDULES) * shapes.TOTAL
    assert set(table.group) == set(shapes.GROUPS)


def test_first_rates_are_the_slides_formulas():
    table = shapes.table_of_first_rates()
    epoch = table.epoch.to_numpy()
    by_hand = [0.2 / (1 + epoch), 0.2 * 0.95**epoch, 0.2 * 0.99**epoch, 0.2 / np.sqrt(epoch)]
    np.testing.assert_allclose(table.iloc[:, 1:].to_numpy().T, by_hand)


def test_noam_examples_are_its_formula():
    noam = lambda d, scale, step: scale * d**-0.5 * min(step**-0.5, step * 8000**-1.5)
    first, floored, *peaks = shapes.table_of_noam_examples().rate
    assert first == f"{noam(4, 2, 2):.4g}" and float(floored) == 1e-4
    assert peaks == [f"{noam(768, scale, 8000):.3g}" for scale in (2, 6)]


def test_images_start_late_where_they_are_said_to():
    images = shapes.table_of_images()
    late = images[images.image.str.startswith("image 4") & (images["update"] <= 10_000)]
    assert len(late) and (late.rate == shapes.FLOOR).all()
    peaks = images.groupby("image", sort=False).rate.max().to_numpy()
    np.testing.assert_allclose(peaks[1] / peaks[0], 3, rtol=1e-3)


# ---- how runs end --------------------------------------------------------------------------------

SETTINGS = {"momentum": ("momentum", 40), "momentum, twice the updates": ("momentum", 80)}
SETTINGS |= {"adam": ("adam", 40)}
ACCURACIES = {"constant": 60.0, "linear": 64.0}


class Settings(SimpleNamespace):
    def _replace(self, **more):
        return Settings(**(vars(self) | more))


def evidence(conditions=tuple(SETTINGS)) -> SimpleNamespace:
    settings = lambda condition, arm: Settings(
        **dict(zip(("optimizer", "steps"), SETTINGS[condition], strict=True))
    )
    arms_in = lambda condition: list(ACCURACIES)
    return SimpleNamespace(conditions=tuple(conditions), arms_in=arms_in, settings=settings)


RESULTS = {"toy": SimpleNamespace(evidence=evidence(), id="toy@1")}
NUMBERS = {
    f"decay_schedules/toy/{condition}/{arm}/{what}": number
    for place, condition in enumerate(SETTINGS)
    for arm, accuracy in ACCURACIES.items()
    for what, number in {
        "accuracy": {"value": accuracy + place, "low": accuracy - 1, "high": accuracy + 2},
        "rate": {"value": "0.1"},
        "diverged": {"value": "0 of 5"},
    }.items()
}


def test_ends_have_a_row_a_task_condition_and_schedule_with_its_interval():
    table = ends.table_of_ends(RESULTS, NUMBERS)
    assert len(table) == 6 and list(table.columns) == ends.COLUMNS
    assert tuple(table.iloc[1]) == ("toy", "momentum", "linear", "0.1", "0 of 5", 64.0, 63.0, 66.0)
    assert list(ends.table_of_tuned_ends(RESULTS, NUMBERS)) == list(ends.HEADS.values())


def test_a_condition_of_another_length_differs_in_its_updates_alone():
    assert ends.other_lengths(evidence()) == ["momentum, twice the updates"]
    assert ends.other_lengths(evidence(["adam"])) == []


def test_lengths_are_told_with_the_gains_after_each():
    text = ends.lengths(RESULTS, NUMBERS).text
    assert text == (
        "On toy linear decay ends +4.00 points from a constant rate after the usual updates, "
        "+4.00 points after twice the updates, where a constant rate ends at 61.0 % and not at "
        "60.0 %."
    )
    assert ends.lengths({}, {}) is page.NOT_RUN


def test_gains_are_taken_at_rates_that_both_ran():
    rows = [("constant", 0.1, 50.0), ("constant", 0.2, 52.0), ("linear", 0.2, 55.5)]
    rows += [("linear", 0.4, 57.0), ("cosine", 0.2, 99.0)]
    assert ends.gains(pd.DataFrame(rows, columns=["arm", "lr", "score"])).to_dict() == {0.2: 3.5}


def test_the_lead_is_taken_at_a_share_of_the_run():
    rows = [("constant", 5, 0.5), ("constant", 10, 0.6), ("linear", 5, 0.4), ("linear", 10, 0.7)]
    part = pd.DataFrame(rows, columns=["arm", "step", "median"])
    assert along.lead(part, 0.5) == "constant ahead, linear -10.0 points from constant"
    assert along.lead(part, 1) == "linear ahead, linear +10.0 points from constant"
    assert along.lead(part[part.arm == "constant"], 1) == "constant ahead"
