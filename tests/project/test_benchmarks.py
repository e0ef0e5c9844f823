"""Benchmarks: who takes turns with whom, that all do the same work, and what the rows say. Nothing
here is timed.
"""

import json
import math
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from torch._dynamo.utils import counters

import ceilings
import jax_peer
import peers
import rounds
import suite
import training
from ceilings import BareProducts
from commands import sweep_share
from ours import OurStack
from peers import Choice, DataLoaderLoop, Ensemble, InMemoryLoop
from pieces import averagers, magnitude
from processes import Processes
from rounds import Local, agree, compare, interleaved, median_interval
from steadydescent.engine.stepping import numerics
from steadydescent.study.book.chapters import speed
from steadydescent.study.paths import ROOT
from training import Settings, train

FIELDS = {
    "case",
    "device",
    "ours",
    "peer",
    "peer_name",
    "ratio",
    "ratio_low",
    "ratio_high",
    "unit",
    "interval",
}
SLOWLY = pytest.mark.slow
EAGER = Choice(threads=1, optimizer="foreach", compiled=False)
WIDTH = 3
QUICK = Settings(seconds=0.01, rounds=2, checked=5, width=WIDTH)


@pytest.fixture
def eager(monkeypatch):
    """Nothing is compiled: the numbers are the same and a test is fast."""
    for module in ("peers", "ours", "ceilings"):
        monkeypatch.setattr(
            sys.modules[module], "can_compile", lambda device: "tests do not compile"
        )


class Clock:
    """A clock that moves by a contender's seconds a unit of work; remembers whose turn it was."""

    def __init__(self, monkeypatch):
        self.now, self.turns = 0.0, []
        monkeypatch.setattr(rounds.time, "perf_counter", lambda: self.now)

    def contender(self, name: str, seconds: float, **options) -> Local:
        def advance(units: int) -> int:
            self.turns.append(name)
            self.now += seconds * units
            return units

        return Local(name, advance, **options)


# Timing


def test_contenders_take_turns_in_every_round(monkeypatch):
    clock = Clock(monkeypatch)
    spans = interleaved(
        [clock.contender(name, seconds) for name, seconds in (("a", 0.5), ("b", 0.25))], rounds=3
    )
    assert clock.turns == ["a", "b"] * 3
    assert spans == {"a": [2.0] * 3, "b": [4.0] * 3}


def test_warm_up_is_apart_and_work_fills_the_time_asked_for(monkeypatch):
    clock = Clock(monkeypatch)
    contender = clock.contender("a", 1 / 128, checked=64)
    contender.prepare(seconds=2.0)
    assert contender.warm_up == 0.5 and contender.units == 256


def test_rounds_are_whole_blocks(monkeypatch):
    contender = Clock(monkeypatch).contender("a", 1 / 128, checked=5, block=32)
    contender.prepare(seconds=0.6)
    assert contender.units == 64 and contender.warm_up == 5 / 128


def test_ratios_are_of_one_round_and_times_are_inverse_rates(monkeypatch):
    clock = Clock(monkeypatch)
    contenders = [clock.contender("ours", 1.0), clock.contender("P1 theirs", 2.0)]
    (rate,) = compare("case", "cpu", "updates/s", contenders, rounds=2, seconds=1.0)
    assert rate["ratio"] == rate["ratio_low"] == rate["ratio_high"] == 2.0
    (time,) = compare("case", "cpu", "ms", contenders, rounds=2, seconds=1.0, times=1000.0)
    assert (time["ours"], time["peer"], time["ratio"]) == (1000.0, 2000.0, 0.5)
    slowed = rounds.row(
        "case", "cpu", "s", [1.0, 10.0, 100.0], [2.0, 20.0, 200.0], "a slower and slower machine"
    )
    assert slowed["ratio"] == slowed["ratio_low"] == slowed["ratio_high"] == 0.5


@pytest.mark.parametrize("count", [2, 5, 6, 7, 31])
def test_intervals_are_finite_hold_the_median_and_say_how_they_were_made(count):
    values = [1.0 + 0.1 * (7 * i % count) for i in range(count)]
    low, high, how = median_interval(values)
    assert (
        min(values) <= low <= sorted(values)[count // 2]
        and high <= max(values)
        and math.isfinite(high - low)
    )
    assert how == ("bootstrap" if count < 6 else "order statistics")


def test_one_round_has_no_interval():
    with pytest.raises(ValueError, match="at least 2 rounds, got 1"):
        median_interval([1.0])


def test_losses_agree_within_a_share():
    assert agree(1.0, 1.009, 0.01) and not agree(1.0, 1.02, 0.01) and agree(None, 1.0, 0.01) is None
    assert not agree(1.0, math.nan, 0.01)


# Contenders


@pytest.mark.parametrize(
    "task", ["mnist1d-mlp", "mnist1d-cnn", pytest.param("names-transformer", marks=SLOWLY)]
)
def test_all_loops_train_the_network_of_the_engines_first_replica(task, eager):
    with numerics(1):
        loops = [
            OurStack(task, "cpu", width=WIDTH),
            DataLoaderLoop(task, "cpu"),
            InMemoryLoop(task, "cpu", EAGER),
            InMemoryLoop(task, "cpu", Choice(1, "fused", False)),
            Ensemble(task, "cpu", WIDTH),
        ]
        before = [loop.loss() for loop in loops]
        done = [loop.advance(7) for loop in loops]
        after = [loop.loss() for loop in loops]
    assert before == pytest.approx([before[0]] * 5, rel=1e-5) and after == pytest.approx(
        [after[0]] * 5, rel=1e-3
    )
    assert done == [7 * WIDTH, 7, 7, 7, 7 * WIDTH] and abs(after[0] - before[0]) > 1e-3


def test_the_single_loops_weights_and_average_are_the_stacks_first_replica(eager):
    """The stack's average is debiased, the loop's starts at θ₀: a = (1 − βᵗ)·debiased + βᵗ·θ₀."""
    updates, task = 11, "mnist1d-mlp"
    with numerics(1):
        stack, loop = OurStack(task, "cpu", width=2), InMemoryLoop(task, "cpu", EAGER)
        stack.advance(updates)
        loop.advance(updates)
    flat = lambda tensors: torch.cat([tensor.detach().flatten() for tensor in tensors])
    torch.testing.assert_close(
        stack.stack.view.theta[0], flat(loop.model.parameters()), rtol=1e-4, atol=1e-6
    )
    share = peers.BETA**updates
    averages, first = stack.stack.training.carry.average(0)[0], stack.stack.view.start[0]
    expected = (1 - share) * averages[0] + share * first[0]
    torch.testing.assert_close(flat(loop.averages), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("device", "threads"), [("cpu", {1, 2}), ("cuda", {1})])
def test_single_loops_are_tried_eager_and_compiled_with_either_optimiser(
    device, threads, monkeypatch
):
    monkeypatch.setattr(peers, "can_compile", lambda device: None)
    tried = peers.choices(device, (1, 2))
    assert len(tried) == len(set(tried)) == 4 * len(threads)
    assert {choice.threads for choice in tried} == threads
    assert {(choice.compiled, choice.optimizer) for choice in tried} == {
        (compiled, optimizer) for compiled in (True, False) for optimizer in ("foreach", "fused")
    }


def test_nothing_is_tried_compiled_where_nothing_can_be(eager):
    assert {choice.compiled for choice in peers.choices("cpu", (1,))} == {False}


def test_more_shapes_than_dynamo_compiles_by_itself_are_all_compiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    limit, graphs = torch._dynamo.config.recompile_limit, counters["stats"]["unique_graphs"]
    shapes = range(1, 3 + limit)
    # the limits, which the loop sets, are put back afterwards
    with torch._dynamo.config.patch(recompile_limit=limit, accumulated_recompile_limit=limit):
        double = peers.compiled(lambda rows: 2 * rows)
        assert [double(torch.ones(n)).sum().item() for n in shapes] == [2 * n for n in shapes]
    assert counters["stats"]["unique_graphs"] - graphs == len(shapes)
    assert torch._dynamo.config.recompile_limit == limit


def test_the_peer_of_one_thread_a_process_is_the_best_of_the_loops_of_one_thread(monkeypatch):
    alone, with_all = Choice(1, "fused", False), Choice(2, "foreach", True)
    rates = {Choice(1, "foreach", True): 1.0, alone: 2.0, with_all: 3.0}
    assert training.fastest(rates) == with_all
    assert training.fastest(training.of_one_thread(rates)) == alone
    assert "eager, fused, 1 thread: 2/s" in training.words(rates)


def test_fused_batch_norm_is_torchs_with_the_same_state():
    layer = peers.BatchNorm(3)
    layer.running_mean.fill_(0.5)
    fused = peers.fastest_layers(torch.nn.Sequential(layer))[0]
    assert type(fused) is torch.nn.BatchNorm2d and fused.running_mean.tolist() == [0.5] * 3


def test_fused_attention_gives_the_same_numbers():
    model = peers.initial_weights("names-transformer", 0).eval()
    tokens = torch.randint(
        1, 20, (3, sum(model.lengths)), generator=torch.Generator().manual_seed(0)
    )
    tokens[:, 12:21] = 0  # padding
    plain = model(tokens)
    torch.testing.assert_close(peers.fastest_layers(model)(tokens), plain, rtol=1e-4, atol=1e-5)


def test_an_exhausted_stack_starts_anew(eager, monkeypatch):
    monkeypatch.setattr("ours.UPDATES", 8)
    monkeypatch.setattr("ours.WINDOWS", (2,))
    stack = OurStack("mnist1d-mlp", "cpu", width=2)
    assert [stack.advance(5), stack.advance(5)] == [10, 10] and stack.done == 5


@pytest.mark.slow
def test_processes_train_one_seed_each_and_say_what_fails():
    with numerics(1):
        processes = Processes(
            "P2", InMemoryLoop, [("mnist1d-mlp", "cpu", EAGER, seed) for seed in (0, 1)], checked=5
        )
        processes.prepare(0.01)
        alone = InMemoryLoop("mnist1d-mlp", "cpu", EAGER)
        alone.advance(5)
        assert processes.loss == pytest.approx(alone.loss(), rel=1e-5) and processes.rate() > 0
        with pytest.raises(RuntimeError, match=r"a process of 'P2' failed: .*TypeError"):
            processes._ask("nonsense")
        processes.close()


@pytest.mark.slow
def test_two_processes_of_stacks_count_the_updates_of_all_their_networks(eager):
    with numerics(1):
        stacks = Processes(
            "ours", OurStack, [("mnist1d-mlp", "cpu", 1, 3, first) for first in (0, 3)], checked=2
        )
        assert [work for work, _ in stacks._ask(4)] == [12, 12]
        stacks.close()


# JAX


WITH_JAX = pytest.mark.skipif(
    jax_peer.missing("cpu") is not None, reason=str(jax_peer.missing("cpu"))
)
JAX_CASES = [("mnist1d-mlp", 1), ("mnist1d-mlp", 3), ("mnist1d-cnn", 3)]
MORE_JAX_CASES = [("fashion-mnist-mlp", 2), ("fashion-mnist-cnn", 1), ("names-transformer", 2)]


def trained_by_jax(cases: list[tuple[str, int]]) -> list[tuple[float, int, float]]:
    """Loss before, updates made, and loss after those; for a process that JAX may have."""
    done = []
    for task, width in cases:
        stack = jax_peer.JaxStack(task, "cpu", width, threads=1, scanned=3)
        done.append((stack.loss(), stack.advance(6), stack.loss()))
    return done


def held_to_torch(cases: list[tuple[str, int]]) -> None:
    """JAX trains the network of the engine's first replica as torch does."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as worker, numerics(1):
        by_jax = worker.submit(trained_by_jax, cases)
        for (task, width), (before, made, after) in zip(cases, by_jax.result(), strict=True):
            loop = InMemoryLoop(task, "cpu", EAGER)
            assert before == pytest.approx(loop.loss(), rel=1e-5) and made == 6 * width, task
            loop.advance(6)
            assert after == pytest.approx(loop.loss(), rel=1e-3) and after != before, task


@WITH_JAX
def test_jax_trains_the_network_of_the_engines_first_replica():
    held_to_torch(JAX_CASES)


@WITH_JAX
@pytest.mark.slow
@pytest.mark.needs_fashion
def test_jax_trains_the_larger_networks_too():
    held_to_torch(MORE_JAX_CASES)


def test_jax_is_not_imported_before_its_process_has_its_settings():
    code = "import sys, training; sys.exit('jax' in sys.modules)"
    folder = str(ROOT / "benchmarks")
    assert subprocess.run([sys.executable, "-c", code], cwd=folder).returncode == 0


def race(device="cpu") -> training.Race:
    race = training.Race("mnist1d-mlp", device, QUICK, ExitStack())
    race.told["ours"] = "ours: one"
    return race


def test_a_peer_without_its_library_is_named_on_standard_error_and_in_the_notes(
    monkeypatch, capsys
):
    monkeypatch.setattr(training, "missing", lambda device: "JAX is not installed: pip install it")
    one = race()
    assert one.jax() == []
    said = "P4 is left out: JAX is not installed: pip install it"
    assert one.told == {"ours": f"ours: one; {said}"}
    assert capsys.readouterr().err == f"mnist1d-mlp: {said}\n"


@pytest.mark.parametrize(("device", "packages"), [("cpu", ()), ("cuda", ("jax",))])
def test_what_jax_lacks_is_said_with_what_installs_it(device, packages, monkeypatch):
    monkeypatch.setattr(jax_peer, "find_spec", lambda name: name if name in packages else None)
    assert "pip install" in jax_peer.missing(device)
    monkeypatch.setattr(jax_peer, "find_spec", lambda name: name)
    assert jax_peer.missing(device) is None


class FakeProcesses(Processes):
    """Makes as many updates a second as its stacks are wide; a stack of 16 has no room."""

    def __init__(self, name, build, arguments, checked, block=1):
        self.name, self.checked, self.block, self.asked = name, checked, block, []
        self.arguments, self.lines, self.workers = arguments, [], []

    def _ask(self, order):
        if order == "loss":
            return [1.0]
        self.asked.append(order)
        width, threads = self.arguments[0][2:4]
        if width == 16:
            raise RuntimeError("no memory")
        return [(order * width, order / threads)] * len(self.arguments)


def test_jax_is_run_in_the_fastest_way_that_works_and_the_others_are_told(monkeypatch):
    monkeypatch.setattr(training, "missing", lambda device: None)
    monkeypatch.setattr(training, "version", lambda: "7.5")
    monkeypatch.setattr(training, "Processes", FakeProcesses)
    monkeypatch.setattr(jax_peer.os, "cpu_count", lambda: 3)
    one = race()
    (best,) = one.jax()
    assert best.name == "P4 JAX 7.5: 3 processes of 1 thread, each a stack of 8"
    assert [given[-1] for given in best.arguments] == [0, 8, 16]  # seeds
    assert "a stack of 8, 3 threads: 24/s" in one.told[best.name]
    assert one.told[best.name].endswith("each a stack of 16: no memory")
    best.prepare(seconds=100.0)
    assert best.checked == best.block == 5 and best.units % 5 == 0
    assert all(order % 5 == 0 for order in best.asked)


def test_on_a_gpu_jax_stacks_as_wide_as_the_engine_does_too():
    choices = jax_peer.stacks_of("cuda", 512)
    assert [choice.width for choice in choices] == [1, 4, 8, 16, 512]
    assert {(choice.processes, choice.threads) for choice in choices} == {(1, 1)}


# Ours


def test_stacks_side_by_side_hold_different_seeds(monkeypatch):
    monkeypatch.setattr(training, "processes", lambda device, asked: 3)
    stacks = [OurStack(*given) for given in training.side_by_side("mnist1d-mlp", "cpu", 2)]
    assert [run.seed for stack in stacks for run in stack.runs] == list(range(6))
    assert len(training.side_by_side("mnist1d-mlp", "cuda", 2)) == 1


def test_averagers_agree_after_the_same_updates():
    network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5))
    averages = averagers(network)
    with torch.no_grad():
        for moved in (1.0, 1.5, 1.5):
            for parameter in network.parameters():
                parameter.mul_(moved)
            for _, update in averages.values():
                update(network)
    sizes = [magnitude(list(module.parameters())) for module, _ in averages.values()]
    assert sizes == pytest.approx([sizes[0]] * 4, rel=1e-5) and len(averages) == 4


# Ceilings


def test_operations_of_the_bare_products_are_counted_by_hand():
    """40–100–100–10: x·Wᵀ and ∂W for three layers, ∂x for the last two; two operations a
    multiply-add.
    """
    multiply_adds = 2 * (40 * 100) + 3 * (100 * 100) + 3 * (100 * 10)
    assert (
        BareProducts([40, 100, 100, 10], width=30, batch=100, device="cpu").operations
        == 2 * 30 * 100 * multiply_adds
    )


@pytest.mark.parametrize("way", ["batched", "one_by_one"])
def test_bare_products_are_those_of_autograd(way):
    products = BareProducts([7, 5, 3], width=2, batch=11, device="cpu")
    getattr(products, way)()
    for layer in (0, 1):
        x, weight = (
            products.x[layer].clone().requires_grad_(),
            products.weight[layer].clone().requires_grad_(),
        )
        y = x @ weight.transpose(1, 2) + products.bias[layer]
        into_x, into_weight = torch.autograd.grad(y, (x, weight), products.x[layer + 1])
        torch.testing.assert_close(products.into_weight[layer], into_weight)
    torch.testing.assert_close(products.into_x[1], into_x)
    torch.testing.assert_close(products.into_x[2], y.detach())


def test_the_ceiling_is_the_way_that_makes_most_products_of_a_replica(monkeypatch):
    """Widths that the engine's step takes at once, that of the whole stack, and one alone."""
    monkeypatch.setattr(ceilings, "can_compile", lambda device: None)
    ways = ceilings.ways("mnist1d-mlp", "cpu", 16)
    together = ceilings.plan("mnist1d-mlp", "cpu").together(16, True)
    widths = [way.products.width for way in ways]
    assert set(widths) == {1, together, 16} and len(ways) == len(set(widths)) * 2
    best = next(way for way in ways if way.products.width == 1)
    monkeypatch.setattr(
        ceilings, "rates_of", lambda tried, seconds: {way: float(way is best) for way in tried}
    )
    monkeypatch.setattr(ceilings, "ways", lambda *given: ways)
    assert ceilings.fastest_way("mnist1d-mlp", "cpu", 16, 0.1) is best
    assert {name.rpartition(", ")[2] for name in map(str, ways) if "cache" not in name} == {
        f"{width} replicas" for width in {together, 16}
    }


def test_the_update_that_is_timed_is_momentum_and_one_average_in_place():
    draw = torch.Generator().manual_seed(0)
    theta, grad, velocity, average = (torch.randn(3, 7, generator=draw) for _ in range(4))
    moved = peers.MOMENTUM * velocity + grad
    weights = theta - peers.LR * moved
    averaged = average + (1 - peers.BETA) * (weights - average)
    ceilings.update_and_average(theta, grad, velocity, average)
    torch.testing.assert_close((theta, velocity, average), (weights, moved, averaged))


# Rows


@pytest.mark.slow
def test_training_rows_name_all_peers_and_their_losses_agree(eager, monkeypatch):
    monkeypatch.setattr(jax_peer, "WIDTHS", (2,))
    rows = train("mnist1d-mlp", "cpu", QUICK)
    fifth = [] if jax_peer.missing("cpu") else ["P4"]
    assert [row["peer_name"][:2] for row in rows] == ["P0", "P1", "P2", "P3", *fifth]
    assert all(row.keys() >= FIELDS and row["losses_agree"] for row in rows)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


@pytest.mark.parametrize(
    "only",
    [
        "bare products, mnist1d-mlp",
        "step against * mnist1d-mlp",
        "update and EMA",
        "five averages added to a step, mnist1d-mlp",
        "optimizer step, adam, names",
        "optimizer by layout, adam, 1 000 small tensors, b*",
    ],
)
def test_every_kind_of_case_gives_whole_rows(only, eager):
    rows = suite.run(suite.chosen(only), "cpu", QUICK)
    assert rows and all(
        row.keys() >= FIELDS and row["ratio"] > 0 and row["device"] == "cpu" for row in rows
    )
    assert all(row["losses_agree"] is not False for row in rows)


def test_a_sweep_costs_more_than_its_stacks():
    (row,) = sweep_share("cpu", QUICK)
    assert row["ratio"] > 1 and row["peer"] > 0


# What is picked, kept and shown


def test_cases_are_picked_by_part_of_a_name_or_glob_and_those_on_request_by_name():
    assert list(suite.chosen()) == list(suite.CASES)
    assert list(suite.chosen("TRAIN names")) == ["train names-transformer, one EMA"]
    assert all("mnist1d" in name and "step" in name for name in suite.chosen("step*mnist1d"))
    assert list(suite.chosen(also="book,reproduce")) == ["book", "reproduce"]


def test_a_pattern_without_a_case_is_refused_with_what_exists():
    with pytest.raises(
        ValueError,
        match=r"a case .*on request: .*must be one of .*'train mnist1d-mlp, one EMA'.*'nope'",
    ):
        suite.chosen("nope")
    with pytest.raises(
        ValueError, match=r"a case on request must be one of \['book', 'reproduce'\], got 'nope'"
    ):
        suite.chosen(also="nope,book")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_targets_are_of_cases_that_exist_and_have_one_bound(device):
    assert speed.targets(device)
    for target in speed.targets(device):
        assert target["case"] in suite.CASES or target["case"].startswith(
            tuple(suite.ON_REQUEST)
        ), target
        assert len({"at_least", "at_most"} & set(target)) == 1 and set(target) - {"of", "why"} > {
            "peer",
            "case",
            "device",
        }


def fabricated(case: str, peer: str, ours: float, theirs: float) -> dict:
    return rounds.row(case, "cpu", "updates/s", [ours] * 7, [theirs] * 7, peer)


def test_saved_rows_come_back_and_only_what_is_measured_again_is_replaced(tmp_path):
    suite.save([fabricated("a", "P0", 2, 1), fabricated("b", "P0", 3, 1)], "cpu", 1.0, tmp_path)
    path = suite.save([fabricated("b", "P0", 5, 1)], "cpu", 1.0, tmp_path)
    benchmarks = speed.saved("cpu", tmp_path)
    table = benchmarks.rows
    assert dict(zip(table.case, table.ratio, strict=True)) == {"a": 2.0, "b": 5.0} and set(
        table.kind
    ) == {"P0"}
    assert path.name == "bench-cpu.json" and len(speed.origins(benchmarks)) == 2
    suite.save([fabricated("a", "P0", 7, 1), fabricated("b", "P0", 7, 1)], "cpu", 1.0, tmp_path)
    assert len(speed.saved("cpu", tmp_path).parts) == 1


def test_targets_are_judged_by_the_saved_medians(tmp_path):
    case = "train mnist1d-mlp, one EMA"
    suite.save(
        [fabricated(case, "P0 loop", 4, 1), fabricated(case, "P1 loop", 8, 1)], "cpu", 1.0, tmp_path
    )
    benchmarks = speed.saved("cpu", tmp_path)
    table = speed.table_of_targets(benchmarks)
    mine = table[table.case == case].set_index("against").outcome
    assert mine["P0"] == "missed by 50 %" and mine["P1"] == "met" and mine["P2"] == "not measured"
    assert speed.targets_in_words(benchmarks).startswith("1 of 2 targets are met; ")


@pytest.mark.parametrize(("rate", "missed"), [(1, True), (2, False)])
def test_the_reason_for_a_missed_target_is_shown_and_for_no_other(tmp_path, rate, missed):
    target = next(target for target in speed.targets("cpu") if "why" in target)
    row = fabricated(target["case"], f"{target['peer']} loop", rate, 1)
    suite.save([row], "cpu", 1.0, tmp_path)
    shown = speed.reasons(speed.saved("cpu", tmp_path)).text
    assert (target["why"] in shown) == missed


def test_the_figure_has_a_point_a_peer_around_the_line_of_its_task():
    kinds = ("P0", "P1", "P2", "P3", "P4")
    columns = {"ratio": 2.0, "ratio_low": 1.5, "ratio_high": 2.5}
    table = pd.DataFrame([{"task": t, "kind": k, **columns} for t in ("a", "b") for k in kinds])
    ax = Figure().subplots()
    speed._training_panel(ax, table)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(kinds)
    heights = np.array([bars.lines[0].get_ydata() for bars in ax.containers], float)  # [peer, task]
    assert heights.mean(0) == pytest.approx([1, 0]) and len(np.unique(heights.round(6))) == 10


def test_a_device_without_a_file_is_shown_as_not_measured(tmp_path):
    nothing = speed.saved("cuda", tmp_path)
    assert set(speed.table_of_targets(nothing).outcome) == {"not measured"}
    assert speed.targets_in_words(nothing).startswith("none of ")
    assert speed.origins(nothing) == []
    assert speed.table_of_cases(nothing, "^train").case.tolist() == ["not measured on cuda yet"]
