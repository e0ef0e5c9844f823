"""Whatever a user types or a file says: taken as it is meant, or refused in a sentence before
anything starts.

Every option, variable and field is enumerated from the code. The fuzz makes 500 cases, and 10 000
with `STEADY_FUZZ=nightly`.
"""

import copy
import json
import os
import re
import shlex
import string
from contextlib import suppress
from functools import reduce
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from fabricated import SMALL_CLAIM, SMALL_EXPERIMENT, experiments_from
from steadydescent.cli import main
from steadydescent.engine.settings import read
from steadydescent.study import yaml_files
from steadydescent.study.judging import claims
from steadydescent.study.paths import EXPERIMENTS, ROOT
from steadydescent.study.planning import Experiment, Parameters, load_study, plans
from steadydescent.study.training import stack_training

CASES = 10_000 if os.environ.get("STEADY_FUZZ") == "nightly" else 500
fuzz = settings(max_examples=CASES, suppress_health_check=list(HealthCheck), deadline=None)
STUDY, CLAIMS = yaml.safe_dump({"toy": SMALL_EXPERIMENT}), yaml.safe_dump([SMALL_CLAIM])
LONGEST = 1_500
"""Characters of a message, which lists what is known."""


def told(work) -> str:
    """What a refusal says; empty where nothing is refused. Any other exception passes."""
    try:
        work()
    except (ValueError, FileNotFoundError) as error:
        text = str(error)
        assert text and "\n" not in text and len(text) < LONGEST, text
        return text
    return ""


def loaded(folder: Path, study: str | bytes = STUDY, of_claims: str | bytes = CLAIMS) -> str:
    """What the two files are refused with; every plan of theirs is made, too."""
    folder.mkdir(exist_ok=True)
    for name, text in (("study.yml", study), ("claims.yml", of_claims)):
        (folder / name).write_bytes(
            text.encode(errors="surrogatepass") if isinstance(text, str) else text
        )

    def work():
        load_study()
        claims.load_claims()
        for profile in ("smoke", "laptop"):
            plans(profile)

    with experiments_from(folder):
        return told(work)


def test_the_two_files_themselves_are_taken(tmp_path):
    assert loaded(tmp_path) == ""
    assert (
        loaded(
            tmp_path,
            (EXPERIMENTS / "study.yml").read_text(),
            (EXPERIMENTS / "claims.yml").read_text(),
        )
        == ""
    )


# ---- YAML ----------------------------------------------------------------------------------------

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n"
    for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)
NOT_YAML = {
    "broken": "toy: {title: [",
    "tab": "toy:\n\ttitle: x",
    "control character": "toy: \x07",
    "no UTF-8": b"toy: \xff\xfe",
    "another kind": "- 1\n- 2",
    "empty": "",
    "text": "toy",
    "alias bomb": BOMB,
    "alias of itself": "toy: &a {b: *a}",
    "unknown alias": "toy: *nowhere",
    "python object": "toy: !!python/object/apply:os.system ['touch pwned']",
    "python name": "toy: !!python/name:os.system",
    "tag": "toy: !mine {a: 1}",
    "binary": "toy: !!binary aGk=",
    "set": "toy: !!set {a, b}",
    "date": "toy: 2026-01-01",
    "octal": "toy: 010",
    "sexagesimal": "toy: 1:30",
    "underscores": "toy: 1_000",
    "huge number": "toy: " + "9" * 5_000,
    "infinite": "toy: .inf",
    "not a number": "toy: .nan",
    "key no text": "toy: {no: 1}",
    "number as key": "1: {a: 1}",
    "list as key": "? [a]\n: 1",
    "twice": "toy: 1\ntoy: 2",
    "twice inside": "toy: {a: 1, b: {c: 1, c: 1}}",
    "two documents": "a: 1\n---\nb: 2",
    "deep": "[" * 5_000,
    "deep and closed": "toy: " + "[" * 100 + "]" * 100,
    "large": "# " + "x" * 3_000_000,
}


@pytest.mark.parametrize("text", NOT_YAML.values(), ids=NOT_YAML.keys())
@pytest.mark.parametrize("file", ["study", "of_claims"])
def test_what_is_no_plain_yaml_is_refused_with_the_file_and_line(tmp_path, file, text):
    name = {"study": "study.yml", "of_claims": "claims.yml"}[file]
    message = loaded(tmp_path, **{file: text})
    assert name in message, message
    assert not (tmp_path / "pwned").exists() and not Path("pwned").exists()


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "study.yml")
    with pytest.raises(ValueError, match=r"study\.yml must be a regular file"):
        yaml_files.read(tmp_path / "study.yml")
    with pytest.raises(ValueError, match="regular file"):
        yaml_files.read(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no .*claims\.yml"):
        yaml_files.read(tmp_path / "claims.yml")


def test_nothing_else_reads_yaml():
    """Where plain `yaml.safe_load` stood, a key given twice was taken in silence."""
    sources = {
        path: path.read_text()
        for path in (*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py"))
        if path.name != "yaml_files.py"
    }
    assert not [
        path for path, text in sources.items() if re.search(r"\byaml\.(safe_)?(load|compose)", text)
    ]


# ---- every field ---------------------------------------------------------------------------------


def places(value: object, place: tuple = ()) -> list[tuple]:
    """Every place in plain data."""
    inside = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list | tuple)
        else ()
    )
    return [place, *(done for key, item in inside for done in places(item, (*place, key)))]


def replaced(value: object, place: tuple, new: object) -> object:
    """Plain data with something else at a place."""
    if not place:
        return new
    out = copy.deepcopy(value)
    inner = out
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = new
    return out


WRONG = [
    None,
    True,
    False,
    0,
    -1,
    1e300,
    10**12,
    "",
    "x",
    "1e-3",
    "<script>",
    "../x",
    [],
    {},
    [[]],
    {"x": {}},
    ["x", "x"],
]
DATA = {
    "study": json.loads(json.dumps({"toy": SMALL_EXPERIMENT})),
    "of_claims": json.loads(json.dumps([SMALL_CLAIM])),
}


@pytest.mark.parametrize("file", DATA)
def test_every_value_is_taken_as_it_is_or_refused_in_a_sentence_with_its_line(file, tmp_path):
    for place in places(DATA[file]):
        for wrong in WRONG:
            message = loaded(
                tmp_path,
                **{file: yaml.safe_dump(replaced(DATA[file], place, wrong), allow_unicode=True)},
            )
            named = any(name in message for name in ("study.yml", "claims.yml"))
            assert not message or named, (place, wrong, message)


@pytest.mark.parametrize("file", DATA)
def test_a_text_or_a_truth_value_is_no_number(file, tmp_path):
    for place in places(DATA[file]):
        inner = DATA[file]
        for key in place:
            inner = inner[key]
        if isinstance(inner, int | float) and not isinstance(inner, bool):
            for wrong in (True, str(inner), "1e-3"):
                assert loaded(
                    tmp_path, **{file: yaml.safe_dump(replaced(DATA[file], place, wrong))}
                ), (place, wrong)


@pytest.mark.parametrize(
    "field", ["measure", "rule", "better", "rate", "margins", "arm", "against", "registered"]
)
def test_what_decides_a_verdict_is_never_left_out(field, tmp_path):
    changed = copy.deepcopy(DATA["of_claims"])
    del changed[0]["primary"][0][field]
    message = loaded(tmp_path, of_claims=yaml.safe_dump(changed))
    assert re.search(
        rf"claims\.yml, line \d+: .*({field} is missing|needs an arm to stand against)", message
    ), message


@pytest.mark.parametrize("field", ["optimizer", "schedule", "batch_size"])
def test_what_runs_are_made_with_is_never_left_out(field, tmp_path):
    """`n = 128` without its batch size would be trained with a batch of 1."""
    changed = copy.deepcopy(DATA["study"])
    changed["toy"]["runs"].pop(field, None)
    for condition in changed["toy"]["conditions"].values():
        condition.pop(field, None)
    message = loaded(tmp_path, study=yaml.safe_dump(changed))
    assert re.search(
        rf"study\.yml, line \d+: .*{field} of '.*' under 'constant' in .*/mnist1d-mlp", message
    ), message


def models(kind: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The models inside a model, by name."""
    inner = [
        model
        for field in kind.model_fields.values()
        for model in yaml_files._models(field.annotation)
    ]
    return {
        kind.__name__: kind,
        **{name: done for model in inner for name, done in models(model).items()},
    }


@pytest.mark.parametrize(
    "kind", [*models(Experiment).values(), *models(claims.Claim).values()], ids=lambda k: k.__name__
)
def test_every_misspelt_field_is_answered_with_the_one_that_was_meant(kind, tmp_path):
    for field in kind.model_fields:
        if len(field) < 4:
            continue
        (tmp_path / "x.yml").write_text(json.dumps({"a": {field[:-2] + field[-1]: 1}}))
        file = yaml_files.read(tmp_path / "x.yml")
        error = {
            "type": "extra_forbidden",
            "loc": (field[:-2] + field[-1],),
            "msg": "Extra",
            "input": 1,
        }
        if error["loc"][0] not in kind.model_fields:
            assert yaml_files.sentence(kind, error) == f"is unknown; did you mean {field!r}?"
        assert file.content["a"]


def test_a_claim_or_a_list_that_says_something_twice_is_refused(tmp_path):
    assert "is the id of an earlier claim" in loaded(
        tmp_path, of_claims=yaml.safe_dump([SMALL_CLAIM, SMALL_CLAIM])
    )
    changed = replaced(DATA["study"], ("toy", "arms", "ema", "readouts"), ["last", "last"])
    assert "twice" in loaded(tmp_path, study=yaml.safe_dump(changed))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("profiles", "laptop", "mnist1d-mlp", "steps"), 10**9),
        (("profiles", "laptop", "mnist1d-mlp", "tuning"), 10**9),
        (("profiles", "laptop", "mnist1d-mlp", "points"), 10**9 + 1),
        (("profiles", "laptop", "mnist1d-mlp", "curve_points"), 10**9),
        (("conditions", "linear", "points"), 10**9 + 1),
        (("rates", "mnist1d-mlp", "points"), 10**9 + 1),
        (("runs", "batch_size"), 10**12),
        (("runs", "steps"), 1e30),
    ],
)
def test_sizes_that_no_machine_could_run_are_refused_at_once(place, value, tmp_path):
    changed = copy.deepcopy(DATA["study"])
    changed["toy"]["conditions"]["linear"].setdefault("points", 3)
    message = loaded(tmp_path, study=yaml.safe_dump(replaced(changed, ("toy", *place), value)))
    assert re.search(r"study\.yml, line \d+: .*(less than or equal to|at most)", message), message


# ---- fuzz ----------------------------------------------------------------------------------------

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=8,
)


@fuzz
@given(file=st.sampled_from(list(DATA)), at=st.integers(0, 10**6), value=plain)
def test_any_value_anywhere_in_a_file(tmp_path_factory, file, at, value):
    there = places(DATA[file])
    text = yaml.safe_dump(replaced(DATA[file], there[at % len(there)], value), allow_unicode=True)
    loaded(tmp_path_factory.getbasetemp() / "any", **{file: text})


@fuzz
@given(
    at=st.floats(0, 1),
    cut=st.integers(0, 40),
    text=st.text(max_size=12) | st.sampled_from(list("&*!:{}[]|>%@`#?-\"'")),
)
def test_any_edit_of_the_study_itself(tmp_path_factory, at, cut, text):
    """A piece of the real file cut out and another put in: the file is refused by its line, or
    taken.
    """
    whole = (EXPERIMENTS / "study.yml").read_text()[:6_000]
    start = int(at * len(whole))
    path = tmp_path_factory.getbasetemp() / "study.yml"
    path.write_text(whole[:start] + text + whole[start + cut :], encoding="utf-8", errors="replace")

    def work():
        file = yaml_files.read(path)
        for name in file.content if isinstance(file.content, dict) else ():
            file.model(Experiment, (name,), name=name)

    assert (message := told(work)) == "" or "study.yml" in message


@fuzz
@given(st.text(max_size=80) | st.from_regex(r"[a-z-]{1,8}\([a-z]{1,5}=.{0,40}\)", fullmatch=True))
def test_any_text_as_a_setting(text):
    if not told(lambda: read(text)):
        again = read(read(text).text())
        assert again.name == read(text).name


@pytest.mark.parametrize(
    "inside",
    [
        "(" * 900,
        "[" * 900,
        "-" * 900 + "1",
        "1j",
        "b'x'",
        "{}",
        "{1: 2}",
        "1e999",
        "x()",
        "__import__('os')",
        "lambda: 1",
        "f'{1}'",
        "*x",
        "a=1",
    ],
)
def test_settings_hold_numbers_and_names_alone(inside):
    assert "is not of the form" in told(lambda: read(f"adam(beta1={inside})"))


@fuzz
@given(
    st.dictionaries(
        st.sampled_from([*Parameters.model_fields, "x", "__class__"]), plain, max_size=5
    )
)
def test_any_parameters_of_a_notebook(given_):
    with suppress(ValidationError):
        Parameters(**given_)


# ---- the command ---------------------------------------------------------------------------------


def options() -> list[tuple[list[str], str, str | None]]:
    """Every option of every command that takes a value: words of the command, the option, its
    variable.
    """
    readers = []
    for name, command in main.commands.items():
        for words, inner in [
            ([name], command),
            *(([name, n], c) for n, c in getattr(command, "commands", {}).items()),
        ]:
            readers += [
                (words, parameter.opts[0], parameter.envvar)
                for parameter in inner.params
                if parameter.param_type_name == "option" and not parameter.is_flag
            ]
    return readers


BAD_VALUES = [
    "",
    " ",
    "lapto",
    "-1",
    "99999999999999999999",
    "nan",
    "../..",
    "x'; touch pwned; '",
    "\u0416" * 5_000,
]
TRIED = {
    "plan": [],
    "verify": [],
    "claims": ["--source", "reproduced"],
    "cite": ["--source", "reproduced"],
}
"""Commands whose bad values are tried out, with the words that keep them from work; the others
share their options, and would train, serve or delete.
"""


@pytest.fixture
def quiet(monkeypatch):
    for name in ("PROFILE", "DEVICE", "ONLY", "WORKERS", "STEADY_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STEADY_COMMAND", "steady test")
    monkeypatch.setattr(stack_training.torch.cuda, "is_available", lambda: False)


def said_by(words: list[str], **environment: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, words, env=environment)
    assert done.exception is None or isinstance(done.exception, SystemExit), (
        words,
        done.exception,
    )
    assert "Traceback" not in done.output and done.exit_code in (0, 1, 2)
    return done.exit_code, done.output


def refused_by_type(words: list[str], option: str) -> None:
    """Hold a number's option to its type, which refuses before a command begins."""
    command = reduce(lambda group, name: group.commands[name], words, main)
    parameter = next(each for each in command.params if option in each.opts)
    if isinstance(parameter.type, click.types.FloatParamType | click.types.IntParamType):
        for value in BAD_VALUES:
            with pytest.raises(click.BadParameter):
                parameter.type.convert(value, parameter, click.Context(command))


@pytest.mark.parametrize(("words", "option", "variable"), options(), ids=lambda value: str(value))
def test_a_bad_value_of_any_option_is_refused_in_a_sentence(
    words, option, variable, quiet, tmp_path, monkeypatch
):
    if words[0] not in TRIED or option == "--workers":
        elsewhere = {other for where, other, _ in options() if where[0] in TRIED}
        own = {"--workers", "--port", "--only", "--with", "--seconds", "--rounds", "--cell-hours"}
        assert option in elsewhere | own | {"--minutes", "--out", "--from"}
        refused_by_type(words, option)
        return
    monkeypatch.setattr("steadydescent.study.book.saved_results.REPRODUCED", tmp_path)
    others = [] if option == "--source" else TRIED[words[0]]
    for value in BAD_VALUES:
        if option == "--only" and not value.strip():
            continue  # nothing asked for is everything
        code, text = said_by([*words, *others, option, value])
        assert code, (words, option, value, text)
        if variable and value:  # an empty variable says nothing
            assert said_by([*words, *others], **{variable: value})[0] == code
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ("plan --profile lapto", "laptop"),
        ("plan --profile Smoke", "smoke"),
        ("plan --device gpu", "cpu"),
        ("plan --device CUDA", "cuda"),
        ("plan --only weight-averaging", "weight_averaging"),
        ("plan --only weight_averaging/mnist1d_mlp", "weight_averaging/mnist1d-mlp"),
        ("claims --source publishd", "published"),
        ("plann", "plan"),
        ("plan --profil smoke", "--profile"),
        ("data fetch fashion_mnist", "fashion-mnist"),
        ("data fetsh", "fetch"),
        ("cite weight-averaging/mnist1d-mpl", "weight-averaging/mnist1d-mlp"),
        ("bench --only 'train mnist1d-mpl, one EMA'", "train mnist1d-mlp, one EMA"),
        ("bench --with boook", "book"),
    ],
)
def test_the_nearest_known_name_is_the_answer_to_a_misspelt_one(words, near, quiet):
    code, text = said_by(shlex.split(words))
    assert code and re.search(rf"[Dd]id you mean[^?]*{re.escape(near)}", " ".join(text.split())), (
        text
    )


WORDS = ["x", "--profile", "--json", "--only", "smoke", "--", "-h", "--source", "=", ""]


@fuzz
@given(st.lists(st.sampled_from(WORDS) | st.text(string.printable, max_size=8), max_size=5))
def test_any_words_on_the_command_line(words):
    if words and words[0] in main.commands:
        words = ["x", *words]  # what the commands do is tried out above
    done = CliRunner().invoke(main, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
