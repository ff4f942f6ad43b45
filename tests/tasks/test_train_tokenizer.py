"""task=train_tokenizer, stage=fit: what a run leaves behind, exact resume, start weights, and what is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tests.tasks.tokenizer_runs import FIT, LOSS, TINY, sample, states, train
from voxlab.codecs.rvq import Rvq
from voxlab.codecs.vocoder_files import Istft, TrainableVocoder
from voxlab.data.audiofolder import AudioFolder
from voxlab.data.librispeech import LibriSpeech
from voxlab.errors import UserError
from voxlab.mel import Mel
from voxlab.models.tokenizer import files
from voxlab.models.tokenizer.istft_vocoder import VocoderArchitecture
from voxlab.models.tokenizer.vocoders import GriffinLim
from voxlab.parallel import Ranks
from voxlab.tasks.history import read_history
from voxlab.tasks.optim import AdamWCosine
from voxlab.tasks.train_tokenizer.module import TokenizerModule


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> LibriSpeech:
    corpus = sample(tmp_path_factory.mktemp("corpus"))
    corpus.prepare()
    return corpus


@pytest.fixture(scope="module")
def whole(corpus: LibriSpeech, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of eight steps, with clips."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    return run_dir, train(run_dir, corpus, fit={"audio_every": 4, "num_clips": 1, "keep_every": 4})


def _rows(run_dir: Path) -> list[dict[str, Any]]:
    """The history without what a clock says."""
    rows = read_history(run_dir / "history.jsonl")
    return [{name: value for name, value in row.items() if name != "train/audio_s_per_s"} for row in rows]


def test_a_run_leaves_checkpoints_codec_curves_clips_and_page(whole: tuple[Path, dict[str, Any]]) -> None:
    run_dir, summary = whole
    names = {path.relative_to(run_dir).as_posix() for path in run_dir.rglob("*") if path.is_file()}
    kept = {f"checkpoints/{name}.ckpt" for name in ("last", "best", "step-0000004", "step-0000008")}
    clips = {f"samples/step-000000{step}/1.{kind}.flac" for step in (4, 8) for kind in ("original", "coded")}
    assert names == {*kept, *clips, "codec/codec.json", "codec/codec.safetensors", "history.jsonl", "report.html"}
    assert summary["steps"] == 8
    assert summary["best_step"] in (4, 8)
    assert summary["bitrate"] == pytest.approx(24000 / 1024 * 3 * 3, rel=1e-6)
    assert summary["tokens_per_second"] == pytest.approx(24000 / 1024 * 3, rel=1e-6)
    assert summary["val_mel_l1_share"] == pytest.approx(summary["val_mel_l1"] / summary["val_mel_l1_constant"])
    json.dumps(summary, allow_nan=False)


def test_the_history_holds_each_step_and_validation(whole: tuple[Path, dict[str, Any]]) -> None:
    rows = _rows(whole[0])
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    trained = [row for row in rows if "train/loss" in row]
    assert all(
        {"train/mel_l1", "train/commit", "train/lr", "train/grad_norm", "train/z_std"} <= set(row) for row in trained
    )
    assert "vq/use/1" not in trained[0]  # of the warm-up, a fifth of the run at most
    assert all(0 < trained[-1][f"vq/use/{book}"] <= 1 for book in (1, 2, 3))
    assert {"val/loss", "val/mel_l1", "val/mel_l1_8k", "val/use/1"} <= set(rows[-1])


def test_the_export_is_the_average_of_the_best_checkpoint(whole: tuple[Path, dict[str, Any]]) -> None:
    run_dir, summary = whole
    network, architecture, facts = files.load(run_dir)
    assert architecture == TINY
    assert facts["step"] == summary["best_step"]
    assert facts["val/loss"] == summary["val_loss"]
    best = states(run_dir, "best.ckpt")
    for name, value in network.state_dict().items():
        assert torch.equal(value, best[f"ema_network.{name}"]), name
    other, _, _ = files.load(run_dir / "checkpoints" / "best.ckpt")
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in other.state_dict().items())


def test_a_resumed_run_equals_an_uninterrupted_one(
    whole: tuple[Path, dict[str, Any]], corpus: LibriSpeech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops in step 7, two after the last checkpoint, and goes on with a worker process and from step 6."""
    fit = {"audio_every": 4, "num_clips": 1, "keep_every": 4}
    finish = TokenizerModule.finish_step

    def stop(self: TokenizerModule, *given: Any) -> None:
        if self.step == 7:
            raise RuntimeError("power cut")
        finish(self, *given)

    monkeypatch.setattr(TokenizerModule, "finish_step", stop)
    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path / "cut", corpus, fit=fit)
    monkeypatch.undo()
    assert _rows(tmp_path / "cut")[-1]["step"] == 7
    train(tmp_path / "cut", corpus, fit={**fit, "num_workers": 1})
    assert _rows(tmp_path / "cut") == _rows(whole[0])
    expected, found = states(whole[0]), states(tmp_path / "cut")
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    for name in ("codec.safetensors", "codec.json"):
        assert (tmp_path / "cut" / "codec" / name).read_bytes() == (whole[0] / "codec" / name).read_bytes()


def test_a_run_that_is_cut_while_it_exports_exports_again(
    whole: tuple[Path, dict[str, Any]], corpus: LibriSpeech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint that names the best step must not be there before the export of that step is."""
    export = files.export

    def stop(*given: Any) -> Path:
        if given[-1]["step"] == whole[1]["best_step"]:
            raise RuntimeError("power cut")
        return export(*given)

    fit = {"audio_every": 4, "num_clips": 1, "keep_every": 4}
    monkeypatch.setattr(files, "export", stop)
    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path / "cut", corpus, fit=fit)
    monkeypatch.undo()
    assert train(tmp_path / "cut", corpus, fit=fit)["best_step"] == whole[1]["best_step"]
    for name in ("codec.safetensors", "codec.json"):
        assert (tmp_path / "cut" / "codec" / name).read_bytes() == (whole[0] / "codec" / name).read_bytes()


def test_a_run_that_goes_on_with_other_recordings_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = _noise(tmp_path / "audio")
    train(tmp_path / "run", folder, trainer={"max_steps": 2})
    caplog.clear()
    train(tmp_path / "run", folder, trainer={"max_steps": 2})
    assert "the recordings are not those" not in caplog.text
    _noise(tmp_path / "audio", seed=1)
    train(tmp_path / "run", folder, trainer={"max_steps": 2})
    assert "the recordings are not those that this run began with" in caplog.text


def test_silent_validation_does_not_end_the_run(tmp_path: Path) -> None:
    folder = _noise(tmp_path / "audio")
    soundfile.write(tmp_path / "audio" / "validation" / "3.wav", np.zeros(22050), 22050)
    summary = train(tmp_path / "run", folder, trainer={"max_steps": 2})
    assert summary["val_mel_l1_constant"] == 0
    assert "val_mel_l1_share" not in summary


def test_errors_are_in_nats_whatever_the_logarithm(corpus: LibriSpeech, tmp_path: Path) -> None:
    found = []
    for log in ("ln", "log10"):
        codec = Rvq(weights=None, architecture=dataclasses.replace(TINY, mel=Mel(log=log)), vocoder=GriffinLim())
        found.append(train(tmp_path / log, corpus, codec=codec, trainer={"max_steps": 1, "val_check_interval": 1}))
    for name in ("val_mel_l1_constant", "val_mel_l1"):
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-4)


def test_a_vocoder_trains_and_serves(corpus: LibriSpeech, tmp_path: Path) -> None:
    architecture = VocoderArchitecture(dim=8, hidden=8, layers=1)
    loss = {"vocoder": {**LOSS["vocoder"], "discriminators": "msstft", "adv_start_step": 2}}
    trainer = {"max_steps": 3, "val_check_interval": 3}
    summary = train(
        tmp_path / "run", corpus, codec=TrainableVocoder(architecture=architecture), loss=loss, trainer=trainer
    )
    assert summary["family"] == "vocoder"
    assert "bitrate" not in summary
    wav = Istft(weights=str(tmp_path / "run"))(torch.zeros(1, 100, 5), architecture.mel)
    assert wav.shape == (1, 1, 5 * 256)


def test_training_lowers_the_held_out_error(corpus: LibriSpeech, tmp_path: Path) -> None:
    settings = {"warmup_steps": 20, "ema_decay": 0.9}
    trainer = {"max_steps": 100, "val_check_interval": 20}
    summary = train(tmp_path / "run", corpus, fit=settings, trainer=trainer, optim=AdamWCosine(lr=3e-3))
    losses = [row["val/mel_l1"] for row in _rows(tmp_path / "run") if "val/mel_l1" in row]
    assert losses[-1] < 0.85 * losses[0]
    assert summary["val_mel_l1_share"] < 1


def test_start_weights_are_those_of_the_file(
    whole: tuple[Path, dict[str, Any]], corpus: LibriSpeech, tmp_path: Path
) -> None:
    """With a learning rate of nothing the weights stay what they were; mel statistics and codebooks are not redone."""
    still = AdamWCosine(lr=0.0, final_lr=0.0, weight_decay=0.0)
    train(
        tmp_path / "tuned", corpus, ckpt=str(whole[0]), optim=still, trainer={"max_steps": 2, "val_check_interval": 2}
    )
    before, after = files.load(whole[0])[0], files.load(tmp_path / "tuned")[0]
    kept = [name for name in before.state_dict() if not name.startswith("quantizer.")]
    assert all(torch.allclose(before.state_dict()[name], after.state_dict()[name], rtol=0, atol=1e-7) for name in kept)
    assert int(after.quantizer.steps) == int(before.quantizer.steps) + 2


def test_start_weights_of_another_shape_are_refused(
    whole: tuple[Path, dict[str, Any]], corpus: Any, tmp_path: Path
) -> None:
    codec = Rvq(weights=None, architecture=dataclasses.replace(TINY, hidden=24), vocoder=GriffinLim())
    with pytest.raises(UserError, match=r"hidden: 16 -> 24"):
        train(tmp_path / "run", corpus, codec=codec, ckpt=str(whole[0]))


def test_a_dry_run_tells_the_plan_and_writes_nothing(corpus: LibriSpeech, tmp_path: Path) -> None:
    facts = train(tmp_path, corpus, dry_run=True)
    assert list(tmp_path.iterdir()) == []
    assert facts["parameters"] == sum(parameter.numel() for parameter in TINY.build().parameters())
    seconds = sum(soundfile.info(item.path).duration for item in corpus.items() if item.split == "train")
    assert facts["train_hours"] == pytest.approx(seconds / 3600, abs=1e-4)
    assert facts["passes_over_the_data"] == pytest.approx(8 * 4 * 0.5 / seconds, abs=0.01)


def test_without_validation_the_last_step_is_the_best(corpus: LibriSpeech, tmp_path: Path) -> None:
    summary = train(tmp_path / "run", corpus, fit={"val_split": None}, trainer={"max_steps": 5})
    assert summary["best_step"] == 5
    assert files.load(tmp_path / "run")[2]["step"] == 5
    assert "There was no validation" in (tmp_path / "run" / "report.html").read_text()


def test_a_folder_of_any_audio_trains_as_well(tmp_path: Path) -> None:
    assert train(tmp_path / "run", _noise(tmp_path / "audio"), trainer={"max_steps": 2})["steps"] == 2


def _noise(root: Path, seed: int = 0) -> AudioFolder:
    """Write four stereo files, one of them for validation."""
    generator = np.random.default_rng(seed)
    for number in range(4):
        name = root / ("validation" if number == 3 else "train") / f"{number}.wav"
        name.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(name, 0.1 * generator.normal(size=(22050, 2)), 22050)
    return AudioFolder(root=str(root), splits="folder")


# ---- what is refused -----------------------------------------------------------------------------------------------

NAN = float("nan")
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nan": (
        {"loss": {"mel": {**LOSS["mel"], "l1": NAN}}},
        r"step 0: the loss is nan(.|\n)*100(.|\n)*last.ckpt(.|\n)*optim.lr",
    ),
    "nan too often": (
        {"loss": {"mel": {**LOSS["mel"], "l1": NAN}}, "fit": {"on_nan": "skip"}, "trainer": {"max_steps": 20}},
        r"step 10: the loss is nan(.|\n)*10 were left out",
    ),
    "split": ({"fit": {"val_split": "dev"}}, r"fit.val_split=dev: .*Present: train \(\d+\), validation \(\d+\)"),
    "key": ({"fit": {"batch": 3}}, r"fit.batch: there is no such key. Known: batch_size"),
    "text": ({"fit": {"batch_size": "many"}}, r"fit.batch_size='many'"),
    "fraction": ({"fit": {"ema_decay": 1.5}}, r"fit.ema_decay=1.5"),
    "on_nan": ({"fit": {"on_nan": "ignore"}}, r"fit.on_nan=ignore: choose stop or skip"),
    "ranks": ({"ranks": Ranks(0, 3)}, r"fit.batch_size=4 segments can't be dealt evenly to 3 ranks"),
    "devices": ({"trainer": {"devices": 2}}, r"ask for 2 processes, but 1 were started. Use torchrun"),
    "accumulate": ({"trainer": {"accumulate_grad_batches": 2}}, r"trainer.accumulate_grad_batches=2 does not go"),
    "epochs": ({"trainer": {"max_epochs": 2}}, r"trainer.max_epochs=2 does not go(.|\n)*trainer.max_steps"),
    "short epoch": ({"fit": {"segments_per_epoch": 3}}, r"segments_per_epoch=3: an epoch has .* give 4 \(fit.batch"),
    "loudness": ({"fit": {"loudness": [-30]}}, r"fit.loudness=\[-30\]: give the lowest and the highest"),
    "loud words": ({"fit": {"loudness": ["low", "high"]}}, r"fit.loudness=\['low', 'high'\]: give a list, each a num"),
    "seconds": ({"fit": {"segment_seconds": "long"}}, r"fit.segment_seconds='long': give a number"),
    "switch": ({"fit": {"resample": "maybe"}}, r"fit.resample='maybe': give true or false"),
    "rate": ({"fit": {"resample": False}}, r"16000 Hz: of .*fit.resample=true"),
    "weight": ({"loss": {"mel": {**LOSS["mel"], "l1": "much"}}}, r"loss.mel.l1='much': give a number"),
    "steps": ({"trainer": {"max_steps": 0}}, r"trainer.max_steps=0"),
    "long": ({"fit": {"segment_seconds": 60}}, r"segments of 60 s are longer than every recording"),
    "codec": ({"codec": None}, r"codec=none can't be trained: choose codec=rvq"),
    "trained": (
        {"codec": Rvq(weights="random", architecture=TINY, vocoder=GriffinLim())},
        r"codec.weights=random names a trained one(.|\n)*ckpt=",
    ),
    "stage": ({"stage": "generate"}, r"stage=generate: task=train_tokenizer has fit, test"),
    "part": ({"part": "upper"}, r"part=upper is a part of the body: it goes with codec=motion_rvq data=beat2"),
    "loss": ({"loss": None}, r"loss=tokenizer optim=adamw_cosine"),
    "foreign": ({"ckpt": "nowhere"}, r"nowhere does not exist"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_settings_are_refused(case: str, corpus: LibriSpeech, tmp_path: Path) -> None:
    changes, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        train(tmp_path / "run", corpus, **changes)


@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", "1e-4"), ("lr", NAN), ("betas", [0.9]), ("betas", 3), ("betas", ["a", "b"]), ("warmup_steps", -1)],
)
def test_bad_optimisers_are_refused(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"optim.{key}="):
        AdamWCosine(**{key: value})


def test_one_bad_step_can_be_left_out(corpus: LibriSpeech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its batch changes neither weights nor moments, nor the steps after it."""
    from voxlab.tasks.train_tokenizer.mel import MelModule

    losses, seen = MelModule.losses, {}

    def spoil(self: MelModule, output: Any, *, training: bool) -> dict[str, torch.Tensor]:
        found = losses(self, output, training=training)
        if training and self.step == 2:
            found["loss"] = found["loss"] * NAN
            seen["before"] = {name: value.clone() for name, value in self.network.named_parameters()}
        if training and self.step == 3:
            seen["after"] = dict(self.network.named_parameters())
            assert all(torch.equal(value, seen["before"][name]) for name, value in seen["after"].items())
        return found

    monkeypatch.setattr(MelModule, "losses", spoil)
    assert train(tmp_path / "run", corpus, fit={"on_nan": "skip"})["steps"] == 8
    assert "after" in seen
    assert all(bool(value.isfinite().all()) for value in states(tmp_path / "run").values())


@pytest.mark.parametrize("workers", [0, 1])
def test_audio_that_is_no_number_is_named(workers: int, tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    wav = np.random.default_rng(0).normal(size=24000).astype(np.float32) * 0.1
    wav[9000] = np.nan
    soundfile.write(tmp_path / "audio" / "broken.wav", wav, 24000, subtype="FLOAT")
    with pytest.raises(UserError, match=r"^\S*broken\S*: sample 9000 is NaN"):
        train(
            tmp_path / "run", AudioFolder(root=str(tmp_path / "audio")), fit={"val_split": None, "num_workers": workers}
        )


def test_codebooks_too_large_for_the_data_are_warned_of(
    corpus: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import dataclasses

    big = dataclasses.replace(TINY, quantizer=dataclasses.replace(TINY.quantizer, codebook_size=1024))
    codec = Rvq(weights=None, architecture=big, vocoder=GriffinLim())
    train(tmp_path, corpus, codec=codec, dry_run=True, fit={"pool_size": 100})
    assert "fewer than 5 for each of 1024 entries" in caplog.text
    assert "codebook_size=128" in caplog.text
    assert "fit.pool_size=100 is below the 1024 entries" in caplog.text


def test_settings_are_those_of_the_family() -> None:
    from voxlab.tasks.train_tokenizer.settings import fit_settings, loop_settings

    values = {**FIT, "batch_size": None, "segment_seconds": None}
    assert (fit_settings(values, "mel").batch_size, fit_settings(values, "mel").segment_seconds) == (16, 3.0)
    assert (fit_settings(values, "wave").batch_size, fit_settings(values, "wave").segment_seconds) == (32, 1.0)
    assert loop_settings({"max_steps": 5}, "mel").gradient_clip_val == 1.0
    assert loop_settings({"max_steps": 5, "gradient_clip_val": 3.0}, "wave").gradient_clip_val == 3.0
