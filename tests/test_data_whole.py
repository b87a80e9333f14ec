"""What is written is whole, or as it was before."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small import load_script

from crnn_jax.data.sample import DatasetError
from crnn_jax.data.whole import check_writable, only_one, whole_folder, write_whole


def write(path, content, **options):
    with whole_folder(path, **options) as folder:
        (folder / "file").write_text(content)


def test_a_folder_is_replaced_when_the_new_one_is_whole(tmp_path):
    path = tmp_path / "out"
    write(path, "one")
    with pytest.raises(DatasetError, match="already exists"):
        write(path, "two")
    with pytest.raises(OSError, match="full"), whole_folder(path, replaces=True) as folder:
        (folder / "file").write_text("thr")
        raise OSError("the disk is full")
    assert (path / "file").read_text() == "one"
    write(path, "three", replaces=True)
    assert (path / "file").read_text() == "three" and list(tmp_path.iterdir()) == [path]


def test_a_folder_whose_successor_cannot_take_its_name_stays(tmp_path, monkeypatch):
    path = tmp_path / "out"
    write(path, "one")
    rename = Path.replace

    def fail(self, target):
        if ".incomplete" in self.name:
            raise OSError("the disk is full")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="full"):
        write(path, "two", replaces=True)
    assert (path / "file").read_text() == "one" and list(tmp_path.iterdir()) == [path]


def test_a_folder_of_which_a_file_stays_is_replaced_all_the_same(tmp_path, monkeypatch):
    """As on network file systems, where removing an open file only renames it."""
    path = tmp_path / "out"
    write(path, "one")
    remove = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda folder, **options: None)
    write(path, "two", replaces=True)
    monkeypatch.setattr(shutil, "rmtree", remove)
    assert (path / "file").read_text() == "two"
    write(path, "three", replaces=True)
    assert (path / "file").read_text() == "three" and list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two" and list(tmp_path.iterdir()) == [path]
    check_writable(path)
    check_writable(tmp_path / "new")
    assert path.read_bytes() == b"two" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="No such file"):
        check_writable(tmp_path / "none" / "file")


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, b"one")
    write_bytes = type(path).write_bytes

    def full(path, content):
        write_bytes(path, content[:1])
        raise OSError("No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"two")
    assert path.read_bytes() == b"one" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_held_by_one_process(tmp_path, capsys, monkeypatch):
    folder, script = tmp_path / "run", load_script("train")
    monkeypatch.setattr(script.parallel, "share_cpu", lambda *_, **__: None)  # this process has its devices already
    imports = "from pathlib import Path; from crnn_jax.data.whole import only_one"
    ask = f"{imports}\nwith only_one(Path({str(folder)!r})): print('held')"

    def another():
        return subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)

    with only_one(folder):
        refused = another()
        assert refused.returncode == 1 and refused.stderr.endswith(f"{folder}: another process is writing to it\n")
        assert script.main(["--workdir", str(folder)]) == 1
        assert capsys.readouterr().err == f"train.py: {folder}: another process is writing to it\n"
    assert another().stdout == "held\n", "it is let go"
