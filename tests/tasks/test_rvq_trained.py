"""A trained codec gives, wherever its run folder is named, the codes of its checkpoint's network."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.conftest import Compose
from tests.tasks.tokenizer_runs import sample, train
from voxlab import run as runs
from voxlab.audio import load as load_audio
from voxlab.codecs.token_files import read_tokens
from voxlab.models.tokenizer import files
from voxlab.parallel import Ranks


@dataclass(frozen=True)
class Trained:
    """A finished run, its corpus, and the network of its best checkpoint."""

    folder: Path
    corpus: Path
    network: Any

    def tokenize(self, wav: torch.Tensor) -> torch.Tensor:
        """Codes (Q, T) of wav (N,) from the network itself, without the codec around it."""
        return self.network.encode(wav.reshape(1, 1, -1), torch.tensor([wav.numel()]))[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    corpus = sample(folder)
    train(folder / "run", corpus)
    checkpoint = torch.load(folder / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    network = files.architecture_from_dict(checkpoint["voxlab"]["architecture"]).build()
    prefix = "ema_network."
    state = checkpoint["state_dict"].items()
    network.load_state_dict({key.removeprefix(prefix): value for key, value in state if key.startswith(prefix)})
    return Trained(folder / "run", corpus.folder, network.eval())


def work(composed: Compose, run_dir: Path, trained: Trained, *words: str) -> dict[str, Any]:
    """Run a task on codec=rvq of the trained run, in this process."""
    settings = composed(*words, "codec=rvq", f"codec.weights={trained.folder}", "logger=none", "device=cpu")
    return runs.build(settings.task)(ranks=Ranks(), run_dir=run_dir)


def test_extract_writes_the_codes_of_the_network(trained: Trained, composed: Compose, tmp_path: Path) -> None:
    out = tmp_path / "out"
    data = ["data=audiofolder", f"data.root={trained.corpus / 'dev-clean'}"]
    work(composed, tmp_path, trained, "task=extract", *data, f"out={out}")
    token_files = sorted((out / "tokens").rglob("*.safetensors"))
    assert len(token_files) == 3
    for path in token_files:
        wav, _ = load_audio((out / "normalized" / path.relative_to(out / "tokens")).with_suffix(".wav"), 24000)
        stored = torch.stack([book[0] for book in read_tokens(path).codes.codebooks])
        assert torch.equal(stored, trained.tokenize(wav))
        assert len(stored.unique()) > 1


def test_convert_writes_the_codes_of_the_network(
    trained: Trained, composed: Compose, tmp_path: Path, tiny_snac: Path
) -> None:
    out = tmp_path / "out"
    data = ["data=voiceassistant", "data.source=sample", f"data.root={tmp_path / 'va'}"]
    work(composed, tmp_path, trained, "task=convert", *data, f"source.weights={tiny_snac}", f"out={out}")
    rows = [row for path in sorted(out.rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert len(rows) == 20
    for row in rows[::7]:
        wav = torch.from_numpy(np.frombuffer(row["answer_audio"], "<f4").copy())
        assert np.array_equal(np.array(row["answer_rvq"]), trained.tokenize(wav).numpy())


def test_the_report_has_audio_and_marks_what_it_lacks(trained: Trained, composed: Compose, tmp_path: Path) -> None:
    """No weights but the codec's: Griffin-Lim speaks, and what no model judged is missing, not 0."""
    small = ["test.limit=2", "test.clips=1", "test.prefix_files=0", "test.stability_files=0", "test.speed_repeats=0"]
    data = ["data=audiofolder", f"data.root={trained.corpus / 'dev-clean'}"]
    summary = work(composed, tmp_path, trained, "task=train_tokenizer", "stage=test", *data, *small)
    assert list((tmp_path / "audio").rglob("*.rec.wav"))
    assert summary["silence_mae"] > 0
    with (tmp_path / "per_file.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("wer", "speaker_similarity"):
        assert name not in summary
        assert summary["details"][name]["n"] == 0
        assert all(row.get(name, "") == "" for row in rows)
    page = (tmp_path / "report.html").read_text()
    assert "mean absolute error of silence" in page
