"""Prompts and profiles of any text: taken, or refused in one short sentence."""

import pytest
import yaml
from fuzzing import answer, few
from hypothesis import given
from hypothesis import strategies as st

from distill_lib import profiles
from distill_lib.worlds.captions import WORDS, check_prompt

SMOKE = (profiles._FOLDER / "smoke.yaml").read_text()


# ------------------------------------------------------------------------------------------------ prompts


@few(100)
@given(
    st.lists(st.sampled_from(WORDS) | st.text(st.characters(), max_size=12), max_size=30).map(" ".join)
    | st.text(st.characters(), max_size=40).map(lambda text: text * 300)
)
def test_prompts(prompt):
    answer(lambda: check_prompt(prompt))


# ------------------------------------------------------------------------------------------------ profiles


@pytest.fixture
def smoke(tmp_path, monkeypatch):
    """A place where a profile of any bytes is read; returns the profile, or None."""
    monkeypatch.setattr(profiles, "_FOLDER", tmp_path)

    def read_profile(data):
        (tmp_path / "smoke.yaml").write_bytes(data)
        result = answer(lambda: profiles.load("smoke"))
        assert result is None or (result.halving.batch_size >= 1 and result.sizes.samples >= 1)
        return result

    return read_profile


PIECES = [
    "\t",
    "\n",
    " ",
    ":",
    "-",
    "{",
    "}",
    "[",
    "]",
    "&a",
    "*a",
    "!!python/name:os.system ",
    "'",
    '"',
    "#",
    "|",
    ">",
]
PIECES += [
    "0",
    "-1",
    "1e9",
    ".nan",
    ".inf",
    "-.inf",
    "true",
    "null",
    "~",
    "2020-13-45",
    "0x1F",
    "1_000",
    "?",
    "<<",
    "%",
]
PIECES += ["\0", "\ufeff", "é", "\U0001f600", "x" * 300, "9" * 5000, "[" * 200]


@few(60)
@given(
    cuts=st.lists(
        st.tuples(st.integers(0, len(SMOKE)), st.integers(0, 12), st.sampled_from(PIECES)), min_size=1, max_size=3
    )
)
def test_edits_of_a_profile(smoke, cuts):
    text = SMOKE
    for at, length, piece in cuts:
        text = text[:at] + piece + text[at + length :]
    smoke(text.encode())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [*yaml.safe_load(SMOKE), "extra"]


@few(30)
@given(changes=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=2), gone=st.none() | st.sampled_from(FIELDS))
def test_profiles_of_any_values(smoke, changes, gone):
    mapping = yaml.safe_load(SMOKE) | changes
    mapping.pop(gone, None)
    smoke(yaml.safe_dump(mapping, allow_unicode=True).encode())


@few(40)
@given(VALUES.map(lambda value: yaml.safe_dump(value).encode()) | st.binary(max_size=60))
def test_profiles_of_anything(smoke, data):
    assert smoke(data) is None
