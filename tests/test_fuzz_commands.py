"""Whatever stands on the command line, or in the cell of parameters, ends in a value or in one short sentence."""

import json
import sys

import nbformat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill_lib.run import notebooks
from distill_lib.run.__main__ import main
from distill_lib.run.settings import Settings, read_settings

QUIET = settings(max_examples=150, deadline=None, derandomize=True)
NAMES = [("ws", list), ("steps", list), ("seed", int), ("teacher", str), ("prompts", str), ("dataset", str)]
TEXT = st.text(st.characters(codec=None), max_size=320)
VALUES = TEXT | st.sampled_from(
    ["[" * 300, "{a: b", "!!python/object:os.system", "&a [*a]", "1e999", "[.nan]", "\0", "~", "=1"]
)


def one_sentence(error):
    text = " ".join(str(error).split())
    assert 0 < len(text) < 400


@QUIET
@given(st.sampled_from(NAMES), VALUES)
def test_a_setting_is_a_value_or_a_sentence(name, text):
    key, kind = name
    try:
        result = read_settings([f"{key}={text}"], notebooks.names())[key]
        if kind is not str:
            notebooks.check_parameters("03_step_halving", {key: result})
    except ValueError as error:
        one_sentence(error)
        return
    assert isinstance(result, kind)
    place = Settings(profile="smoke", extra={key: result}).place
    assert place.startswith("smoke-") and place.isascii()  # a name for a folder, whatever the value
    json.dumps(Settings(profile="smoke", extra={key: result}).parameters, default=str)


@QUIET
@given(st.lists(TEXT, max_size=3))
def test_any_word_behind_set_is_a_setting_or_a_sentence(words):
    try:
        read_settings(words, notebooks.names())
    except ValueError as error:
        one_sentence(error)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["--profile", "--id", "--dataset", "--set"]), st.text(max_size=60).filter(lambda t: "\0" not in t)
)
def test_any_word_on_the_command_line_ends_in_status_2_and_one_line(tmp_path, monkeypatch, capsys, option, word):
    for name in ("RUNS", "FIGURES"):
        monkeypatch.setenv(f"DISTILL_{name}", str(tmp_path / name.lower()))
    known = (*notebooks.artefacts_of("00_start_here"), "quick", "smoke", "laptop", "gpu", "paper")
    if word in known or (option == "--dataset" and not word):
        return
    monkeypatch.setattr(sys, "argv", ["run", "figures", "--profile", "smoke", f"{option}={word}"])
    with pytest.raises(SystemExit) as ended:
        main()
    (line,) = capsys.readouterr().err.strip("\n").split("\n")
    assert ended.value.code == 2 and line.startswith("error: ")
    assert not list(tmp_path.rglob("*.json"))


@QUIET
@given(st.text(max_size=80))
def test_a_cell_of_parameters_is_read_and_never_run(tmp_path_factory, source):
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})]
    before, notebooks.read = notebooks.read, lambda _: notebook
    try:
        notebooks.parameters_of("n")
    except ValueError as error:
        one_sentence(error)
    finally:
        notebooks.read = before
