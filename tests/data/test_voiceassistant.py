from pathlib import Path

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voxlab.audio import load
from voxlab.codecs.layouts import parse_tokens
from voxlab.data.sample.voiceassistant import SCHEMA
from voxlab.data.voiceassistant import VoiceAssistant
from voxlab.errors import UserError


def test_sample_has_the_names_schema_and_contents_of_the_data_set(tmp_path):
    corpus = VoiceAssistant(source="sample", root=str(tmp_path / "va"))
    corpus.prepare()
    assert [path.name for path in corpus.paths()] == [f"train-{n:05d}-of-00002.parquet" for n in range(2)]
    assert corpus.check() == []
    for path in corpus.paths():
        table = pq.read_table(path)
        assert table.schema.equals(SCHEMA)
        for row in table.to_pylist():
            wav, sample_rate = load(row["question_audio"]["bytes"])
            assert sample_rate == 22050
            assert 0.05 < wav.abs().max() <= 1
            assert parse_tokens(row["answer_snac"]).notes == []


def test_sample_is_deterministic_and_leaves_the_root_alone(tmp_path):
    contents = []
    for name in ("a", "b"):
        corpus = VoiceAssistant(source="sample", root=str(tmp_path / name))
        corpus.prepare()
        contents.append([path.read_bytes() for path in corpus.paths()])
        assert not Path(corpus.root).exists()
    assert contents[0] == contents[1]


def test_files_are_chosen_by_pattern_and_number(tmp_path):
    for name in ("train-00001.parquet", "train-00000.parquet", "test-00000.parquet", "train-00002.txt"):
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(pa.table({"answer_snac": ["# 1"]}), tmp_path / "data" / name)

    def names(**options):
        return [path.name for path in VoiceAssistant(root=str(tmp_path), **options).paths()]

    assert names() == ["test-00000.parquet", "train-00000.parquet", "train-00001.parquet"]
    assert names(pattern="data/train-*.parquet", num_files=1) == ["train-00000.parquet"]


def test_check_reports_every_fault_at_once(tmp_path):
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"other": [1]}), tmp_path / "data/a.parquet")
    (tmp_path / "data/b.parquet").write_bytes(b"PAR1 cut short")
    (tmp_path / "data/c.parquet").write_bytes(b"")
    found = VoiceAssistant(root=str(tmp_path)).check()
    assert [line.split(":")[0] for line in found] == ["data/a.parquet", "data/b.parquet", "data/c.parquet"]
    assert "answer_snac, answer, question_audio missing; found ['other']" in found[0]


def test_download_fetches_exactly_the_wanted_files(tmp_path, monkeypatch):
    files = ["README.md", *(f"data/train-{n:05d}-of-00325.parquet" for n in range(325))]
    asked = {}
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, repo, repo_type: files)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, **options: asked.update(options, repo=repo))
    VoiceAssistant(source="download", root=str(tmp_path), num_files=2).prepare()
    assert asked == {
        "repo": "gpt-omni/VoiceAssistant-400K",
        "repo_type": "dataset",
        "allow_patterns": files[1:3],
        "local_dir": tmp_path,
    }


def test_download_without_network_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"can't download gpt-omni/VoiceAssistant-400K(.|\n)*data\.source=disk"):
        VoiceAssistant(source="download", root=str(tmp_path)).prepare()


def test_unknown_source_lists_the_choices(tmp_path):
    with pytest.raises(UserError, match="disk, sample or download"):
        VoiceAssistant(source="web", root=str(tmp_path)).prepare()
