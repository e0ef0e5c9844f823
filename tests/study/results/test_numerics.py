"""What made a run: code that its numbers depend on changes an ingredient, and nothing else does."""

import ast
import random
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from edited import edited, with_text
from fabricated import (
    SMALL_CLAIM,
    SMALL_EXPERIMENT,
    a_run,
    experiments_from,
    stack_receipt,
    tables,
    write_experiments,
)
from golden_runs import GOLDEN
from golden_runs import tables as train_golden
from steadydescent.engine.data import mnist1d
from steadydescent.engine.runs import Run
from steadydescent.engine.settings import read
from steadydescent.engine.shifted_tests import Shift
from steadydescent.engine.source_code import PACKAGE, STATEMENTS, Unit
from steadydescent.engine.stepping import prepared
from steadydescent.optimizers import RULES
from steadydescent.study.results import fingerprints as numerics
from steadydescent.study.results.fingerprints import (
    CARRIERS,
    CHOICES,
    ROOTS,
    TABLES,
    differences,
    ingredients,
)
from steadydescent.study.results.provenance import device_name
from steadydescent.study.results.store import Result, Store, read_folder
from steadydescent.study.training import stack_training, stored_runs
from steadydescent.study.training.sweep import summary, train
from steadydescent.study.training.trial import Trial
from steadydescent.weight_averaging import Readout
from trials import peak_at

QUICK = (
    "rule adam",
    "schedules",
    "schedule plateau",
    "norm ghost",
    "task noisy-quadratic",
    "features badly-scaled",
)
SLOW = (
    "rule nesterov",
    "readouts",
    "norm noisy-batch",
    "norm layer",
    "task mnist1d-cnn",
    "wrong labels",
    "diverged",
    "shifts",
    "probes",
    "task names-transformer",
    "fashion-mnist-cnn",
)


# ---- what runs is covered ------------------------------------------------------------------------


@cache
def executed(name: str) -> frozenset[Unit]:
    """The units of the package that run while a golden stack is trained and evaluated."""
    seen = set()

    def watch(frame, event, argument) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            seen.add((frame.f_code.co_filename, frame.f_lineno))

    numerics.find.cache_clear()
    sys.setprofile(watch)
    try:
        train_golden(name)
    finally:
        sys.setprofile(None)
    return frozenset(unit for place in seen if (unit := unit_at(*place)))


def unit_at(file: str, line: int) -> Unit | None:
    """The smallest unit that a line of a file stands in."""
    parts = Path(file).relative_to(PACKAGE).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    for statement in statements_of(module):
        first = min(
            [statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))]
        )
        if not first <= line <= statement.end_lineno:
            continue
        if isinstance(statement, ast.FunctionDef):
            return Unit(module, statement.name)
        for part in statement.body if isinstance(statement, ast.ClassDef) else []:
            first = min([part.lineno, *(d.lineno for d in getattr(part, "decorator_list", []))])
            if first <= line <= part.end_lineno and isinstance(part, ast.FunctionDef):
                return Unit(module, statement.name, part.name)
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            return Unit(module, target.id) if isinstance(target, ast.Name) else None
    return None


@cache
def statements_of(module: str) -> list:
    return ast.parse(numerics.TEXTS[module]).body


def covered(name: str) -> set[Unit]:
    """The units that the ingredients of a golden stack's runs consist of."""
    units = set()
    for run in GOLDEN[name]:
        chosen = (
            read(run.optimizer).name,
            read(run.schedule).name,
            tuple(Readout.parse(text).kind for text in run.readouts),
            tuple(Shift.parse(text).kind for text in run.shifts),
            run.probes,
        )
        for asked in [list(ROOTS), *numerics._names(run.task, *chosen, "cpu").values()]:
            units |= numerics.code().closure(asked)
    return units


# what says who a run is, or brings bytes from one place to another, is no ingredient
NO_INGREDIENTS = {
    *CARRIERS,
    *(Unit("engine.runs", "Run", name) for name in ("__copy__", "key", "row", "shape")),
    *(Unit("engine.data.mnist1d", name) for name in ("_code", "_generator_version", "identity")),
    *(
        Unit("engine.data", "identity"),
        Unit("engine.settings", "Setting", "text"),
        Unit("engine.settings", "_plain"),
        Unit("engine.data.name_pairs", "digest_of_pairs"),
        Unit("dataset_shift.torchvision_shim", "_declare_missing_schemas"),
    ),
}


def is_identity(unit: Unit) -> bool:
    """Data's ids, files, and the reading of this very code."""
    return (
        unit in NO_INGREDIENTS
        or unit.name in ("identity", "Gaussian")
        or unit.module in ("files", "engine.source_code")
    )


def marked(names, *marks):
    fashion = lambda name: [pytest.mark.needs_fashion] if name.startswith("fashion") else []
    return [pytest.param(name, marks=[*marks, *fashion(name)]) for name in names]


@pytest.mark.parametrize("name", [*marked(QUICK), *marked(SLOW, pytest.mark.slow)])
def test_all_that_runs_while_a_stack_is_trained_is_an_ingredient_of_its_runs(name):
    parts = covered(name)
    shared = set(TABLES.values())  # an entry's lambda is told from the others by its line alone
    missing = executed(name) - parts - shared
    assert not {unit for unit in missing if not is_identity(unit)}
    assert len(executed(name)) > 40


def mutants(module: str, unit: Unit, count: int) -> Iterator[str]:
    """Texts of a module with one number or operator of a unit changed; some of all there are, the
    same every time.
    """
    tree = ast.parse(numerics.TEXTS[module])
    runs = lines_that_run(tree, unit)
    places = [node for node in ast.walk(tree) if mutable(node) and node.lineno in runs]
    for node in random.Random(str(unit)).sample(places, min(count, len(places))):
        before = dict(vars(node))
        mutate(node)
        yield ast.unparse(tree)
        vars(node).update(before)


def mutable(node: ast.AST) -> bool:
    number = isinstance(node, ast.Constant) and type(node.value) in (int, float)
    return number or (isinstance(node, ast.BinOp) and not isinstance(node.op, ast.Mod | ast.BitOr))


def mutate(node) -> None:
    if isinstance(node, ast.Constant):
        node.value = node.value * 2 + 1
    else:
        node.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()


def lines_that_run(tree: ast.Module, unit: Unit) -> set[int]:
    """Lines of a unit but for those of errors and of what is said."""
    holders = [
        s for s in tree.body if getattr(s, "name", None) == unit.name or unit.name in names_of(s)
    ]
    if unit.part:
        holders = [
            part for s in holders for part in s.body if getattr(part, "name", None) == unit.part
        ]
    lines = lambda node: range(node.lineno, node.end_lineno + 1)
    inside = [node for s in holders for node in ast.walk(s) if hasattr(node, "lineno")]
    quiet = {
        line
        for node in inside
        if isinstance(node, ast.Raise) or is_said(node)
        for line in lines(node)
    }
    quiet |= {line for node in inside for line in annotated(node)}
    return {line for s in holders for line in lines(s)} - quiet


def annotated(node: ast.AST) -> set[int]:
    """Lines of annotations, where `int | None` is no arithmetic."""
    told = [getattr(node, "annotation", None), getattr(node, "returns", None)]
    return {part.lineno for part in told if part is not None}


def is_said(node: ast.AST) -> bool:
    named = isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2]
    return named in ("report", "warn", "warning")


def names_of(statement: ast.stmt) -> set[str]:
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    return {target.id for target in targets if isinstance(target, ast.Name)}


def missed_mutants(names, count: int) -> tuple[list[str], int]:
    """The mutants of what these golden stacks run, and of the constants that it reads, that no
    ingredient sees.
    """
    code, missed, tried = numerics.code(), [], 0
    asked = [*ROOTS, *code.choices]
    before, called = code.digest(*asked), code._called
    run = frozenset().union(*(executed(name) for name in names))
    constants = {
        unit for name in names for unit in covered(name) if unit.name.isupper() and not unit.part
    }
    for unit in sorted(unit for unit in run | constants if not is_identity(unit)):
        for text in mutants(unit.module, unit, count):
            tried += 1
            other = with_text(code, unit.module, text)
            other.__dict__["_called"] = called  # a number or an operator calls no method
            if other.digest(*asked) == before:
                missed.append(str(unit))
    return missed, tried


def test_a_changed_number_or_operator_in_what_runs_changes_an_ingredient():
    missed, tried = missed_mutants(QUICK, 1)
    assert not missed and tried > 100


@pytest.mark.slow
@pytest.mark.needs_fashion
def test_every_changed_number_or_operator_in_what_runs_changes_an_ingredient():
    missed, tried = missed_mutants((*QUICK, *SLOW), 1000)
    assert not missed and tried > 500


# ---- and nothing else ----------------------------------------------------------------------------


def all_ingredients() -> dict[str, dict[str, str]]:
    return {
        f"{name} {i}": ingredients(run, "cpu")
        for name, runs in GOLDEN.items()
        for i, run in enumerate(runs)
    }


def changed_by(module: str, old: str, new: str) -> set[str]:
    """Names of the ingredients that a change of text changes in any golden run."""
    before = all_ingredients()
    with edited(module, old, new):
        after = all_ingredients()
    return {
        name for run in before for name in before[run] if before[run][name] != after[run].get(name)
    }


NORMAL = ("data gaussian-2", "data gaussian-100")
CHANGES = [
    ("optimizers.rules", "- lr * velocity, (", "- 0.999 * lr * velocity, (", {"rule momentum"}),
    ("optimizers.rules", "grad + mu * velocity)", "grad + mu * mu * velocity)", {"rule nesterov"}),
    (
        "schedules.functions",
        "def cosine(total: int, end: float = 0.0)",
        "def cosine(total, end=0.1)",
        {"schedule cosine"},
    ),
    ("schedules.plateau", "bad > self.patience", "bad >= self.patience", {"schedule plateau"}),
    (
        "engine.evaluation",
        "CALIBRATION_BINS = 15",
        "CALIBRATION_BINS = 16",
        {"measures of networks"},
    ),
    (
        "engine.examples",
        "TRAIN_EXAMPLES = 4_000",
        "TRAIN_EXAMPLES = 4_001",
        {"engine", "probe training-loss"},
    ),
    ("engine.probes.losses", "TAIL = 4", "TAIL = 5", {"engine"}),
    ("engine.probes.orbit", "theta - centre", "theta + centre", {"probe orbit"}),
    ("engine.probes.predictions", "int = 1_000", "int = 1_001", {"probe predictions"}),
    (
        "engine.stack_rates",
        "(every, steps, every)",
        "(every, steps + 1, every)",
        {"schedule plateau"},
    ),
    (
        "weight_averaging.readouts",
        "np.zeros(total - length)",
        "np.zeros(total - length + 1)",
        {"readout tail"},
    ),
    ("normalization", "GHOST = 25", "GHOST = 5", {"norm ghost"}),
    ("engine.tasks.surfaces", "y**4 / 4", "y**4 / 5", {"surface saddle"}),
    (
        "engine.data.names",
        "COUNTS = {",
        "COUNTS = {'spare': 1, ",
        {"data names", "size of data names"},
    ),
    (
        "engine.data.gaussian",
        "POOL_SEED = 0x6E6F6973",
        "POOL_SEED = 3",
        {*NORMAL, *(f"size of {d}" for d in NORMAL)},
    ),
    ("engine.probes.noise", "MINIBATCHES = 16", "MINIBATCHES = 8", {"probe gradient-noise"}),
    ("dataset_shift.covariate", "(0.75, 1.5, 2.0", "(0.75, 1.5, 2.1", {"shift of signals shear"}),
    ("engine.shifted_tests", '"mnist1d": 4_000', '"mnist1d": 4_010', {"shifted test sets"}),
    # what changes no number
    ("optimizers.rules", "(velocity,) = state\n", "(velocity,) = state  # unpacked\n", set()),
    ("optimizers.rules", '"""Heavy-ball momentum as torch has it', '"""Heavy-ball momentum', set()),
    ("optimizers.rules", "theta: Tensor, grad: Tensor, state: State", "theta, grad, state", set()),
    ("optimizers.rule_optimizer", "closure", "closure_", set()),
    ("schedules.schedule", 'xlabel="update"', 'xlabel="step"', set()),
    ("schedules.by_name", "schedule must be one of", "choose a schedule among", set()),
    ("engine.stack", '"runs of a stack must agree', '"runs must agree', set()),
    ("engine.data.mnist1d", "MNIST-1D: drawing", "MNIST-1D: now drawing", set()),
    ("files", "temporary.touch(exist_ok=False)", "temporary.touch()", set()),
    ("study.judging.claims", "!= (len(self.primary) > 1)", "== (len(self.primary) > 1)", set()),
    ("study.judging.contrasts.tuned", "2 * 100**2 /", "3 * 100**2 /", set()),
    ("study.judging.measures.measure", "SEVERITY = 3", "SEVERITY = 4", set()),
    ("study.planning.plan", "EXTENSIONS = 4", "EXTENSIONS = 5", set()),
    ("study.planning.stacks", "OWN_GIB = 3.0", "OWN_GIB = 4.0", set()),
]


@pytest.mark.parametrize(
    ("module", "old", "new", "expected"),
    CHANGES,
    ids=lambda value: "" if isinstance(value, set) else str(value)[:40],
)
def test_a_change_reaches_the_ingredients_that_it_is_in_and_no_other(module, old, new, expected):
    assert changed_by(module, old, new) == expected


def test_layout_and_place_of_code_do_not_matter():
    """The same statements in one line, from another module, or under another import."""
    code, rule = numerics.code(), numerics.code().entry(TABLES["rule"], "adam")
    text = ast.unparse(ast.parse(numerics.TEXTS["averages"]))
    assert with_text(code, "averages", text).digest(rule) == code.digest(rule)
    moved = (
        numerics.TEXTS["averages"].replace("def ewa(", "def elsewhere(")
        + "\nfrom steadydescent.checks import ewa\n"
    )
    start = numerics.TEXTS["averages"].index("def ewa(")
    end = numerics.TEXTS["averages"].index("\ndef ", start + 1)
    other = with_text(code, "averages", moved)
    both = with_text(
        other, "checks", numerics.TEXTS["checks"] + "\n\n" + numerics.TEXTS["averages"][start:end]
    )
    both.modules["averages"] = other.modules["averages"]
    both._uses = {
        unit: uses for unit, uses in both._uses.items() if unit.module not in ("averages", "checks")
    }
    assert both.digest(rule) == code.digest(rule)


def test_a_name_taken_from_another_package_is_another_ingredient():
    old, new = (
        "from torch.nn.functional import log_softmax",
        "from torch.nn.functional import softmax as log_softmax",
    )
    assert {
        name for name in changed_by("engine.tasks.task", old, new) if name.startswith("task ")
    } >= {"task mnist1d-mlp"}


def test_every_definition_that_is_named_here_is_there():
    code = numerics.code()
    for unit in [
        *ROOTS,
        *TABLES.values(),
        *CARRIERS,
        *(unit for units in CHOICES.values() for unit in units),
    ]:
        assert unit.name in code.modules[unit.module].definitions, str(unit)
    assert all(
        "**" not in code.entries(TABLES[name])[1:]
        for name in ("rule", "schedule", "norm", "features", "readout", "probe")
    )
    assert {unit.part for unit in code.choices if unit.name == "RULES"} >= set(RULES)
    assert STATEMENTS in code.modules["engine.stack"].definitions


# ---- what is stored and what is trained again ----------------------------------------------------


class Told:
    def __init__(self) -> None:
        self.events: list[dict] = []

    def tell(self, **event) -> None:
        self.events.append(event)

    @property
    def notes(self) -> list[str]:
        return [event["note"] for event in self.events if "note" in event]


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A store, and what is trained into it: the real engine, a few updates on a surface."""
    found = Told()
    found.store, found.trained, real = Store(tmp_path / "store"), [], stack_training.train_stack

    def counted(runs, *rest, **named):
        found.trained += [read(run.optimizer).name for run in runs]
        return real(runs, *rest, **named)

    monkeypatch.setattr(stack_training, "train_stack", counted)
    return found


def surface_runs() -> list[Run]:
    base = {
        "task": "saddle",
        "schedule": "constant",
        "batch_size": 1,
        "steps": 7,
        "readouts": ("last",),
        "lr": 0.01,
    }
    return [
        Run(**base, optimizer=rule, seed=seed)
        for rule in ("momentum", "adam", "sgd")
        for seed in range(2)
    ]


def trained_now(bench, runs=None) -> list[str]:
    bench.trained.clear()
    bench.events.clear()
    train(runs or surface_runs(), bench.store, "cpu", bench)
    return sorted(bench.trained)


HALF = (
    "optimizers.rules",
    "return theta - lr * velocity, (velocity,)",
    "return theta - lr * velocity / 2, (velocity,)",
)


def test_a_changed_rule_has_its_runs_trained_again_and_no_other(bench):
    assert trained_now(bench) == ["adam"] * 2 + ["momentum"] * 2 + ["sgd"] * 2 and not bench.notes
    assert trained_now(bench) == []
    with edited(*HALF):
        assert trained_now(bench) == ["momentum"] * 2
        assert bench.notes == [
            "2 stored runs were trained by other code (rule momentum): trained again"
        ]
        assert trained_now(bench) == [] and not bench.notes
    assert (
        trained_now(bench) == []
    )  # the change is taken back, and what it had replaced is still there


def test_a_run_is_read_in_the_version_that_stands(bench, monkeypatch):
    runs = surface_runs()
    trained_now(bench)
    then, _ = stored_runs.stored(runs, bench.store, "cpu")
    update = RULES["momentum"].update
    half = lambda theta, grad, state, step, lr, **hyper: update(
        theta, grad, state, step, lr / 2, **hyper
    )
    with edited(*HALF), monkeypatch.context() as patch:
        patch.setitem(RULES, "momentum", RULES["momentum"]._replace(update=half))
        prepared.cache_clear()
        with pytest.raises(KeyError, match="2 of 6 runs are not in the store"):
            stored_runs.stored(runs, bench.store, "cpu")
        trained_now(bench)
        now, receipts = stored_runs.stored(runs, bench.store, "cpu")
    prepared.cache_clear()
    differs = then.finals.loss != now.finals.loss
    assert differs.tolist() == [True] * 2 + [False] * 4 and len(receipts) == 3
    assert stored_runs.stored(runs, bench.store, "cpu")[0].finals.equals(then.finals)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        (
            "packages",
            {"torch": "1.0", "numpy": "1.0"},
            r"trained by torch 1.0, numpy 1.0: trained again",
        ),
        ("device", "8 cores, Abacus", r"trained by another device \(8 cores, Abacus\)"),
        ("device_kind", "cuda", "trained by another device"),
        ("threads", 2, "trained by 2 threads"),
        ("optimized", True, "trained by python -O"),
        ("code", None, "trained by code that their receipt does not name"),
        ("code", {}, "trained by code that their receipt does not name"),
    ],
)
def test_other_machinery_has_runs_trained_again(bench, field, value, sentence):
    runs = [a_run(seed=seed, curve_points=2) for seed in range(2)]
    assert not any(differences(run, stack_receipt(runs), "cpu", 1) for run in runs)
    bench.store.save(tables(runs), stack_receipt(runs, **{field: value}))
    train(runs, bench.store, "cpu", bench)
    assert len(bench.trained) == 2
    assert len(bench.notes) == 1 and re.search(sentence, bench.notes[0])


@pytest.mark.parametrize(
    "field",
    ["commit", "date", "python", "command", "memory_gib", "width", "compiled", "seconds"]
    + ["evaluation"],
)
def test_what_bears_on_no_number_has_nothing_trained_again(bench, field):
    runs = [a_run(seed=seed, curve_points=2) for seed in range(2)]
    bench.store.save(tables(runs), stack_receipt(runs, **{field: 7}))
    assert trained_now(bench, runs) == [] and not bench.notes


def test_as_many_cores_as_there_are_make_no_other_device(bench):
    runs = [a_run(curve_points=2)]
    model = device_name("cpu").partition(" cores, ")[2]
    bench.store.save(tables(runs), stack_receipt(runs, device=f"64 cores, {model}"))
    assert trained_now(bench, runs) == []


def test_stored_runs_are_taken_whatever_made_them_if_one_says_so(bench, monkeypatch):
    runs = [a_run(seed=seed, curve_points=2) for seed in range(2)]
    bench.store.save(tables(runs), stack_receipt(runs, code=None, commit="0123abc"))
    monkeypatch.setenv(numerics.ACCEPT, "1")
    assert trained_now(bench, runs) == []
    assert any(
        "2 stored runs were trained by other code and are taken as they are" in note
        for note in bench.notes
    )
    _, receipts = stored_runs.stored(runs, bench.store, "cpu")
    assert [told["commit"] for told in summary(receipts, "cpu")["trained_by"]] == ["0123abc"]


def test_the_word_that_accepts_is_1_or_none(monkeypatch):
    for said in ("yes", "true", "0", " "):
        monkeypatch.setenv(numerics.ACCEPT, said)
        with pytest.raises(
            ValueError, match=f"{numerics.ACCEPT} must be 1, .*, or unset, got '{said}'"
        ):
            numerics.accepted()


def test_a_result_names_what_trained_each_of_its_stacks(bench):
    """Commits, torch versions, devices, threads: those of the stacks, not of the command that sums
    them up.
    """
    parts = [[a_run(seed=seed, curve_points=2)] for seed in range(3)]
    for runs, commit, compiled in zip(
        parts, ("aaa", "aaa", "bbb"), (True, False, False), strict=True
    ):
        bench.store.save(tables(runs), stack_receipt(runs, commit=commit, compiled=compiled))
    _, receipts = stored_runs.stored([run for runs in parts for run in runs], bench.store, "cpu")
    told = summary(receipts, "cpu")
    here = {"torch": told["packages"]["torch"], "device": device_name("cpu"), "threads": 1}
    assert told["trained_by"] == [
        {"commit": "aaa", **here, "stacks": 2, "compiled": 1},
        {"commit": "bbb", **here, "stacks": 1, "compiled": 0},
    ]


def test_a_result_says_what_evaluation_took_where_all_its_stacks_do(bench):
    runs, took = [a_run(curve_points=2)], {"curves": 1.25, "finals": 2.0}
    new, old = stack_receipt(runs, evaluation=took), stack_receipt(runs)
    assert summary([new] * 3, "cpu")["evaluation"] == {"curves": 3.8, "finals": 6.0}
    assert "evaluation" not in summary([new, old], "cpu")


# ---- a whole experiment --------------------------------------------------------------------------


@pytest.fixture
def study(toy, monkeypatch):
    """The small experiment, from tuning to a saved result; networks are scored at once. What was
    trained is counted.
    """
    found, score = [], peak_at({"": 0})

    def pretend(runs, device, tell, compiled, threads=None):
        found.extend(runs)
        return tables(runs, score), stack_receipt(runs, commit=f"commit {'b' if edits else 'a'}")

    edits: list[str] = []
    monkeypatch.setattr(stack_training, "train_stack", pretend)

    def go() -> tuple[int, dict]:
        found.clear()
        trial = Trial("toy", "mnist1d-mlp", "smoke", "cpu", store=toy / "store")
        trial.tune()
        trial.report()
        return len(found), read_folder(trial.save(toy / "results"), Result)[1]

    return go, edits, toy


def test_an_experiment_trains_what_changed_and_its_receipt_says_what_trained_it(study):
    go, edits, _ = study
    first, receipt = go()
    assert first > 10 and [told["commit"] for told in receipt["trained_by"]] == ["commit a"]
    assert go()[0] == 0
    edits.append("linear")
    with edited(
        "schedules.functions",
        "np.minimum(step - 1, total) / total",
        "np.minimum(step, total) / total",
    ):
        count, receipt = go()
        assert 0 < count < first  # half of the conditions are constant
        assert {told["commit"] for told in receipt["trained_by"]} == {"commit a", "commit b"}
        assert sum(told["stacks"] for told in receipt["trained_by"]) == receipt["stacks"]
        assert go()[0] == 0


def test_margins_and_titles_have_nothing_trained_again_and_a_grid_only_its_new_rates(study):
    go, _, toy = study
    first, _ = go()
    told = [contrast | {"margins": {"mnist1d-mlp": 0.1}} for contrast in SMALL_CLAIM["primary"]]
    renamed = SMALL_EXPERIMENT | {"title": "Renamed", "secondary": []}
    write_experiments(toy / "experiments", renamed, [SMALL_CLAIM | {"primary": told}])
    with experiments_from(toy / "experiments"):
        assert go()[0] == 0
    finer = {
        "rates": {"mnist1d-mlp": {"center": 0.1, "ratio": 4, "points": 5}}
    }  # the centre is the same
    write_experiments(toy / "experiments", SMALL_EXPERIMENT | finer)
    with experiments_from(toy / "experiments"):
        assert 0 < go()[0] < first


def test_data_drawn_by_other_code_are_drawn_again(tmp_path, monkeypatch):
    before = mnist1d.list_parts([3], tmp_path)
    text = numerics.TEXTS["dataset_shift.mnist1d_signals"]
    changed = {
        **numerics.TEXTS,
        "dataset_shift.mnist1d_signals": text.replace(
            '"iid_noise_scale"] *', '"iid_noise_scale"] * 2 *'
        ),
    }
    assert changed != numerics.TEXTS
    monkeypatch.setattr(mnist1d, "sources", lambda: changed)
    mnist1d._code.cache_clear()
    try:
        after = mnist1d.list_parts([3], tmp_path)
    finally:
        mnist1d._code.cache_clear()
    assert not {part.path for part in before} & {part.path for part in after}
