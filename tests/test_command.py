"""How scripts end: with their exit code, and without a traceback when they are stopped."""

import os
import re
import subprocess
import sys

import pytest
from small import EXPERIMENTS, load_script

command = load_script("command")


def test_ctrl_c_is_no_traceback(capsys, monkeypatch):
    def main():
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["experiments/evaluate.py"])
    with pytest.raises(SystemExit) as stopped:
        command.run(main)
    assert stopped.value.code == 130 and capsys.readouterr().err == "\nevaluate.py: stopped\n"


def test_the_exit_code_is_the_commands():
    with pytest.raises(SystemExit) as ended:
        command.run(lambda: 3)
    assert ended.value.code == 3


def test_output_that_nobody_reads_is_no_traceback():
    code = "from command import run\ndef main():\n    for _ in range(10**5): print('word' * 10)\nrun(main)"
    reading, writing = os.pipe()
    arguments = [sys.executable, "-c", code]
    with subprocess.Popen(arguments, stdout=writing, stderr=subprocess.PIPE, cwd=EXPERIMENTS) as script:
        os.close(writing)
        os.read(reading, 10)
        os.close(reading)
        _, error = script.communicate(timeout=60)
    assert script.returncode == 1 and error == b""


def test_every_script_starts_so():
    scripts = [path for path in EXPERIMENTS.glob("*.py") if "def main(argv" in path.read_text()]
    assert len(scripts) > 10
    for path in scripts:
        assert re.search(r"from command import .*\brun\b", path.read_text()), path.name
