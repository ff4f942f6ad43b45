"""task=a2g in this process: training, resuming, testing, generating, and what it refuses."""

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tests.tasks import a2g_runs
from tests.tasks.a2g_runs import FEATURES, Made
from voxlab import audio
from voxlab.data.motion_store import open_motion_store
from voxlab.errors import TooManyBadItems, UserError
from voxlab.features.logmel import LogMelFeatures
from voxlab.features.mfcc import Mfcc
from voxlab.losses.gesture import A2gLoss
from voxlab.media import log_video
from voxlab.models.gesture.gesture_model import TokenPart
from voxlab.models.gesture.masking import Masking
from voxlab.models.gesture.motion_codec import find_tokenizers
from voxlab.motion.files import read_motion, write_motion
from voxlab.motion.parts import read_layout
from voxlab.motion.representation import to_frames
from voxlab.parallel import Ranks
from voxlab.tasks.a2g.data import TrainData, hidden
from voxlab.tasks.a2g.generate import num_frames
from voxlab.tasks.a2g.given import read_given
from voxlab.tasks.a2g.material import Sources, open_material
from voxlab.tasks.a2g.module import compute_losses
from voxlab.tasks.a2g.predictor import codebooks_of, load_predictor
from voxlab.tasks.a2g.render import Stage
from voxlab.tasks.a2g.report import videos
from voxlab.tasks.a2g.settings import Body, Generate, Overlap, Stores
from voxlab.tasks.a2g.stages import read_evaluation
from voxlab.tasks.a2g.test import check_given, generate, make_input
from voxlab.tasks.a2g.windows import Windows


@pytest.fixture(scope="module")
def trained(made: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    return run_dir, a2g_runs.run(made, run_dir)


def state(run_dir: Path, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "checkpoints" / name, weights_only=True)["state_dict"]


def test_a_run_trains_tests_and_writes_all_its_files(trained: tuple[Path, dict[str, Any]]) -> None:
    run_dir, summary = trained
    names = {path.relative_to(run_dir).as_posix() for path in run_dir.rglob("*") if path.is_file()}
    wanted = {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "history.jsonl", "report.html"}
    clips = ("2_scott_0_1_1", "2_scott_0_2_2", "2_scott_0_65_65")
    assert wanted | {f"predicted/{clip}.npz" for clip in clips} <= names
    rows = [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "train/ce" in row] == [1, 2, 3, 4]
    assert abs(rows[0]["train/ce"] - np.log(32)) < 0.3
    results = summary["results"]
    assert list(results)[:2] == ["this model", "this model, audio of another clip"]
    assert {"mean pose", "ground truth"} <= set(results)
    assert summary["test/clips"] == len(clips)
    assert summary["baseline/mean_pose/mse/upper"] == results["mean pose"]["values"]["mse/upper"]
    json.dumps(summary, allow_nan=False)
    assert "Synthetic corpus" in (run_dir / "report.html").read_text()


def test_a_checkpoint_holds_the_model_and_its_average_but_not_the_tokenizers(
    made: Made, trained: tuple[Path, dict[str, Any]]
) -> None:
    run_dir, _ = trained
    tensors = state(run_dir)
    heads = {name.split(".")[0] for name in tensors}
    assert heads == {"model", "average"}
    predictor = load_predictor(run_dir)
    codecs = find_tokenizers(made.tokenizers, read_layout("full421"))
    decoders = {weight.shape for codec in codecs.values() for weight in codec.network.parameters()}
    assert not any(name.endswith(("codebooks", "entries")) for name in tensors)
    assert sum(value.numel() for name, value in tensors.items() if name.startswith("model.")) == sum(
        weight.numel() for weight in predictor.model.state_dict().values()
    )
    assert decoders
    assert predictor.record["codecs"] == {name: codec.weights_id for name, codec in codecs.items()}
    assert predictor.speakers == ["2"]
    assert predictor.record["layout"]["name"] == "full421"


def test_a_resumed_run_equals_an_uninterrupted_one(
    made: Made, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run_dir, _ = trained
    fit = {"save_every": 1, "generate_every": 1}
    a2g_runs.run(made, tmp_path / "cut", fit=fit, trainer={"max_steps": 2}, optim=_ConstantRate(lr=3e-3))
    a2g_runs.run(made, tmp_path / "cut", fit=fit, optim=_ConstantRate(lr=3e-3))
    a2g_runs.run(made, tmp_path / "whole", fit=fit, optim=_ConstantRate(lr=3e-3))
    for name in ("best.ckpt", "last.ckpt"):
        whole, cut = state(tmp_path / "whole", name), state(tmp_path / "cut", name)
        assert all(torch.equal(whole[key], cut[key]) for key in whole)
    assert not all(torch.equal(value, state(run_dir)[key]) for key, value in state(tmp_path / "cut").items())
    rows = [json.loads(line) for line in (tmp_path / "whole" / "history.jsonl").read_text().splitlines()]
    assert any("val/generated/l1div" in row for row in rows)


class _ConstantRate(a2g_runs.AdamWCosine):
    """The same learning rate at each step, whatever the number of steps: a shorter run is a longer one cut off."""

    def rate(self, step: int, max_steps: int, scores: Any = ()) -> float:
        return self.lr


def test_testing_again_gives_the_same_motion(made: Made, trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    run_dir, summary = trained
    again = a2g_runs.run(made, tmp_path / "test", stage="test", ckpt=str(run_dir), tokenizers=None)
    for path in (run_dir / "predicted").iterdir():
        assert path.read_bytes() == (tmp_path / "test" / "predicted" / path.name).read_bytes()
    assert again["test/mse/upper"] == summary["test/mse/upper"]


def test_another_seed_and_the_true_start_give_other_motion(
    made: Made, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run_dir, _ = trained
    predictor = load_predictor(run_dir)
    material = open_material(Sources(made.corpus, FEATURES, made.tokenizers, Stores(**made.stores), {}), Ranks())
    clips = material.clips("test", predictor.speakers)[:1]
    motions = {}
    for name, seed, given in (("first", 0, 0), ("again", 0, 0), ("seed", 1, 0), ("given", 0, 4)):
        sampling = {**a2g_runs.NODES["sampling"], "given": given}
        how = read_evaluation(sampling, a2g_runs.NODES["metrics"], a2g_runs.NODES["body"], "none", seed)
        motions[name] = generate(predictor, clips, how, Ranks())[clips[0].clip.id].poses
    assert np.array_equal(motions["first"], motions["again"])
    assert not np.array_equal(motions["first"], motions["seed"])
    assert not np.array_equal(motions["first"][:16], motions["given"][:16])
    codec = predictor.codecs["upper"]
    start = make_input(predictor, clips[0], clips[0], 4).start
    assert start is not None
    assert torch.equal(start["upper"], torch.from_numpy(clips[0].codes["upper"][:4].astype(np.int64)))
    assert len(start["face"]) == 4 * codec.stride // predictor.codecs["face"].stride


def test_a_video_becomes_part_of_the_page_and_a_failed_one_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"film")
    (tmp_path / "a.wav").write_bytes(b"sound")
    section = videos("Videos", {"<clip>": [tmp_path / "a.mp4", tmp_path / "a.wav"]})
    assert section.body.count("<video") == 1
    assert "data:video/mp4;base64,ZmlsbQ==" in section.body
    assert "&lt;clip&gt;" in section.body
    assert Stage(Body(), "none").draw(tmp_path / "b.mp4", [], None) == []
    assert Stage(Body(), "stick").draw(tmp_path / "b.mp4", [], None) == []
    assert "no video" in caplog.text


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    time = torch.arange(3 * 44100 + 700) / 44100
    wav = 0.1 * torch.sin(2 * torch.pi * 220 * time) * (1 + torch.sin(2 * torch.pi * 2 * time))
    (folder / "deep").mkdir()
    (folder / "deep" / "tone.wav").write_bytes(audio.encode_wav(torch.stack([wav, wav]), 44100))
    (folder / "short.wav").write_bytes(audio.encode_wav(wav[None, : 44100 // 2], 44100))
    return folder


def test_any_recording_gets_motion_of_exactly_its_length(
    made: Made, trained: tuple[Path, dict[str, Any]], recordings: Path, tmp_path: Path
) -> None:
    run_dir, _ = trained
    given: dict[str, Any] = {"stage": "generate", "ckpt": str(run_dir)}
    summary = a2g_runs.run(made, tmp_path / "run", audio=str(recordings), out=str(tmp_path / "out"), **given)
    assert summary["recordings"] == 2
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    kinds = (".npz", ".bvh", ".expressions.csv")
    assert names == {f"{name}{kind}" for name in ("deep/tone", "short") for kind in kinds}
    motion = read_motion(tmp_path / "out" / "deep" / "tone.npz")
    assert motion.num_frames == 90  # 3.016 s
    assert read_motion(tmp_path / "out" / "short.npz").num_frames == 15
    short = {"audio": str(recordings / "short.wav"), "out": str(tmp_path / "again"), "render": "stick"}
    a2g_runs.run(made, tmp_path / "run", **given, **short)
    assert (tmp_path / "again" / "short.mp4").stat().st_size > 1000
    assert (tmp_path / "out" / "short.npz").read_bytes() == (tmp_path / "again" / "short.npz").read_bytes()


def test_start_end_words_and_place_are_as_they_are_given(
    made: Made, trained: tuple[Path, dict[str, Any]], recordings: Path, tmp_path: Path
) -> None:
    run_dir, _ = trained
    root = Path(made.corpus.root + "-sample") / "beat_english_v2.0.0"
    source = root / "smplxflame_30" / "2_scott_0_1_1.npz"
    grid = root / "textgrid" / "2_scott_0_1_1.TextGrid"
    given = {"speaker": "2", "seed_motion": str(source), "end_motion": str(source), "in_place": True}
    wanted: dict[str, Any] = {"generate": {**given, "transcript": str(grid)}, "ckpt": str(run_dir)}
    audio_file = str(recordings / "deep" / "tone.wav")
    a2g_runs.run(made, tmp_path, stage="generate", audio=audio_file, out=str(tmp_path / "out"), **wanted)
    motion = read_motion(tmp_path / "out" / "tone.npz")
    assert np.abs(motion.trans[:, [0, 2]]).max() == 0
    codec = find_tokenizers(made.tokenizers, read_layout("full421"))["upper"]
    frames, own = to_frames(read_motion(source)), to_frames(motion)
    predictor = load_predictor(run_dir)
    start, end = read_given(predictor, Generate(seed_motion=str(source), end_motion=str(source)), 4).codes(92)
    assert start is not None
    assert end is not None
    assert torch.equal(start["upper"], torch.from_numpy(codec.tokenize(frames)[:4].astype(np.int64)))
    whole = codec.tokenize(frames[len(frames) % 4 :])
    assert torch.equal(end["upper"], torch.from_numpy(whole[-4:].astype(np.int64)))
    decoded = codec.detokenize(start["upper"].numpy(), 16)
    # The decoder sees beyond the edge of what is given, so only the first frames are alike.
    assert np.abs(codec.values(own)[:4] - decoded[:4]).mean() < 0.5 * codec.std.mean()


def test_a_start_of_another_frame_rate_is_brought_to_that_of_the_model(
    made: Made, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    source = Path(made.corpus.root + "-sample") / "beat_english_v2.0.0" / "smplxflame_30" / "2_scott_0_1_1.npz"
    write_motion(tmp_path / "slow.npz", read_motion(source, fps=15, allow_resample=True))
    given = read_given(load_predictor(trained[0]), Generate(seed_motion=str(tmp_path / "slow.npz")), 4)
    assert given.start is not None
    frames = to_frames(read_motion(source))
    assert abs(len(given.start) - len(frames)) <= 1
    assert np.abs(given.start[:60, :330] - frames[:60, :330]).mean() < 0.01


def test_a_bad_recording_of_a_folder_costs_no_other(
    made: Made, trained: tuple[Path, dict[str, Any]], recordings: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(recordings, folder)
    (folder / "broken.wav").write_bytes(b"no sound")
    given: dict[str, Any] = {"stage": "generate", "ckpt": str(trained[0]), "out": str(out)}
    with pytest.raises(TooManyBadItems, match=r"1 of 3 recordings failed(.|\n)*broken: audio=.*can't be read"):
        a2g_runs.run(made, tmp_path / "run", audio=str(folder), **given)
    line = json.loads((out / "errors.jsonl").read_text())
    assert (line["id"], line["path"]) == ("broken", str(folder / "broken.wav"))
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.npz")} == {"deep/tone.npz", "short.npz"}
    summary = a2g_runs.run(made, tmp_path / "run", audio=str(folder), max_bad_fraction=0.5, **given)
    assert (summary["recordings"], summary["failed"]) == (2, 1)
    assert type(error_of(made, tmp_path, audio=str(folder / "broken.wav"), **given)) is UserError
    (folder / "broken.wav").unlink()
    a2g_runs.run(made, tmp_path / "run", audio=str(folder), **given)
    assert not (out / "errors.jsonl").exists()


def test_a_recording_too_short_for_the_motion_that_is_given_is_named(
    made: Made, trained: tuple[Path, dict[str, Any]], recordings: Path, tmp_path: Path
) -> None:
    source = Path(made.corpus.root + "-sample") / "beat_english_v2.0.0" / "smplxflame_30" / "2_scott_0_1_1.npz"
    for name in ("seed_motion", "end_motion"):
        given: dict[str, Any] = {"stage": "generate", "ckpt": str(trained[0]), "generate": {name: str(source)}}
        message = refused(made, tmp_path, audio=str(recordings / "short.wav"), **given)
        wanted = ("short.wav: its 15 frames are too few", f"generate.{name}", "sampling.seed_tokens=4")
        assert [word for word in wanted if word not in message] == []


def test_the_frames_of_a_recording_are_those_that_it_covers_whole() -> None:
    assert num_frames(1_025_558, 16_000, 30) == 1922  # 64.097 s
    assert num_frames(44_100, 44_100, 30) == 30
    assert num_frames(533, 16_000, 30) == 0


def test_tensorboard_gets_a_video_that_it_can_play(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import TensorBoardLogger
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    colours = [Image.new("RGB", (96, 72), (40 * number, 0, 0)) for number in range(7)]
    colours[0].save(tmp_path / "a.gif", save_all=True, append_images=colours[1:])
    logger = TensorBoardLogger(str(tmp_path), name="", version="")
    log_video({"tensorboard": logger}, "val/clip", [tmp_path / "a.gif", tmp_path / "a.wav"], 5)
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    image = events.Images("val/clip")[0]
    assert (image.step, image.width, image.height) == (5, 32, 24)
    film: Any = Image.open(io.BytesIO(image.encoded_image_string))
    assert film.n_frames == 3


def test_codes_are_made_once_and_again_where_they_are_damaged(made: Made, tmp_path: Path) -> None:
    store = open_motion_store(made.corpus)
    first = a2g_runs.run(made, tmp_path, stage="tokenize")
    assert first["clips"] == len(store.clips)
    folder = next((store.folder / "codes").glob("upper-*"))
    path = sorted(folder.glob("*.npy"))[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    second = a2g_runs.run(made, tmp_path, stage="tokenize")
    assert (second["coded_upper"], second["coded_hands"]) == (1, 0)
    assert path.read_bytes() == whole
    codes = np.load(path)
    assert codes.dtype == np.int16
    assert codes.shape == (-(-store.clips[0].num_frames // 4), 2)


def test_two_folders_of_motion_are_compared_without_a_model(
    made: Made, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run_dir, _ = trained
    reference = Path(made.corpus.root + "-sample") / "beat_english_v2.0.0" / "smplxflame_30"
    folders = {"predicted": str(run_dir / "predicted"), "reference": str(reference)}
    summary = a2g_runs.run(made, tmp_path, stage="evaluate", **folders)
    assert (tmp_path / "report.html").is_file()
    assert summary["results"]["predicted"]["values"]["mpjpe_cm"] > 0


def error_of(made: Made, tmp_path: Path, **changes: Any) -> UserError:
    with pytest.raises(UserError) as error:
        a2g_runs.run(made, tmp_path / "refused", **changes)
    return error.value


def refused(made: Made, tmp_path: Path, **changes: Any) -> str:
    return str(error_of(made, tmp_path, **changes))


MISTAKES: list[tuple[dict[str, Any], list[str]]] = [
    ({"stage": "stream"}, ["stage=stream", "evaluate"]),
    ({"tokenizers": None}, ["tokenizers=<folder", "part=upper,hands,lower_trans,face"]),
    (
        {"tokenizers": None, "extraction": {"features": "data=beat2 data.source=sample data.root=b2 features=mfcc"}},
        ["experiment=a2g_tokenizer_tiny data=beat2 data.source=sample data.root=b2 part=upper,hands"],
    ),
    ({"tokenizers": "nowhere"}, ["tokenizers=nowhere"]),
    ({"model": None}, ["model=a2g_base"]),
    ({"model": object()}, ["model=a2g_base"]),
    ({"features": None}, ["features=wavlm"]),
    ({"features": Mfcc(num_coefficients=8, num_bins=64)}, ["num_coefficients: 16 -> 8", "task=extract"]),
    ({"fit": {"window": 62}}, ["fit.window=62", "60 or", "64"]),
    ({"fit": {"stride": 3}}, ["fit.stride=3", "fit.stride=4"]),
    ({"fit": {"window": 4000}}, ["fit.window is 4000", "240 frames"]),
    ({"fit": {"monitor": "val/fgd"}}, ["fit.monitor=val/fgd", "val/ce"]),
    ({"fit": {"ema_decay": 1.0}}, ["fit.ema_decay"]),
    ({"fit": {"batchsize": 3}}, ["fit.batchsize", "batch_size"]),
    ({"sampling": {"steps": 0}}, ["sampling.steps=0"]),
    ({"sampling": {"given": -1}}, ["sampling.given=-1"]),
    ({"sampling": {"given": 90}}, ["sampling.given=90", "360 frames", "is left to generate"]),
    ({"metrics": {"protocol": "paper"}}, ["metrics.protocol=paper", "paper2024"]),
    ({"body": {"skeleton": "bones"}}, ["body.skeleton=bones", "synthetic"]),
    ({"body": {"skeleton": "smplx"}}, ["body.path"]),
    ({"render": "mesh"}, ["render=mesh", "body.skeleton=smplx"]),
    ({"render": "pov"}, ["render=pov", "stick"]),
    ({"stage": "test"}, ["ckpt=<run folder"]),
    ({"stage": "test", "ckpt": "nowhere"}, ["ckpt=nowhere", "checkpoints/"]),
    ({"stage": "generate", "ckpt": "nowhere"}, ["audio=<file or folder>"]),
    ({"stage": "generate", "ckpt": "nowhere", "audio": "no.wav"}, ["audio=no.wav"]),
    ({"stage": "evaluate"}, ["predicted=<folder>"]),
]


@pytest.mark.parametrize(("changes", "words"), MISTAKES, ids=[str(index) for index in range(len(MISTAKES))])
def test_mistakes_are_named(made: Made, tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    message = refused(made, tmp_path, **changes)
    assert [word for word in words if word not in message] == []


def test_what_does_not_fit_a_trained_model_is_refused(
    made: Made, trained: tuple[Path, dict[str, Any]], recordings: Path, tmp_path: Path
) -> None:
    ckpt = str(trained[0])
    audio_file = str(recordings / "short.wav")
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"features": Mfcc(num_coefficients=8, num_bins=64)}, "num_coefficients: 16 -> 8"),
        ({"features": LogMelFeatures(num_bins=16, align="raw")}, "was trained with features=mfcc"),
        ({"acoustic": None}, "features@acoustic=logmel"),
        ({"generate": {"speaker": "30"}}, "knows 2"),
        ({"generate": {"seed_motion": "no.npz"}}, "no.npz"),
        ({"generate": {"transcript": "no.TextGrid"}}, "no.TextGrid"),
        ({"audio": str(tmp_path / "empty.wav")}, "0.1 s is the least"),
    ]
    (tmp_path / "empty.wav").write_bytes(audio.encode_wav(torch.zeros(1, 100), 16000))
    for changes, words in mistakes:
        given: dict[str, Any] = {"stage": "generate", "ckpt": ckpt, "audio": audio_file, **changes}
        assert words in refused(made, tmp_path, **given)
    other = tmp_path / "others"
    shutil.copytree(made.tokenizers, other)
    a2g_runs.write_tokenizer(made.corpus, "upper", other / "upper", seed=1)
    assert "upper: " in refused(made, tmp_path, stage="test", ckpt=ckpt, tokenizers=str(other))
    slow = dataclasses.replace(made, corpus=dataclasses.replace(made.corpus, fps=15, allow_resample=True))
    assert "fps" in refused(slow, tmp_path, stage="test", ckpt=ckpt)
    start = refused(made, tmp_path, ckpt=ckpt, model=dataclasses.replace(a2g_runs.MODEL, layers=2))
    assert "start weights" in start or "this run has" in start


def test_a_missing_clip_of_features_is_named(made: Made, tmp_path: Path) -> None:
    everyone = dataclasses.replace(made, corpus=dataclasses.replace(made.corpus, speakers=None))
    assert "4_lawrence" in refused(everyone, tmp_path)


def test_a_dry_run_writes_nothing(made: Made, tmp_path: Path) -> None:
    facts = a2g_runs.run(made, tmp_path / "dry", dry_run=True)
    assert facts["train_clips"] == "8, 1.1 minutes"
    assert facts["tokens_face"] == "2 codebooks of 32, 2 frames each"
    seconds = [soundfile.info(clip.wav).duration for clip in made.corpus.clips() if clip.split == "train"]
    windows = sum((int(each * 30) - 64) // 20 + 1 for each in seconds)
    assert facts["train_windows"] == f"{windows} at most"
    assert facts["steps_per_epoch"] == f"{windows // 8} at most"
    assert facts["max_steps"] == "4 at most"
    with pytest.raises(UserError, match=r"fit\.window"):
        a2g_runs.run(made, tmp_path / "dry", dry_run=True, fit={"window": 62})
    assert list((tmp_path / "dry").iterdir()) == []


def test_a_run_does_not_go_on_with_a_tokenizer_trained_anew(made: Made, tmp_path: Path) -> None:
    own = dataclasses.replace(made, tokenizers=str(tmp_path / "tokenizers"))
    shutil.copytree(made.tokenizers, own.tokenizers)
    a2g_runs.run(own, tmp_path / "refused", trainer={"max_steps": 1})
    kept = (tmp_path / "refused" / "checkpoints" / "last.ckpt").read_bytes()
    a2g_runs.write_tokenizer(made.corpus, "upper", Path(own.tokenizers) / "upper", seed=1)
    message = refused(own, tmp_path)
    assert "other tokenizers, features or motion" in message
    assert "codecs.upper: " in message
    assert (tmp_path / "refused" / "checkpoints" / "last.ckpt").read_bytes() == kept


def test_what_is_given_of_the_truth_is_told_beside_the_figures(
    made: Made, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    given: dict[str, Any] = {"stage": "test", "ckpt": str(trained[0])}
    summary = a2g_runs.run(made, tmp_path, sampling={"given": 4, "top_k": 3}, **given)
    remark = " (first 4 moments given)"
    assert list(summary["results"])[:2] == [f"this model{remark}", f"this model, audio of another clip{remark}"]
    about = summary["results"][f"this model{remark}"]["about"]
    assert (about["given_moments"], about["seed"], about["sampling"]["top_k"]) == (4, 0, 3)
    assert "given_moments" not in summary["results"]["mean pose"]["about"]
    assert {"test/mse/upper", "baseline/this_model_audio_of_another_clip/mse/upper"} <= set(summary)
    page = (tmp_path / "report.html").read_text()
    assert f"this model{remark}" in page
    assert "given_moments" in page
    assert "300 frames; 2_scott" in refused(made, tmp_path, sampling={"given": 75}, **given)


def test_a_short_clip_is_generated_beside_long_ones_though_its_start_is_given(
    made: Made, trained: tuple[Path, dict[str, Any]]
) -> None:
    predictor = load_predictor(trained[0])
    material = open_material(Sources(made.corpus, FEATURES, made.tokenizers, Stores(**made.stores), {}), Ranks())
    short, long = material.clips("test", predictor.speakers)[:2]
    sizes = {name: -(-17 // codec.stride) for name, codec in predictor.codecs.items()}
    short = dataclasses.replace(
        short,
        clip=dataclasses.replace(short.clip, num_frames=17),
        aligned={name: rows[:17] for name, rows in short.aligned.items()},
        codes={name: codes[: sizes[name]] for name, codes in short.codes.items()},
    )
    sampling = {**a2g_runs.NODES["sampling"], "given": 4}
    how = read_evaluation(sampling, a2g_runs.NODES["metrics"], a2g_runs.NODES["body"], "none", 0)
    found = generate(predictor, [short, long], how, Ranks())
    assert [found[data.clip.id].num_frames for data in (short, long)] == [17, long.clip.num_frames]
    both = dataclasses.replace(material, store=dataclasses.replace(material.store, clips=(short.clip, long.clip)))
    check_given(how, both)
    with pytest.raises(UserError, match=rf"20 frames; {short.clip.id} has 17. .* of 1 of 2 clips: give 4"):
        check_given(dataclasses.replace(how, overlap=Overlap(given=5)), both)


def test_tokenizers_of_another_frame_rate_are_taken_where_that_is_asked_for(made: Made, tmp_path: Path) -> None:
    slow = dataclasses.replace(made, corpus=dataclasses.replace(made.corpus, fps=15, allow_resample=True))
    message = refused(slow, tmp_path, stage="tokenize")
    assert "fps: 30 -> 15" in message
    assert "any_fps=true" in message
    done = a2g_runs.run(slow, tmp_path, stage="tokenize", any_fps=True)
    assert done["coded_upper"] == done["clips"]
    other = dataclasses.replace(slow, corpus=dataclasses.replace(slow.corpus, fps=30, trans="none"))
    assert "any_fps" not in refused(other, tmp_path, stage="tokenize", any_fps=True)


def test_start_weights_are_taken(made: Made, trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    run_dir, _ = trained
    one = {"max_steps": 1}
    a2g_runs.run(made, tmp_path, ckpt=str(run_dir), trainer=one, optim=a2g_runs.AdamWCosine(lr=1e-12, final_lr=0.0))
    before, after = state(run_dir, "best.ckpt"), state(tmp_path)
    names = [name for name in before if name.startswith("average.")]
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in names)


def test_each_loss_alone_reaches_the_model_and_none_the_tokenizers(made: Made) -> None:
    material = open_material(Sources(made.corpus, FEATURES, made.tokenizers, Stores(**made.stores), {}), Ranks())
    material.tokenize(Ranks())
    moments, table = material.moments(Ranks()), material.words()
    clips = material.clips("train", material.speakers())
    windows = Windows(clips, material.codecs, moments, table, length=64, stride=20, fps=30)
    batch = windows.collate(range(4)) | hidden(windows, 4, (0,), Masking(mode="always", seed=0.0, drop_audio=0.0))
    parts = [TokenPart(n, c.stride, c.num_codebooks, c.codebook_size) for n, c in material.codecs.items()]
    inputs = {"feature_dim": 16, "acoustic_dim": 32, "num_speakers": 1, "fps": 30, "num_words": table.size}
    model = a2g_runs.MODEL.build(parts, codebooks_of(material.codecs), **inputs)
    means = {name: mean.value for name, mean in compute_losses(model, material.codecs, batch, A2gLoss()).items()}
    for kind in ("ce", "rec", "velocity", "acceleration"):
        model.zero_grad()
        total = torch.stack([value for name, value in means.items() if name.startswith(f"{kind}/")]).sum()
        total.backward(retain_graph=True)
        for group in (model.fusion, model.backbone, *(model.part(name).head for name in material.codecs)):
            assert sum(float(w.grad.abs().sum()) for w in group.parameters() if w.grad is not None) > 0, kind
        weights = [weight for codec in material.codecs.values() for weight in codec.network.parameters()]
        assert all(weight.grad is None for weight in weights)


def test_one_shot_training_without_acoustic_features(made: Made, tmp_path: Path) -> None:
    masking = {**a2g_runs.NODES["fit"]["masking"], "mode": "always", "seed": 0.0}
    given: dict[str, Any] = {"acoustic": None, "trainer": {"max_steps": 1}, "sampling": {"steps": 1}}
    a2g_runs.run(made, tmp_path, fit={"masking": masking}, **given)
    record = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["voxlab"]
    assert list(record["features"]) == ["features"]
    assert record["fit"]["masking"]["mode"] == "always"


def test_two_ranks_share_the_windows_of_a_batch(made: Made) -> None:
    material = open_material(Sources(made.corpus, FEATURES, made.tokenizers, Stores(**made.stores), {}), Ranks())
    material.tokenize(Ranks())
    given = (material.codecs, material.moments(Ranks()), material.words())
    windows = Windows(material.clips("train", ["2"]), *given, length=64, stride=20, fps=30)
    whole = TrainData(windows, 9, Masking(), 0, 1).batch(11)
    parts = [TrainData(windows, 9, Masking(), 0, 2).batch(11, rank, 2) for rank in (0, 1)]
    assert [len(part["id"]) for part in parts] == [5, 4]
    for rank, part in enumerate(parts):
        assert part["id"] == whole["id"][rank::2]
        for name in ("mask_ratio", "features", "start_frame"):
            assert torch.equal(part[name], whole[name][rank::2])
        assert torch.equal(part["visible"]["face"], whole["visible"]["face"][rank::2])
    epoch = [TrainData(windows, 9, Masking(), 0, 1).batch(step) for step in range(8)]
    seen = [
        (name, int(start)) for batch in epoch for name, start in zip(batch["id"], batch["start_frame"], strict=True)
    ]
    assert len(set(seen)) == len(seen) == 72


def test_the_features_of_a_store_are_those_of_a_recording(made: Made) -> None:
    from voxlab.data.motion_store import MotionStore
    from voxlab.tasks.a2g.aligned import align, open_aligned
    from voxlab.tasks.a2g.features import extract, open_tracks

    store: MotionStore = open_motion_store(made.corpus)
    clip = store.split("test")[0]
    for name, features in FEATURES.items():
        tracks = open_tracks(made.stores[name], features, made.corpus, store.clips, key=name, extraction=None)
        align(store, {name: tracks}, Ranks())
        stored = open_aligned(store, tracks, [clip])[0]
        live = extract(features.to("cpu"), audio.load(clip.wav, features.info.sample_rate)[0], "x", clip.num_frames, 30)
        assert np.allclose(stored, live, rtol=2e-3, atol=2e-3)
