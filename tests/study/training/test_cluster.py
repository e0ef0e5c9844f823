"""On a real local cluster: the rows are those of one process, a killed worker costs what it had in
hand, no more.
"""

import asyncio
import gc
import importlib.util
import os
import re
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch
from click.testing import CliRunner

pytest.importorskip(
    "distributed", reason="Dask is not installed: pip install 'steadydescent[cluster]'"
)

from distributed import Client, KilledWorker
from distributed.diagnostics.plugin import SchedulerPlugin

from fabricated import stack_receipt, tables
from steadydescent import cli
from steadydescent.engine.runs import Run
from steadydescent.study import reproduce
from steadydescent.study.planning import stacks as planned_stacks
from steadydescent.study.planning.stacks import OWN_GIB, stackings, stacks
from steadydescent.study.results.store import Store, Tables
from steadydescent.study.training import cluster, sweep
from steadydescent.study.training import workers as staff

NOWHERE = "tcp://127.0.0.1:9"  # the discard port: nobody answers


@pytest.fixture(scope="module")
def machine():
    """Two worker processes, and how often the scheduler handed out each stack."""
    with cluster.local_cluster(2, "cpu") as local, Client(local, set_as_default=False) as client:
        watch = Handed()
        local.scheduler.add_plugin(watch)
        pids = client.run(os.getpid)
        threads = min(2, *client.nthreads().values())
        yield SimpleNamespace(
            scheduler=local.scheduler, handed=watch.out, pids=pids, client=client, threads=threads
        )


class Handed(SchedulerPlugin):
    """Counts how often each stack went to a worker."""

    name = "handed"

    def __init__(self) -> None:
        self.out = Counter[str]()

    def transition(self, key, start, finish, *args, **kwargs) -> None:
        if finish == "processing" and "train_plain" in str(key):
            self.out[key] += 1


@pytest.fixture
def there(machine, monkeypatch):
    """Stacks of three, as many threads here as there, and the address of the workers in the
    environment.
    """
    plans = {
        task: replace(plan, width=3, threads=machine.threads)
        for task, plan in stackings("cpu").items()
    }
    for module in (staff, planned_stacks):
        monkeypatch.setattr(module, "stackings", lambda device: plans)
    monkeypatch.delenv("WORKERS", raising=False)
    monkeypatch.setenv(cluster.ADDRESS, machine.scheduler.address)
    machine.handed.clear()
    return machine


class Told:
    """A journal that keeps what it is told, and may act on it."""

    def __init__(self, act=lambda event: None) -> None:
        self.events, self.act = [], act

    def tell(self, **event) -> None:
        self.events.append(event)
        self.act(event)

    @property
    def done(self) -> int:
        return sum(event.get("done", 0) for event in self.events)


def run(steps: int, seed: int, task: str = "saddle", **more) -> Run:
    usual = {
        "task": task,
        "optimizer": "momentum",
        "schedule": "linear",
        "lr": 0.02,
        "batch_size": 1,
    }
    settings = {
        "steps": steps,
        "seed": seed,
        "readouts": ("last", "ema-30"),
        "curve_points": 2,
        "test": True,
    }
    return Run(**usual | settings | more)


def rows_of_one_process(runs, tmp_path, monkeypatch) -> Tables:
    store = Store(tmp_path / "alone")
    with monkeypatch.context() as quiet:
        quiet.delenv(cluster.ADDRESS)
        sweep.train(runs, store, "cpu", Told())
    return store.load([run.key for run in runs])[0]


def same(found: Tables, expected: Tables) -> bool:
    return (
        all(one.equals(other) for one, other in zip(found, expected, strict=True))
        and len(found.finals) > 0
    )


def test_a_sweep_that_is_through_cancels_nothing(there, tmp_path, monkeypatch):
    cancelled = []
    monkeypatch.setattr(Client, "cancel", lambda client, futures, **_: cancelled.append(futures))
    sweep.train([run(11, seed) for seed in range(4)], Store(tmp_path / "store"), "cpu", Told())
    assert cancelled == []


def test_rows_are_those_of_one_process_to_the_bit(there, tmp_path, monkeypatch):
    perceptron = {"task": "mnist1d-mlp", "batch_size": 50, "lr": 0.05, "probes": ("predictions",)}
    runs = [run(17, seed, **perceptron) for seed in range(2)] + [run(11, seed) for seed in range(5)]
    runs += [run(7, 0, lr=1e30)]  # diverges
    store, journal = Store(tmp_path / "store"), Told()
    sweep.train(runs, store, "cpu", journal)
    found, receipts = store.load([run.key for run in runs])
    assert same(found, rows_of_one_process(runs, tmp_path, monkeypatch))
    assert found.runs.diverged_at.notna().sum() == 1 and len(found.predictions) > 0
    assert {receipt["threads"] for receipt in receipts} == {there.threads}
    assert journal.done == journal.events[0]["total"] and "end" in journal.events[-1]
    assert sorted(there.handed.values()) == [1] * 4

    sweep.train(runs, store, "cpu", journal)
    assert sum(there.handed.values()) == 4  # nothing was left to do


def test_killed_worker_costs_the_stack_it_had_in_hand_and_no_row(there, tmp_path, monkeypatch):
    runs = [run(steps, seed) for steps in (20, 200, 210, 220) for seed in range(2)]
    lost, held = [], []

    def kill_the_busy_one(event) -> None:
        busy = [state for state in there.scheduler.workers.values() if state.processing]
        if event.get("done") and not lost and busy:
            lost.extend(state.key for state in busy[0].processing)
            held.extend(
                state.key for state in busy[0].has_what
            )  # finished there and perhaps not fetched yet
            os.kill(there.pids[busy[0].address], signal.SIGKILL)

    store = Store(tmp_path / "store")
    sweep.train(runs, store, "cpu", Told(kill_the_busy_one))
    assert len(lost) == 1, "was to be killed with a stack in hand"
    again = {key for key, times in there.handed.items() if times > 1}
    assert set(lost) <= again <= {*lost, *held} and max(there.handed.values()) == 2
    assert len(there.handed) == 4
    assert same(
        store.load([run.key for run in runs])[0], rows_of_one_process(runs, tmp_path, monkeypatch)
    )


def test_interruption_keeps_finished_stacks_and_lets_go_of_all_locks(there, tmp_path):
    runs = [run(steps, seed) for steps in (10, 150, 160, 170) for seed in range(2)]
    store = Store(tmp_path / "store")

    def interrupt(event) -> None:
        if event.get("done"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        sweep.train(runs, store, "cpu", Told(interrupt))
    assert 0 < len(store.keys()) < len(runs)
    for stack in stacks(runs, "cpu"):
        with store.lock([run.key for run in stack]).acquire(timeout=0):
            assert stopped.traceback  # keeps all frames, so that no lock goes with its garbage


def test_stack_that_another_runner_trains_is_waited_for_and_not_trained_again(there, tmp_path):
    mine, theirs = [run(13, 0)], [run(12, 0)]  # theirs would come first
    store = Store(tmp_path / "store")
    lock = store.lock([theirs[0].key])
    lock.acquire()

    def other_runner_finishes(event) -> None:
        if event.get("done") and lock.is_locked:
            Store(tmp_path / "store").save(tables(theirs), stack_receipt(theirs))
            lock.release()

    sweep.train(mine + theirs, store, "cpu", Told(other_runner_finishes))
    assert len(there.handed) == 1 and store.keys() == {run.key for run in mine + theirs}


def test_failure_is_tried_again_and_then_told_here(there, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "RETRIES", 1)
    too_large = run(8, 1, task="mnist1d-mlp", batch_size=5_000)  # there are 4 000 examples
    with pytest.raises(ValueError, match="5000"):
        sweep.train([too_large], Store(tmp_path / "store"), "cpu", Told())
    assert list(there.handed.values()) == [2]


def failing(error: BaseException | None, result=None) -> Future:
    future: Future = Future()
    future.set_exception(error) if error else future.set_result(result)
    return future


def test_stack_that_kills_every_worker_is_named(there, tmp_path):
    killed = KilledWorker("train_plain-1", None, 3)
    with pytest.raises(
        RuntimeError,
        match=r"a stack of 1 × saddle went down with 4 workers.*what is finished is kept",
    ):
        cluster._store(failing(killed), [run(5, 0)], Store(tmp_path))


def test_rows_of_another_version_are_refused(there, tmp_path):
    returned = [(Tables(*tables([run(5, 1)])), {"commit": "0123456789ab"})], []
    with pytest.raises(RuntimeError, match="another version of steadydescent, 0123456789ab"):
        cluster._store(failing(None, returned), [run(5, 0)], Store(tmp_path))
    assert not Store(tmp_path).keys()


# ---- what is asked for, and what cannot be had ---------------------------------------------------


def asked(monkeypatch, workers: str = "", address: str = "") -> None:
    for name, value in (("WORKERS", workers), (cluster.ADDRESS, address)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("workers", ["0", "000", "-1", "+2", "two", "1.5", "1e3", "²", "2 ", "2_0"])
def test_number_of_workers_must_be_one(monkeypatch, workers):
    asked(monkeypatch, workers)
    with (
        pytest.raises(
            ValueError,
            match=f"must be auto or a whole number from 1 on, got '{re.escape(workers)}'",
        ),
        staff.workers("cpu"),
    ):
        pass


def test_workers_here_and_elsewhere_are_one_too_many(monkeypatch):
    asked(monkeypatch, "2", NOWHERE)
    with pytest.raises(ValueError, match="set one of them"):
        staff.workers("cpu").__enter__()


@pytest.fixture
def no_client_left():
    """A client that found no scheduler closes when it is collected; while the next one is made that
    would hang.
    """
    yield
    gc.collect()


@pytest.mark.usefixtures("no_client_left")
@pytest.mark.parametrize(
    "address",
    [
        *(
            NOWHERE,
            "tcp://",
            "ftp://somewhere:1",
            "no-such-host.invalid:8786",
            "garbage",
            "8786",
            ":8786",
            "://",
            " ",
        ),
        *(
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:99999",
            "tcp://127.0.0.1:-1",
            "tcp://127.0.0.1:port",
            "tcp://[::1",
            "é",
        ),
        *(
            "tls://127.0.0.1:9",
            "ucx://127.0.0.1:9",
            "http://127.0.0.1:9",
            "inproc://nobody",
            "x" * 300,
            "tcp://..:1",
        ),
    ],
)
def test_scheduler_that_does_not_answer_is_a_sentence(monkeypatch, capfd, address):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.3)
    asked(monkeypatch, address=address)
    with (
        pytest.raises(
            RuntimeError,
            match=re.escape(f"no Dask scheduler answers at DASK_SCHEDULER_ADDRESS={address} ("),
        ),
        staff.workers("cpu"),
    ):
        pass
    gc.collect()  # a connection that was dropped would tell now
    assert capfd.readouterr() == ("", "")


def test_port_at_which_something_else_answers_is_a_sentence(there, monkeypatch):
    """A server that says nothing, one that says something else, and a worker of the cluster."""
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.3)
    monkeypatch.delenv("WORKERS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address, reason in (
            (f"tcp://127.0.0.1:{silent.getsockname()[1]}", r"\("),
            (f"tcp://127.0.0.1:{there.scheduler.http_server.port}", r"\("),
            (next(iter(there.client.nthreads())), "it is the address of a Worker"),
        ):
            monkeypatch.setenv(cluster.ADDRESS, address)
            with (
                pytest.raises(RuntimeError, match=f"no Dask scheduler answers.*{reason}"),
                staff.workers("cpu"),
            ):
                pass


def test_workers_nannies_and_scheduler_listen_on_the_loopback_address_alone(machine):
    me, pids = (
        psutil.Process(),
        machine.client.run(os.getpid).values(),
    )  # a killed worker has another by now
    sockets = [
        (one.pid, found.laddr.ip, found.laddr.port)
        for one in (me, *map(psutil.Process, pids))
        for found in one.net_connections("inet")
        if found.status == psutil.CONN_LISTEN
    ]
    # a worker and its pages; the scheduler and its pages, and two nannies
    assert len(sockets) >= 2 * len(pids) + 4 and {pid for pid, *_ in sockets} >= set(pids)
    assert {ip for _, ip, _ in sockets} == {"127.0.0.1"}
    with pytest.raises(urllib.error.HTTPError, match="404"):  # no dashboard
        urllib.request.urlopen(f"http://127.0.0.1:{machine.scheduler.http_server.port}/status")


@pytest.mark.parametrize("command", ["plan", "run", "reproduce"])
def test_more_workers_than_there_is_room_for_are_refused_at_once(monkeypatch, command):
    asked(monkeypatch)
    monkeypatch.setattr(cluster, "CPU_COUNT", 2)
    monkeypatch.setattr(reproduce, "up_to_date", lambda plan, device: False)
    monkeypatch.setattr(reproduce.data, "fetch", lambda *_: None)
    monkeypatch.setattr(cluster, "local_cluster", lambda *_: pytest.fail("was to be refused first"))
    done = CliRunner().invoke(
        cli.main, [command, "--profile", "smoke", "--device", "cpu", "--workers", "9" * 21]
    )
    assert (
        done.exit_code == 1
        and "WORKERS must be at most 2 on this machine, one for each of 2 cores" in done.output
    )


@pytest.mark.parametrize("number", ["3", "999999", "0" * 30 + "3", "9" * 5_000])
def test_number_too_large_however_it_is_written(monkeypatch, number):
    asked(monkeypatch)
    monkeypatch.setattr(cluster, "CPU_COUNT", 2)
    with pytest.raises(ValueError, match="WORKERS must be at most 2 on this machine") as refused:
        staff.processes("cpu", number)
    assert len(str(refused.value)) < 300


def test_memory_limits_workers_as_cores_do(monkeypatch):
    asked(monkeypatch)
    monkeypatch.setattr(cluster, "CPU_COUNT", 64)
    widest = max(plan.memory for plan in stackings("cpu").values())
    monkeypatch.setattr(cluster, "MEMORY_LIMIT", (OWN_GIB + 3 * widest + 0.01) * 2**30)
    assert staff.processes("cpu", "3") == 3
    with pytest.raises(ValueError, match=r"at most 3 on this machine, .* got 4"):
        staff.processes("cpu", "4")


def test_without_dask_the_error_says_what_to_install(monkeypatch):
    asked(monkeypatch, "2")
    monkeypatch.delitem(sys.modules, "steadydescent.study.training.cluster")
    monkeypatch.delattr("steadydescent.study.training.cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(RuntimeError, match=r"pip install 'steadydescent\[cluster\]'"),
        staff.workers("cpu"),
    ):
        pass


@pytest.mark.parametrize("wanted", ["", "1"])
def test_nobody_who_asks_for_no_workers_needs_dask(monkeypatch, wanted):
    asked(monkeypatch, wanted)
    monkeypatch.setattr(staff, "cluster_module", None)
    with staff.workers("cpu") as address:
        assert address is None


def test_auto_is_as_many_processes_as_there_is_room_for(monkeypatch):
    asked(monkeypatch)
    monkeypatch.setattr(cluster, "CPU_COUNT", 8)
    widest = max(plan.memory for plan in stackings("cpu").values())
    for fit in (1, 3, 100):
        monkeypatch.setattr(cluster, "MEMORY_LIMIT", (OWN_GIB + fit * widest + 0.01) * 2**30)
        assert staff.processes("cpu", "auto") == min(8, fit)
    monkeypatch.setattr(cluster, "MEMORY_LIMIT", 2**28)
    assert staff.processes("cpu", "auto") == 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert staff.processes("cuda", "auto") == 3


def test_auto_is_one_process_without_dask_and_with_workers_elsewhere(monkeypatch):
    monkeypatch.setattr(cluster, "CPU_COUNT", 8)
    asked(monkeypatch, address=NOWHERE)
    assert staff.processes("cpu", "auto") == 1
    asked(monkeypatch)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert staff.processes("cpu", "auto") == 1


def test_every_worker_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with cluster.local_cluster(2, "cuda") as local, Client(local, set_as_default=False) as client:
        assert sorted(client.run(os.getenv, "CUDA_VISIBLE_DEVICES").values()) == ["3", "5"]
        assert set(client.nthreads().values()) == {1}
    with pytest.raises(ValueError, match="WORKERS must be at most 2, one a GPU, got 3"):
        cluster.local_cluster(3, "cuda")


def test_command_starts_its_workers_once_for_all_notebooks(monkeypatch):
    asked(monkeypatch)
    found = {}

    def pretend(todo, device, at_a_time, cell_hours) -> None:
        assert at_a_time == 2
        found.update(workers=os.environ.get("WORKERS"), address=os.environ[cluster.ADDRESS])
        with Client(found["address"], timeout=5, set_as_default=False) as client:
            found["threads"] = list(client.nthreads().values())

    monkeypatch.setattr(cluster, "room", lambda device, memory: 2)
    monkeypatch.setattr(reproduce, "run_notebooks", pretend)
    monkeypatch.setattr(reproduce, "up_to_date", lambda plan, device: False)
    monkeypatch.setattr(reproduce.data, "fetch", lambda *_: None)
    done = CliRunner().invoke(
        cli.main, ["run", "--device", "cpu", "--workers", "2"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    assert found["workers"] is None and found["threads"] == [max(1, cluster.CPU_COUNT // 2)] * 2
    assert cluster.ADDRESS not in os.environ

    refused = CliRunner().invoke(cli.main, ["run", "--device", "cpu"], env={"WORKERS": "none"})
    assert refused.exit_code == 1 and "WORKERS must be auto or a whole number" in refused.output


def test_scheduler_is_asked_from_inside_a_running_loop_as_a_notebooks_kernel_has_one():
    async def asked() -> None:
        with pytest.raises(
            RuntimeError, match=r"no Dask scheduler answers at .*127\.0\.0\.1:1 "
        ) as refused:
            cluster._client("tcp://127.0.0.1:1")
        assert "event loop" not in str(refused.value)

    asyncio.run(asked())
