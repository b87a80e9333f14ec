"""Scripts never overwrite what they read."""

import pytest
from small import load_script, save_small

check_outputs = load_script("outputs").check_outputs


def test_outputs_are_no_inputs_and_not_each_other(tmp_path):
    data, lexicon = tmp_path / "data", tmp_path / "words.txt"
    data.mkdir()
    lexicon.write_text("word")
    inputs = [str(data), "rendered", str(lexicon)]
    check_outputs(None, tmp_path / "a", tmp_path / "b", inputs=inputs)
    (data / "labels.tsv").write_text("0.png\t1\n")
    with pytest.raises(OSError, match="0.png is an input"):
        check_outputs(data / "0.png", inputs=[data / "labels.tsv"])
    check_outputs(data / "table.json", inputs=[data / "labels.tsv"])
    (tmp_path / "w.tfrecord-0").write_text("")
    with pytest.raises(OSError, match="w.tfrecord-0 is an input"):
        check_outputs(tmp_path / "w.tfrecord-0", inputs=[f"{tmp_path}/w.tfrecord-*"])
    (tmp_path / "w.tfrecord-0").unlink()
    table = data / "x" / "table.json"
    with pytest.raises(OSError, match=f"^{table} lies in {data}, which is an input: choose another place"):
        check_outputs(tmp_path / "a", table, inputs=inputs)
    with pytest.raises(OSError, match=f"^{lexicon} is an input: choose another file"):
        check_outputs(tmp_path / "a", lexicon, inputs=inputs)
    with pytest.raises(OSError, match="two outputs are the same file"):
        check_outputs(tmp_path / "a", tmp_path / "x" / ".." / "a", inputs=inputs)
    with pytest.raises(FileNotFoundError):
        check_outputs(tmp_path / "none" / "a", inputs=inputs)
    assert sorted(tmp_path.iterdir()) == [data, lexicon] and lexicon.read_text() == "word"


@pytest.mark.parametrize("name", ["evaluate", "results", "curve", "prepare"])
def test_scripts_write_nothing_into_what_they_read(tmp_path, capsys, name):
    save_small(tmp_path / "model")
    data, before = tmp_path / "words", b"0.png\t1\n"
    data.mkdir()
    (data / "labels.tsv").write_bytes(before)
    first = {"prepare": ["inspect"], "curve": [str(tmp_path / "model")]}.get(name, ["--model", str(tmp_path / "model")])
    assert load_script(name).main([*first, "--data", str(data), "--json", f"{data}/labels.tsv"]) == 1
    assert capsys.readouterr().err.startswith(f"{name}.py: {data}/labels.tsv is an input: choose another file")
    assert (data / "labels.tsv").read_bytes() == before
