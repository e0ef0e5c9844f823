"""A file gives back what it took, type and value, or refuses when saving and names the place."""

import enum
import math
import struct
import warnings
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from torch import nn

from steadydescent.weight_averaging import checkpoint_files, load_checkpoint, save_checkpoint

ONCE = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Part:
    """Anything at all as a part's state."""

    def __init__(self, state=None):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def returned(path, value):
    """What a checkpoint gives back."""
    save_checkpoint(path, nn.Linear(1, 1), None, 3, part=Part(value))
    part = Part()
    load_checkpoint(path, nn.Linear(1, 1), part=part)
    return part.state


def same(one, other):
    """Equal in type, value, order and bits, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        facts = lambda tensor: (tensor.dtype, tensor.shape, tensor.requires_grad, tensor.stride())
        return facts(one) == facts(other) and bits(one) == bits(other)
    if isinstance(one, np.ndarray | np.generic):
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, dict):
        alike = getattr(one, "default_factory", 0) == getattr(other, "default_factory", 0)
        return alike and vars_of(one) == vars_of(other) and same([*one.items()], [*other.items()])
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and all(any(same(a, b) for b in other) for a in one)
    if isinstance(one, list | tuple | deque):
        alike = getattr(one, "maxlen", 0) == getattr(other, "maxlen", 0) and len(one) == len(other)
        return alike and all(map(same, one, other))
    return one == other


def bits(tensor):
    return (
        tensor.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    )


def vars_of(value):
    return getattr(value, "__dict__", {})


# What comes back

numbers = st.integers() | st.integers(-(2**5000), 2**5000) | st.floats() | st.complex_numbers()
numpy_dtypes = (
    st_numpy.scalar_dtypes()
    .filter(lambda dtype: dtype.kind in "biufcmM" and dtype.char not in "gG")
    .filter(lambda dtype: np.dtype(dtype.str).type is dtype.type)
)
numpy_scalars = numpy_dtypes.flatmap(lambda dtype: st_numpy.from_dtype(dtype.newbyteorder("=")))
keys = (
    st.none()
    | st.booleans()
    | numbers
    | st.text()
    | st.binary()
    | st.tuples(st.integers(), st.text())
)
arrays = numpy_dtypes.flatmap(
    lambda dtype: st_numpy.arrays(dtype, st_numpy.array_shapes(min_dims=0, min_side=0))
)
tensors = st.sampled_from(
    [
        torch.tensor(3),
        torch.tensor([math.nan, -0.0, math.inf]),
        torch.empty(0, 5),
        torch.arange(6.0).view(2, 3).t(),
        torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.ones(3, dtype=torch.bfloat16),
        torch.tensor([1 + 2j]).conj(),
        torch.tensor([1 + 2j], dtype=torch.complex128),
        torch.ones(2).to(torch.float8_e4m3fn),
        torch.ones(2).to(torch.float8_e8m0fnu),
        torch.tensor([65535], dtype=torch.uint16),
        torch.tensor([[True], [False]]),
        nn.Parameter(torch.ones(2)),
        nn.Parameter(torch.ones(2), requires_grad=False),
        torch.Generator().manual_seed(3).get_state(),
    ]
)
atoms = (
    keys | numpy_scalars | arrays | tensors | st.sampled_from([torch.Size([2, 3]), torch.float16])
)
atoms |= st.sampled_from([torch.device("cpu"), torch.device("cuda", 1), frozenset({1, "1"})])
trees = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4).map(OrderedDict)
        | st.dictionaries(keys, inner, max_size=4).map(lambda items: defaultdict(list, items))
        | st.dictionaries(keys, st.integers(), max_size=4).map(Counter)
        | st.tuples(st.lists(inner, max_size=4), st.none() | st.integers(0, 5)).map(
            lambda pair: deque(*pair)
        )
        | st.sets(keys, max_size=4)
        | st.frozensets(keys, max_size=4)
    ),
    max_leaves=12,
)


@given(trees)
@ONCE
def test_nested_state_comes_back_in_type_and_value(tmp_path, value):
    assert same(returned(tmp_path / "a.safetensors", value), value)


def test_a_view_comes_back_as_a_tensor_of_its_own(tmp_path):
    whole = torch.arange(10)
    assert same(returned(tmp_path / "a.safetensors", whole[::2]), torch.tensor([0, 2, 4, 6, 8]))
    assert same(returned(tmp_path / "a.safetensors", torch.ones(1).expand(5)), torch.ones(5))


def test_what_is_not_a_value_does_not_come_back(tmp_path):
    """As the head of `packing` says."""
    tensor, array = torch.ones(2, requires_grad=True), np.asfortranarray(np.ones((2, 3)))
    parameter = nn.Parameter(torch.ones(2), requires_grad=False)
    tensor.note = parameter.note = 1
    array.flags.writeable = False
    back = returned(tmp_path / "a.safetensors", [tensor, parameter, array])
    assert not back[0].requires_grad and not hasattr(back[0], "note")
    assert (
        type(back[1]) is nn.Parameter and not back[1].requires_grad and not hasattr(back[1], "note")
    )
    assert back[2].flags.c_contiguous and back[2].flags.writeable and np.array_equal(back[2], array)


@pytest.mark.parametrize(
    "value",
    [
        {"a": {"b": torch.ones(1)}, "a.b": torch.zeros(1)},
        {1: torch.ones(1), "1": torch.zeros(1), (1, 2): torch.ones(2)},
        OrderedDict(b=1, a=2),
        defaultdict(None, {1: 2}),
        Counter("abca"),
        deque([1, 2, 3], maxlen=3),
        {None: 1, True: 2, 2: 3, "2": 4, 2.5: 5},
        [10**5000, -(2**63), 2**63 - 1],
        [math.nan, -math.nan, math.inf, -0.0],
        ["\0", "ё", "\U0001f600", "\u2028", '"', "{}"],
        {"": {"": {"": torch.ones(1)}}, "..": torch.zeros(1)},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_other_files_confuse_comes_back(tmp_path, value):
    assert same(returned(tmp_path / "a.safetensors", value), value)


def test_a_modules_state_keeps_the_versions_that_its_loaders_ask_for(tmp_path):
    state = nn.Sequential(nn.BatchNorm1d(2)).state_dict()
    back = returned(tmp_path / "a.safetensors", state)
    assert back._metadata == state._metadata and type(back._metadata) is OrderedDict


# What is refused


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Name(str):
    pass


class Mine(dict):
    pass


class Number(int):
    pass


class Share(float):
    pass


class Row(list):
    pass


class Odd(torch.Tensor):
    pass


Point = namedtuple("Point", "x y")
ITSELF: list = []
ITSELF.append(ITSELF)
DEEP: list = []
for _ in range(3000):
    DEEP = [DEEP]
HUNG = OrderedDict()
HUNG.note = 1


with warnings.catch_warnings(action="ignore"):  # torch: a prototype
    NESTED = [
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=layout)
        for layout in (torch.strided, torch.jagged)
    ]
LOST = [
    *(Colour.RED, Level.LOW, Name("a"), Mine(a=1), Number(3), Share(0.5), Row([1]), Point(1, 2)),
    *(
        print,
        object(),
        lambda: 3,
        Colour,
        range(3),
        bytearray(b"a"),
        memoryview(b"a"),
        ITSELF,
        DEEP,
        HUNG,
    ),
    *(np.str_("a"), np.bytes_(b"a\0"), np.void(b"ab"), np.longlong(3), np.longdouble(3)),
    *(np.array([object()]), np.array(["a"]), np.zeros(2, [("a", "i4")]), np.ma.array([1])),
    *(
        torch.ones(2, device="meta"),
        torch.ones(2).to_sparse(),
        Odd([1.0]),
        "\ud800",
        "\ud83d\ude00",
    ),
    *(defaultdict(lambda: 3), defaultdict(Row), nn.UninitializedParameter()),
    *NESTED,
]
NAMED = {"ids": lambda value: type(value).__name__}


def refused(tmp_path, state, place):
    with pytest.raises(TypeError, match=place):
        save_checkpoint(
            tmp_path / "new" / "a.safetensors", nn.Linear(1, 1), None, 3, part=Part(state)
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", LOST, **NAMED)
def test_what_would_not_come_back_is_refused_by_its_dotted_name_and_nothing_is_written(
    tmp_path, value
):
    refused(tmp_path, {"rows": [0, {"x": value}]}, r"^parts\.part\.rows\.1\.x")


@pytest.mark.parametrize(
    "key", [value for value in LOST if getattr(value, "__hash__", None)], **NAMED
)
def test_keys_that_would_not_come_back_are_refused_too(tmp_path, key):
    try:
        hash(key)
    except (TypeError, ValueError):
        return
    refused(tmp_path, {"rows": [{key: 1}]}, r"^the key parts\.part\.rows\.0\.")


def test_more_text_than_a_header_takes_is_refused_when_saving(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_files, "LONGEST", 10_000)
    with pytest.raises(TypeError, match="put them into tensors"):
        save_checkpoint(
            tmp_path / "a.safetensors", nn.Linear(1, 1), None, 3, part=Part(list(range(10_000)))
        )
    assert list(tmp_path.iterdir()) == []
    assert returned(tmp_path / "b.safetensors", torch.arange(10_000)).sum() == 49_995_000
