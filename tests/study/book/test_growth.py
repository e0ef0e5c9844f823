"""Where growth is called linear, against power laws and lines with known answers; the bill against
its own formula.
"""

import numpy as np
import pandas as pd
import pytest

from steadydescent.study.book.chapters.growth import curves as growth
from steadydescent.study.book.chapters.growth.bill import Machine, machine, table_of_costs
from steadydescent.study.paths import ROOT
from steadydescent.study.results import published

X = 2.0 ** np.arange(9)


def points(y) -> pd.DataFrame:
    return pd.DataFrame({"x": X, "y": y})


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_exponent_of_a_power_law_is_its_power(power):
    assert growth.exponents(points(3 * X**power)) == pytest.approx(power)
    assert growth.linear_range(points(3 * X**power)) == ((0, 8) if power == 1 else None)


def test_line_with_an_offset_is_linear_from_where_the_offset_is_small():
    """Between x and 2x the exponent of a + x is log₂((a + 2x)/(a + x)); at a = 10 it reaches 0.85
    from x = 64 on.
    """
    slopes = np.log2((10 + 2 * X[:-1]) / (10 + X[:-1]))
    assert growth.exponents(points(10 + X)) == pytest.approx(slopes)
    assert growth.linear_range(points(10 + X)) == (6, 8) and slopes[5] < 0.85 < slopes[6]
    assert growth.fixed_share(points(10 + X)) == pytest.approx(10 / 11)
    assert growth.fixed_share(points(X**2)) == 0


def test_of_several_linear_stretches_the_longest_counts():
    y = np.array([1, 2, 8, 16, 32, 64, 64, 128, 256.0])
    assert growth.linear_range(points(y)) == (2, 5)


BOX = Machine(
    width=30, update=0.004, rest=1.0, start=20.0, save=0.02, look=1e-6, memory=200, disk=30_000
)


def test_bill_of_one_machine_is_its_stacks_one_after_another():
    """100 stacks of 1 000 updates: 20 + 100 · (4 + 1) seconds; ten machines train ten each."""
    assert BOX.cost(3_000, 1_000, 1)["hours"] == pytest.approx(520 / 3600)
    assert BOX.cost(2_971, 1_000, 10)["hours"] == pytest.approx(70 / 3600)
    assert BOX.cost(3_000, 1_000, 10)["disk, GiB"] == pytest.approx(3e6 / 2**30)


def test_more_machines_help_until_storing_sets_the_pace():
    bill = table_of_costs(BOX, 10**6, 1_000, (1, 10, 100, 1_000, 10_000))
    assert bill["hours"].is_monotonic_decreasing and bill["machine hours"].is_monotonic_increasing
    stacks = 33_334
    assert list(bill["set by"]) == ["training"] * 3 + ["storing"] * 2
    assert bill["hours"].iloc[-1] == pytest.approx((stacks * 0.02 + 1e-6 * stacks**2 / 2) / 3600)


def saved(tmp_path, rows: list[dict]) -> None:
    text = {"receipt": {"device": "2 cores, test", "cores": 2, "cache_mib": 32.0}, "rows": rows}
    published.write_json("growth-cpu.json", text, tmp_path)


def row(curve: str, **columns) -> dict:
    return {"curve": curve, **columns}


def test_constants_of_the_model_come_from_rows_of_known_lines(tmp_path):
    """Updates of 1 + R ms, 2 s more a stack, 5 ms to store one and 1 µs to look at one; compiled 7
    ms.
    """
    rows = [
        row("replicas", replicas=r, seconds=(1 + r) / 1e3, memory_mib=10.0 * r) for r in (16, 32)
    ]
    for s in (1, 2, 4):
        seconds = 3 + s * (100 * 0.033 + 2)
        rows.append(
            row("networks", stacks=s, networks=32 * s, updates=100, seconds=seconds, bytes=500 * s)
        )
    rows += [row("store", stacks=s, seconds=0.1 + 1e-6 * s, save_seconds=0.005) for s in (25, 50)]
    eager = {"width": 32, "update": 0.033, "rest": 2, "start": 0, "save": 0.005, "look": 1e-6}
    eager |= {"memory": 320, "disk": 500}
    saved(tmp_path, rows)
    assert vars(machine(growth.measured("cpu", tmp_path).rows)) == pytest.approx(eager)
    planned = row("planned", seconds=0.007, first_seconds=11.0, replicas=32)
    saved(tmp_path, [*rows, planned])
    compiled = eager | {"update": 0.007, "start": 11.0}
    assert vars(machine(growth.measured("cpu", tmp_path).rows)) == pytest.approx(compiled)


def test_without_a_file_there_is_nothing_to_show_and_no_bill(tmp_path):
    nothing = growth.measured("cuda", tmp_path)
    assert nothing.rows.empty and nothing.receipt == {}
    assert machine(nothing.rows) is None and growth.table_of_curves(nothing).empty


def test_reasons_are_given_for_what_is_known_and_for_nothing_else(tmp_path):
    rows = [row("replicas", replicas=r, seconds=(10 + r) / 1e3, memory_mib=r**2.0) for r in X]
    rows += [
        row("workers", workers=w, stacks=8, seconds=8 / min(w, 4), memory_mib=100 * w) for w in X
    ]
    saved(tmp_path, rows)
    table = growth.table_of_curves(growth.measured("cpu", tmp_path))
    table = table.set_index(["grows with", "what"])
    assert table.linear.to_list() == ["64 to 256", "nowhere", "1 to 4", "1 to 256"]
    assert table["why not elsewhere"].to_list() == [
        "91 % of the smallest is there at any size: launching its operations.",
        "Unexplained.",
        "There are 2 cores; beyond that, workers take turns.",
        "",
    ]


def test_page_states_the_tolerance_that_the_code_has():
    text = (ROOT / "chapters/growth.md").read_text(encoding="utf-8")
    assert f"lies within 1 ± {growth.TOLERANCE:g}." in text
