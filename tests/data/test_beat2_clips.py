"""Single clips of BEAT2: those of the sample, what ids say, what of motion and audio is used, and damaged audio."""

from itertools import pairwise

import numpy as np
import pytest
import soundfile

from voxlab.data.beat2_clips import Reading, Sound, find_extent, inspect_sound
from voxlab.data.beat2_files import MOTION, SEMANTIC, SPLIT_TABLE, TEXT, WAV, parse_id, read_semantic
from voxlab.data.sample.beat2 import write_sample
from voxlab.data.textgrid import read_words
from voxlab.errors import UserError
from voxlab.motion.files import read_motion

# ---- the sample ----------------------------------------------------------------------------------------------------


def test_the_sample_is_in_the_form_of_the_real_corpus(written):
    lines = (written / SPLIT_TABLE).read_text().splitlines()
    ids = [line.partition(",")[0] for line in lines[1:]]
    assert lines[0] == "id,type"
    assert len(set(ids)) == len(ids) == 19
    subtypes = set()
    for clip_id in ids:
        motion = read_motion(written / MOTION / f"{clip_id}.npz")
        info = soundfile.info(written / WAV / f"{clip_id}.wav")
        assert (info.samplerate, info.channels) == (16000, 1)
        assert info.frames / 16000 == pytest.approx(motion.num_frames / 30 + 0.2)
        subtypes.add(info.subtype)
        words = read_words(written / TEXT / f"{clip_id}.TextGrid")
        labels = read_semantic(written / SEMANTIC / f"{clip_id}.txt")
        assert [(word.start, word.end) for word in words] == [(label.start, label.end) for label in labels]
        assert len(words) >= 5
        assert 1.0 < motion.trans[:, 1].min() < motion.trans[:, 1].max() < 1.4
        assert np.abs(np.diff(motion.poses, axis=0)).max() < 0.4
        assert (motion.poses.std(0) > 1e-4).all()
    assert subtypes == {"PCM_16", "FLOAT"}


def test_the_sample_is_the_same_each_time_and_small(written, tmp_path):
    assert write_sample(tmp_path)
    assert not write_sample(tmp_path)
    names = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert [(tmp_path / name).read_bytes() for name in names] == [(written / name).read_bytes() for name in names]
    assert sum((written / name).stat().st_size for name in names) < 15e6


def levels(path, num_frames):
    """The loudness of five bands at the time of each frame of motion, and of the two frames beside it."""
    wav, rate = soundfile.read(path)
    places = ((np.arange(num_frames) + 0.5) * rate / 30).astype(int)
    padded = np.pad(wav, 512)
    spectra = np.stack([np.abs(np.fft.rfft(padded[place : place + 1024] * np.hanning(1024))) for place in places])
    edges = (0, 250, 600, 1000, 1700, 3000)
    bands = [np.sqrt((spectra[:, int(a / 15.625) : int(b / 15.625)] ** 2).sum(1)) for a, b in pairwise(edges)]
    bands = np.stack(bands, 1)
    return np.concatenate([bands, np.roll(bands, 2, 0), np.roll(bands, -2, 0), np.ones((num_frames, 1))], 1)


def test_in_the_sample_sound_foretells_motion_and_other_sound_does_not(written):
    train = [f"2_scott_0_{n}_{n}" for n in (17, 18, 19, 20, 66, 74)]
    motion = {key: read_motion(written / MOTION / f"{key}.npz").poses for key in (*train, "2_scott_0_1_1")}
    sound = {key: levels(written / WAV / f"{key}.wav", len(motion[key])) for key in motion}
    arms = [3 * joint + axis for joint, axis in ((16, 2), (17, 2), (18, 1), (19, 1))]
    weights = np.linalg.lstsq(
        np.concatenate([sound[key] for key in train]),
        np.concatenate([motion[key][:, arms] for key in train]),
        rcond=None,
    )[0]
    truth = motion["2_scott_0_1_1"][:, arms]
    errors = {
        name: ((bands @ weights - truth) ** 2).mean(0) / truth.var(0)
        for name, bands in (("own", sound["2_scott_0_1_1"]), ("shuffled", np.roll(sound["2_scott_0_1_1"], 140, 0)))
    }
    assert errors["own"].max() < 0.4
    assert errors["shuffled"].min() > 0.9


# ---- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clip_id", "expected"),
    [
        ("2_scott_0_1_1", ("2", "scott", "speech", "neutral")),
        ("2_scott_0_64_64", ("2", "scott", "speech", "neutral")),
        ("2_scott_0_65_65", ("2", "scott", "speech", "happiness")),
        ("2_scott_0_73_73", ("2", "scott", "speech", "anger")),
        ("2_scott_0_86_86", ("2", "scott", "speech", "sadness")),
        ("2_scott_0_87_87", ("2", "scott", "speech", "contempt")),
        ("2_scott_0_102_102", ("2", "scott", "speech", "surprise")),
        ("2_scott_0_110_110", ("2", "scott", "speech", "fear")),
        ("30_katya_2_118_118", ("30", "katya", "speech", "disgust")),
        ("20_li_1_70_70", ("20", "li", "conversation", "neutral")),
        ("5_stewart_0_65_a", ("5", "stewart", "speech", "happiness")),
        ("5_stewart_0_x_y", ("5", "stewart", "speech", "neutral")),
        ("2_scott_0_119_119", ("2", "scott", "speech", "neutral")),
    ],
)
def test_what_the_id_of_a_clip_says(clip_id, expected):
    name = parse_id(clip_id)
    assert (name.speaker, name.name, name.kind, name.emotion) == expected


# ---- what of a clip is used ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "samples", "offset", "clean", "expected"),
    [
        (1906, 1_025_558, None, (0, 0), (0, 1906, 0.0, 0.564)),
        (1906, 16_000 * 60, None, (0, 0), (0, 1800, 0.0, -3.533)),
        (300, 160_000, None, (2.0, 1.0), (60, 210, 2.0, 0.0)),
        (300, 160_000, 1.0, (0, 0), (0, 270, 1.0, -1.0)),
        (300, 160_000, -1.0, (0, 0), (30, 270, 0.0, 1.0)),
        (300, 160_000, -0.51, (0, 0), (16, 284, 0.02333, 0.51)),
        (300, 160_000, 0.1, (0.5, 0), (15, 282, 0.6, -0.1)),
    ],
)
def test_the_extent_is_what_motion_and_audio_share(frames, samples, offset, clean, expected):
    extent = find_extent(frames, Sound(samples, 16_000, 1), offset, Reading(30, False, "none", *clean))
    first, num_frames, wav_start, mismatch = expected
    assert (extent.first, extent.num_frames) == (first, num_frames)
    assert extent.wav_start == pytest.approx(wav_start, abs=1e-3)
    assert extent.mismatch_s == pytest.approx(mismatch, abs=1e-3)


def test_audio_of_any_kind_is_taken_and_damage_is_told(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "any.wav"
    for rate, channels, subtype in ((16000, 1, "PCM_16"), (44100, 2, "PCM_24"), (8000, 1, "FLOAT")):
        soundfile.write(path, 0.1 * rng.standard_normal((rate, channels)), rate, subtype)
        sound = inspect_sound(path, path.read_bytes())
        assert (sound.num_samples, sound.sample_rate, sound.channels) == (rate, rate, channels)
        assert len(sound.remarks) == ((rate, channels) != (16000, 1))
    soundfile.write(path, np.zeros(16000), 16000)
    assert inspect_sound(path, path.read_bytes()).remarks == ("the audio is digital silence",)
    for length, told in ((0, "bad_audio:empty"), (1500, "0.094 s of audio; expected at least 0.1 s")):
        soundfile.write(path, np.ones(length), 16000)
        with pytest.raises(UserError, match=told):
            inspect_sound(path, path.read_bytes())
    with pytest.raises(UserError, match="bad_audio:unreadable"):
        inspect_sound(path, b"no wav")


def test_semantic_labels_of_another_form_are_refused(tmp_path):
    path = tmp_path / "sem.txt"
    path.write_text("01_beat_align\t0.1\t0.5\t0.4\t0.1\tso\n\n02_deictic_l\t1\t2\t1\t9\tyou there\n")
    assert read_semantic(path)[1] == ("02_deictic_l", 1.0, 2.0, 9.0, "you there")
    path.write_text("01_beat_align 0.1 0.5\n")
    with pytest.raises(UserError, match="line 1"):
        read_semantic(path)
