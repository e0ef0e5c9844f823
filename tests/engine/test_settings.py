"""Settings as text: what is read is what is written, and one setting has one text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadydescent.engine.settings import Setting, read

names = st.from_regex(r"[a-z0-9]{1,5}(-[a-z0-9]{1,5}){0,2}", fullmatch=True)
scalars = (
    st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=9)
)
options = st.dictionaries(
    st.from_regex(r"[a-z]{1,5}_x", fullmatch=True),
    scalars | st.lists(scalars, max_size=3),
    max_size=4,
)


@given(names, options)
def test_text_read_back_is_the_setting(name, options):
    text = Setting(name, options).text()
    found = read(text)
    assert found == Setting(name, options) and found.text() == text


def test_order_and_defaults_leave_no_trace():
    assert (
        read("adam(eps=1e-8, beta1=0.5)").text({"eps": 1e-8})
        == read("adam( beta1=0.50)").text()
        == "adam(beta1=0.5)"
    )


def test_plain_words_are_strings_and_json_s_booleans_are_booleans():
    assert read("mnist1d-mlp(norm=batch, on=true)").options == {"norm": "batch", "on": True}


@pytest.mark.parametrize(
    "text",
    ["", "adam(", "adam(0.9)", "adam(beta1=__import__('os'))", "a(x=1, x=2)", "a b", "a(**x)"],
)
def test_text_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match="is not of the form"):
        read(text)
