"""experiments/step_profile.py: operations are traced back to the parts of a step, and no part is missing."""

from collections import Counter

import pytest
from small import load_script
from toy import toy_config, toy_model

PROGRAM = """
%fused (param: f32[2]) -> f32[2] {
  ROOT %add.9 = f32[2]{0} add(%param, %param), metadata={op_name="jit(train_step)/optimizer/add"}
}
ENTRY %main {
  %weights = f32[2]{0} parameter(0), metadata={op_name="state.params['lstm1']['bias']"}
  %copy.1 = f32[2]{0} copy(%weights)
  %copy.2 = f32[2]{0} copy(%copy.1)
  %conv = f32[2]{0} dot(%weights), metadata={op_name="jit(f)/transpose(jvp(CRNN))/CRNN._features/block2/Conv_0/dot"}
  ROOT %alone = f32[2]{0} iota(), iota_dimension=0
}
"""


@pytest.fixture
def script():
    """The script."""
    return load_script("step_profile")


def test_operations_are_traced_back_to_parts(script):
    origins, operations = script.origins_of(PROGRAM)
    assert operations == {"add.9", "weights", "copy.1", "copy.2", "conv", "alone"}
    parts = {name: script.part_of(origins.get(name, "")) for name in operations}
    assert parts["add.9"] == ("optimizer", False)
    assert parts["copy.2"] == parts["copy.1"] == ("lstm1", False), "what it copies tells what for"
    assert parts["conv"] == ("block2", True)
    assert parts["alone"] == ("the rest", False)
    assert script.part_of("jit(f)/jvp(CRNN)/CRNN._rectify/stn/localisation/block1/add") == ("stn", False)


def test_what_a_gpu_replays_in_one_piece_is_told_by_its_kernels(script):
    """A kernel has its operation's name; a library's kernel counts for the part that most of its piece is for."""
    events = {
        ("conv", "cudnn_kernel"): 2.0,
        ("command_buffer_1", "add_9"): 4.0,
        ("command_buffer_1", "conv"): 1.0,
        ("command_buffer_1", "nvjet_sm90"): 6.0,
        ("command_buffer_2", "memcpy"): 8.0,
        ("jit_train_step", "launch"): 16.0,  # belongs to no operation
    }
    parts = script.parts_of(Counter(events), PROGRAM, steps=2)
    assert parts == {("block2", True): 1.5, ("optimizer", False): 5.0, ("the rest", False): 4.0}


def test_the_table_is_of_all_parts(script):
    table = script.format_parts(Counter({("head", False): 0.001, ("head", True): 0.002, ("ctc", False): 0.001}))
    assert table.splitlines()[2:] == [
        "| ctc | 1.0 | 0.0 | 25.0 % |",
        "| head | 1.0 | 2.0 | 75.0 % |",
        "| all | 2.0 | 2.0 | |",
    ]


def test_a_step_is_taken_apart(script, monkeypatch):
    monkeypatch.setattr(script, "build", toy_model)
    seconds, parts = script.profile(toy_config(), batch=16, steps=3)
    assert seconds > 0
    # A quick step's operations take next to no time, but each of these is there.
    assert {("head", False), ("head", True), ("ctc", False), ("optimizer", False)} <= parts.keys()
    assert all(spent >= 0 for spent in parts.values())


def test_what_cannot_be_profiled(script, capsys):
    assert script.main(["--steps", "0"]) == 1
    assert capsys.readouterr().err == "step_profile.py: --batch and --steps must be at least 1\n"
