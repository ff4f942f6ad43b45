"""stage=stream says live what the offline pass says of the same file."""

import csv
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml

from tests.tasks.laughter_runs import main
from voxlab import audio
from voxlab.errors import UserError
from voxlab.features.base import Features, Recording
from voxlab.features.logmel import LogMelFeatures
from voxlab.features.mimi import MimiFeatures
from voxlab.features.moshi import MoshiFeatures
from voxlab.metrics.alarms import find_alarms
from voxlab.metrics.calibration import Platt
from voxlab.models.laughter import Architecture, Gru, LaughterModel, Linear, Tcn, describe
from voxlab.parallel import Ranks
from voxlab.tasks.laughter.decide import Decision, Threshold
from voxlab.tasks.laughter.eval_settings import read_settings
from voxlab.tasks.laughter.stream import stream

CONF = Path(__file__).parents[2] / "conf" / "features"
PLATT = Platt(1.7, -0.4)
REFRACTORY = 5
EVALUATION = read_settings({}, {"refractory_s": REFRACTORY / 12.5}, {}, 5)


def make_features(name: str) -> Features:
    settings = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    target = settings.pop("_target_").rpartition(".")[2]
    return {kind.__name__: kind for kind in (LogMelFeatures, MoshiFeatures, MimiFeatures)}[target](**settings)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds of bursts in two channels at 22.05 kHz."""
    path = tmp_path_factory.mktemp("sound") / "two channels.wav"
    rng = np.random.default_rng(3)
    level = np.repeat(rng.uniform(0, 0.3, 24), 11025 + 100)
    soundfile.write(path, level[:, None] * rng.standard_normal((len(level), 2)), 22050)
    return path


def write_checkpoint(path: Path, features: Features, architecture: Architecture, **changes: Any) -> LaughterModel:
    """A model with random weights whose logits spread around its threshold."""
    torch.manual_seed(5)
    model = architecture.build(features.info.dim).eval()
    torch.nn.init.normal_(model.head.output.weight, std=0.3)
    threshold = {"objective": "f1", "score": 0.5, "source": "validation", "split": "validation"}
    decision = Decision(
        PLATT,
        Threshold(value=0.5, raw=0.5, logit=0.1, logit_low=-0.1, num_frames=9, num_positives=1, **threshold),
    )
    record = {"features": {"fingerprint": "0", "features": features.fingerprint()}, "decision": decision.record()}
    made = {"task": "laughter", "model": describe(model), **record, **changes}
    torch.save({"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}, "voxlab": made}, path)
    return model


def offline(features: Features, model: LaughterModel, sound: Path) -> np.ndarray:
    """Logits of the frames that task=extract would store."""
    info = features.info
    wav = audio.to_mono(audio.load(sound, info.sample_rate)[0])
    frames = audio.compute_num_frames(wav.shape[-1], info.hop_length)
    chunks = features.to("cpu").stream([Recording("a", frames, lambda: (None, wav))])
    rows = np.concatenate([chunk.values for chunk in chunks if chunk.name == "features"])
    with torch.inference_mode():
        return model(torch.from_numpy(rows).float()[None])[0].numpy()


def read_table(path: Path) -> dict[str, np.ndarray]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("architecture", [Linear(), Tcn(hidden=8, layers=3), Gru(hidden=8)], ids=lambda a: a.family)
@pytest.mark.parametrize("name", ["logmel", "moshi_tiny"])
def test_live_probabilities_are_those_of_the_offline_pass(
    name: str, architecture: Architecture, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features, path = make_features(name), tmp_path / "best.ckpt"
    model = write_checkpoint(path, features, architecture)
    given: dict[str, Any] = {
        "ckpt": str(path),
        "audio": str(sound),
        "ranks": Ranks(),
        "run_dir": tmp_path,
        "evaluation": EVALUATION,
    }
    summary = stream(**given, features=make_features(name))
    table, wanted = read_table(tmp_path / "stream.csv"), offline(features, model, sound)
    assert len(wanted) == summary["frames"] > 150
    np.testing.assert_allclose(table["prob"], PLATT.probability(wanted), rtol=0, atol=1e-3)
    np.testing.assert_allclose(table["time_s"], np.arange(len(wanted)) * 0.08, atol=1e-9)
    rule = Decision.from_record(torch.load(path, weights_only=True)["voxlab"]["decision"]).rule(REFRACTORY)
    alarms = find_alarms(wanted, np.ones(len(wanted), bool), rule)
    assert np.flatnonzero(table["alarm"]).tolist() == alarms.tolist()
    assert summary["alarms"] == len(alarms) > 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "threshold 0.5000 (best f1 on validation); alarms at least 0.4 s apart"
    seconds = np.floor(table["time_s"] + 1e-9)
    told = [line.split() for line in lines[2:] if "ALARM" not in line]
    assert [float(time) for time, _ in told] == np.unique(seconds).tolist()
    highest = [table["prob"][seconds == second].max() for second in np.unique(seconds)]
    np.testing.assert_allclose([float(probability) for _, probability in told], highest, atol=6e-5)
    raised = [float(line.split()[0]) for line in lines if "ALARM" in line]
    np.testing.assert_allclose(raised, alarms * 0.08, atol=1e-9)


def test_other_features_are_refused(sound: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.ckpt", LogMelFeatures(), Linear())
    given: dict[str, Any] = {
        "ckpt": str(tmp_path),
        "audio": str(sound),
        "ranks": Ranks(),
        "run_dir": tmp_path,
        "evaluation": EVALUATION,
    }
    with pytest.raises(UserError, match=r"trained on other features[\s\S]*align: decision -> raw"):
        stream(**given, features=LogMelFeatures(align="raw"))
    with pytest.raises(UserError, match="those of the training, features=logmel"):
        stream(**given, features=None)


class Unreachable:
    """Features whose weights are not there."""

    def settings(self) -> dict[str, Any]:
        return {"name": "moshi"}

    @property
    def info(self) -> Any:
        raise AssertionError("weights were looked for")

    fingerprint = info


def test_the_name_of_features_is_compared_before_weights_are_looked_for(sound: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.ckpt", LogMelFeatures(), Linear())
    given: dict[str, Any] = {"ranks": Ranks(), "run_dir": tmp_path, "evaluation": EVALUATION}
    with pytest.raises(UserError, match=r"was trained on features=logmel: set features=logmel"):
        stream(ckpt=str(tmp_path), audio=str(sound), features=Unreachable(), **given)  # type: ignore[arg-type]


def test_a_threshold_can_be_given(sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(tmp_path / "best.ckpt", LogMelFeatures(), Linear())
    given: dict[str, Any] = {"ckpt": str(tmp_path), "audio": str(sound), "ranks": Ranks(), "run_dir": tmp_path}
    given |= {"features": LogMelFeatures()}
    low, high = (read_settings({"value": value}, {"refractory_s": 0.0}, {}, 5) for value in (0.45, 0.999999))
    assert stream(**given, evaluation=low)["alarms"] > stream(**given, evaluation=high)["alarms"] == 0
    assert capsys.readouterr().out.startswith("threshold 0.4500 (given); alarms at least 0 s apart\n")
    stream(**given, evaluation=low)
    table = read_table(tmp_path / "stream.csv")
    assert (table["prob"][table["alarm"] == 1] >= 0.45).all()


@pytest.mark.parametrize("thr", [{"objective": "youden"}, {"objective": "fbeta", "target": 2.0}, {"source": "cv"}])
def test_a_threshold_is_not_chosen_while_listening(thr: dict[str, Any], sound: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.ckpt", LogMelFeatures(), Linear())
    given: dict[str, Any] = {"ckpt": str(tmp_path), "audio": str(sound), "ranks": Ranks(), "run_dir": tmp_path}
    with pytest.raises(UserError, match=r"thr\.\w+=.* chooses a threshold on validation.*give a probability"):
        stream(**given, features=LogMelFeatures(), evaluation=read_settings(thr, {}, {}, 5))
    write_checkpoint(tmp_path / "best.ckpt", LogMelFeatures(), Linear(), thr=thr)
    assert stream(**given, features=LogMelFeatures(), evaluation=read_settings(thr, {}, {}, 5))["alarms"] > 0


def test_a_dry_run_only_says_what_it_would_do(sound: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.ckpt", LogMelFeatures(), Linear())
    given: dict[str, Any] = {"ckpt": str(tmp_path), "audio": str(sound), "ranks": Ranks(), "run_dir": tmp_path / "run"}
    plan = stream(**given, features=LogMelFeatures(), evaluation=EVALUATION, dry_run=True)
    assert plan["audio_s"] == pytest.approx(soundfile.info(sound).duration, abs=0.01)
    assert (plan["threshold"], plan["refractory_s"], plan["features"]) == (0.5, 0.4, "logmel")
    assert not (tmp_path / "run").exists()


def test_scores_that_are_no_numbers_name_the_checkpoint(sound: Path, tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "best.ckpt", LogMelFeatures(), Linear())
    torch.nn.init.constant_(model.head.output.weight, float("nan"))
    checkpoint = torch.load(tmp_path / "best.ckpt", weights_only=True)
    checkpoint["state_dict"] = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save(checkpoint, tmp_path / "best.ckpt")
    given: dict[str, Any] = {"ckpt": str(tmp_path), "audio": str(sound), "ranks": Ranks(), "run_dir": tmp_path}
    with pytest.raises(UserError, match=r"best\.ckpt: the score of frame 0 is nan.*Lower optim\.lr"):
        stream(**given, features=LogMelFeatures(), evaluation=EVALUATION)


def test_a_run_that_has_not_ended_has_no_threshold(sound: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.ckpt", LogMelFeatures(), Linear(), decision=None)
    given: dict[str, Any] = {"ranks": Ranks(), "run_dir": tmp_path, "evaluation": EVALUATION}
    with pytest.raises(UserError, match="has no threshold yet"):
        stream(ckpt=str(tmp_path), audio=str(sound), features=LogMelFeatures(), **given)


@pytest.mark.parametrize("content", [None, b"", b"RIFFnothing"])
def test_a_file_that_is_no_sound(content: bytes | None, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.ckpt", LogMelFeatures(), Linear())
    file = tmp_path / "bad.wav"
    if content is not None:
        file.write_bytes(content)
    given: dict[str, Any] = {"ranks": Ranks(), "run_dir": tmp_path, "evaluation": EVALUATION}
    with pytest.raises(UserError, match=r"bad\.wav can't be read .*Give an audio file"):
        stream(ckpt=str(tmp_path), audio=str(file), features=LogMelFeatures(), **given)


def test_only_the_first_rank_listens(tmp_path: Path) -> None:
    assert stream(ckpt="", audio="", features=None, ranks=Ranks(1, 2), run_dir=tmp_path, evaluation=EVALUATION) == {}


@pytest.mark.slow  # loads lightning in a process of its own
def test_the_command_line(sound: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.ckpt", LogMelFeatures(num_bins=16), Linear())
    run: subprocess.CompletedProcess[str] = main(tmp_path, "stage=stream", f"ckpt={tmp_path}", f"audio='{sound}'")
    assert run.returncode == 0, run.stderr
    assert "ALARM" in run.stdout
    (table,) = tmp_path.glob("outputs/laughter/*/stream.csv")
    assert len(read_table(table)["prob"]) > 150
