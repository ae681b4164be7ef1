"""How the scripts are put together, and that each says what it takes and returns."""

from importlib import resources

import pytest

from sidecar.sessions.scripts import LIMITS, library, script
from sidecar.sessions.states import State

NAMES = ("apply", "sweep", "heartbeat", "statement", "letters")


@pytest.mark.parametrize("name", NAMES)
def test_the_flags_stand_first_and_the_table_before_the_functions(name):
    text = script(name)
    assert text.startswith("#!lua")
    assert text.count("#!lua") == 1
    assert text.index("local TABLE") < text.index("local LIMITS") < text.index("local function advance")
    assert script(name) is text


@pytest.mark.parametrize("name", NAMES)
def test_every_script_documents_its_keys_arguments_and_returns(name):
    header = resources.files("sidecar.sessions").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")[:1500]
    for word in ("KEYS[1]", "ARGV[1]", "returns"):
        assert word in header


def test_only_what_finishes_or_frees_runs_out_of_memory():
    allowed = {name for name in NAMES if "allow-oom" in script(name).splitlines()[0]}
    assert allowed == set(NAMES) - {"apply"}


def test_the_library_knows_every_state_and_bound():
    text = library()
    assert all(f'["{state}"]' in text for state in State)
    assert all(f'["{name}"]={value}' in text for name, value in LIMITS.items())


def test_a_file_that_is_no_script_is_refused():
    with pytest.raises(ValueError, match="#!lua"):
        script("machine")
