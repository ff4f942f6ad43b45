"""Segments: which ones, how exactly they are read and resampled, and what damaged, silent or short files do."""

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from voxlab import audio
from voxlab.data.items import AudioItem
from voxlab.data.librispeech import LibriSpeech
from voxlab.data.recordings import Header, read_header, read_part
from voxlab.data.segments import SegmentDataset, draw_segments
from voxlab.errors import UserError
from voxlab.loudness import integrated_loudness


def noise(seconds, sample_rate=16000, channels=1, seed=0, level=0.1):
    shape = (channels, round(seconds * sample_rate))
    return (level * np.random.default_rng(seed).standard_normal(shape)).astype("f4").clip(-0.9, 0.9)


@pytest.fixture
def add(tmp_path):
    """Write a waveform (C, T) as a file, and return it as an item."""

    def write(name, wav, sample_rate=16000, **options):
        soundfile.write(tmp_path / name, wav.T, sample_rate, **options)
        return AudioItem(Path(name).stem, tmp_path / name, "train", "1:1")

    return write


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    sample = LibriSpeech(source="sample", root=str(tmp_path_factory.mktemp("corpus") / "LibriSpeech"), subsets=None)
    sample.prepare()
    return sample.items()


def segments(items, **options):
    return SegmentDataset(items, **{"sample_rate": 16000, "segment_seconds": 1.0, **options})


def equal(left, right):
    return len(left) == len(right) and all(
        torch.equal(a["wav"], b["wav"]) and {**a, "wav": 0} == {**b, "wav": 0} for a, b in zip(left, right, strict=True)
    )


# ---- what is read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.flac", "a.wav"])
def test_a_segment_is_that_part_of_the_file(add, name):
    item = add(name, noise(5))
    whole, _ = audio.load(item.path)
    for segment in segments([item], segments_per_epoch=20):
        start = segment["start"]
        assert segment["lengths"] == 16000
        assert torch.equal(segment["wav"], whole[:, start : start + 16000])


@pytest.mark.parametrize("wanted", [16000, 24000, 22050, 8000, 44100])
@pytest.mark.parametrize("own", [16000, 44100, 48000])
def test_a_resampled_segment_equals_the_resampled_file(add, own, wanted):
    item = add("a.wav", noise(3, own), own, subtype="FLOAT")
    whole, _ = audio.load(item.path, wanted)
    found = segments([item], sample_rate=wanted, segments_per_epoch=20)
    fixed = segments([item], sample_rate=wanted, random=False)
    for segment in [*found, *fixed]:
        start = segment["start"] * wanted // own
        assert start * own == segment["start"] * wanted
        expected = whole[:, start : start + wanted]
        assert segment["wav"].shape == (1, wanted)
        assert (segment["wav"] - expected).abs().max() < 1e-6


def test_the_last_samples_of_a_resampled_file_can_be_drawn(add):
    item = add("a.flac", noise(1.01))
    whole, _ = audio.load(item.path, 24000)
    found = segments([item], sample_rate=24000, segments_per_epoch=2000)
    starts = {segment["start"] for segment in (found[index] for index in range(2000))}
    assert starts == set(range(0, 161, 2))
    last = next(segment for segment in found if segment["start"] == 160)
    assert (last["wav"] - whole[:, 240:]).abs().max() < 1e-6


@pytest.mark.parametrize("wanted", [16000, 24000])
def test_a_short_file_is_padded_and_its_length_told(add, wanted):
    items = [add("short.flac", noise(0.3)), add("long.flac", noise(2, seed=1))]
    whole, _ = audio.load(items[0].path, wanted)
    segment = segments(items, sample_rate=wanted, random=False)[0]
    assert (segment["lengths"], segment["start"]) == (whole.shape[1], 0)
    assert torch.equal(segment["wav"][:, : whole.shape[1]], whole)
    assert segment["wav"].shape == (1, wanted)
    assert not segment["wav"][:, whole.shape[1] :].any()


def test_channels_are_averaged_and_containers_read(add):
    item = add("a.wav", noise(2, 24000, channels=2), 24000)
    content = item.path.read_bytes()
    inside = AudioItem("row/1", Path("no.parquet"), "train", "1:1", content=lambda: content)
    expected = audio.to_mono(audio.load(item.path)[0])
    for found in (item, inside):
        wav = segments([found], sample_rate=24000, segment_seconds=2)[0]["wav"]
        assert torch.allclose(wav, expected, atol=1e-7)


def test_without_random_each_recording_gives_its_middle(add):
    items = [add("b.flac", noise(3)), add("a.flac", noise(2, seed=1))]
    found = list(segments(items, random=False))
    assert [(segment["id"], segment["start"], segment["index"]) for segment in found] == [
        ("b", 16000, 0),
        ("a", 8000, 1),
    ]


def test_an_index_outside_is_refused(add):
    found = segments([add("a.flac", noise(3))])
    assert len(found) == 3
    for index in (3, -1):
        with pytest.raises(IndexError):
            found[index]


# ---- which segments ------------------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0.1, 30), min_size=1, max_size=20),
    st.integers(1, 300),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_every_recording_gets_its_share(durations, count, seed):
    rows, places = draw_segments(np.cumsum(durations), count, seed)
    drawn = np.bincount(rows, minlength=len(durations))
    assert np.abs(drawn - count * np.array(durations) / sum(durations)).max() < 2
    assert len(rows) == len(places) == count
    assert 0 <= places.min() <= places.max() < 1
    again = draw_segments(np.cumsum(durations), count, seed)
    assert np.array_equal(rows, again[0])
    assert np.array_equal(places, again[1])


def test_starts_are_uniform_and_recordings_come_in_no_order(corpus):
    rows, places = draw_segments(np.cumsum(np.full(50, 1.0)), 20000, (3, 0))
    assert np.abs(np.histogram(places, 10, (0, 1))[0] / 2000 - 1).max() < 0.1
    assert abs(np.corrcoef(rows, np.arange(20000))[0, 1]) < 0.03


def test_segments_depend_on_seed_epoch_and_index_alone(corpus):
    options = {"segment_seconds": 0.5, "sample_rate": 24000, "loudness": (-30, -16)}
    found = segments(corpus, seed=1, **options)
    forward = [found[index] for index in range(len(found))]
    copy = pickle.loads(pickle.dumps(segments(corpus, seed=1, **options)))
    backward = [copy[index] for index in reversed(range(len(found)))][::-1]
    assert equal(forward, backward)
    assert not equal(forward, list(segments(corpus, seed=2, **options)))
    found.set_epoch(1)
    second = list(found)
    assert not equal(forward, second)
    resumed = segments(corpus, seed=1, **options)
    resumed.set_epoch(1)
    assert equal(second[7:], [resumed[index] for index in range(7, len(resumed))])
    found.set_epoch(0)
    assert equal(forward, list(found))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing_and_see_the_epoch(corpus, num_workers):
    found = segments(corpus, segment_seconds=0.5)
    loader = DataLoader(found, batch_size=8, num_workers=num_workers, persistent_workers=True)
    for epoch in (0, 1):
        found.set_epoch(epoch)
        batches = list(loader)
        expected = [found[index] for index in range(len(found))]
        assert torch.equal(torch.cat([batch["wav"] for batch in batches]), torch.stack([s["wav"] for s in expected]))
        assert [name for batch in batches for name in batch["id"]] == [segment["id"] for segment in expected]
        assert torch.cat([batch["lengths"] for batch in batches]).tolist() == [s["lengths"] for s in expected]


def test_an_epoch_covers_all_audio_once_unless_told_otherwise(corpus):
    seconds = sum(read_header(item).duration for item in corpus)
    assert len(segments(corpus)) == round(seconds)
    assert len(segments(corpus, segments_per_epoch=7)) == 7
    assert len(segments(corpus, segments_per_epoch=7, random=False)) == len(corpus)


# ---- silence and loudness ------------------------------------------------------------------------------------------


def silence_and_speech(add):
    quiet = np.concatenate([np.zeros((1, 40000), "f4"), noise(0.5)], 1)
    return [add("silent.flac", noise(4, level=2e-5)), add("pause.flac", quiet), add("loud.flac", noise(4))]


def test_silent_recordings_are_replaced_and_counted_but_pauses_stay(add):
    items = silence_and_speech(add)
    found = segments(items, segments_per_epoch=60)
    drawn = [found[index] for index in range(60)]
    assert {segment["id"] for segment in drawn} == {"pause", "loud"}
    assert found.num_silent == 1
    assert any(segment["id"] == "pause" and not segment["wav"].any() for segment in drawn)
    fresh = segments(items, segments_per_epoch=60)
    assert equal(drawn[::-1], [fresh[index] for index in reversed(range(60))])


def test_workers_share_what_they_find_silent(add):
    found = segments(silence_and_speech(add), segments_per_epoch=60)
    batches = list(DataLoader(found, batch_size=10, num_workers=2))
    assert {name for batch in batches for name in batch["id"]} == {"pause", "loud"}
    assert found.num_silent == 1


def test_without_random_silence_stays_in_its_place(add):
    found = segments(silence_and_speech(add), random=False)
    assert [segment["id"] for segment in found] == ["silent", "pause", "loud"]


def test_nothing_but_silence_is_an_error(add):
    found = segments([add("a.flac", noise(2, level=0)), add("b.flac", noise(2, level=0))])
    with pytest.raises(UserError, match=r"recordings in a row are silent .* 2 of 2 are known to be"):
        found[0]


def test_loudness_is_drawn_between_its_bounds(corpus):
    found = segments(corpus, segment_seconds=1, loudness=(-30, -20))
    plain = segments(corpus, segment_seconds=1)
    measured = [integrated_loudness(segment["wav"], 16000) for segment in found]
    assert -30.05 < min(measured) < -27
    assert -23 < max(measured) < -19.95
    for scaled, own in zip(found, plain, strict=True):
        ratio = scaled["wav"].abs().max() / own["wav"].abs().max()
        assert torch.allclose(scaled["wav"], own["wav"] * ratio, atol=1e-6)


def test_loudness_stops_at_the_peak_and_leaves_pauses_and_snippets(add):
    click = np.zeros((1, 32000), "f4")
    click[:, ::4000] = 0.5
    items = [add("click.wav", click), add("pause.wav", noise(2, level=1e-4)), add("snippet.wav", noise(0.2))]
    options = {"random": False, "segment_seconds": 2}
    loud, plain = (list(segments(items, **options, **more)) for more in ({"loudness": (-1, -1)}, {}))
    assert loud[0]["wav"].abs().max().item() == pytest.approx(0.99)
    assert torch.equal(loud[1]["wav"], plain[1]["wav"])
    assert torch.equal(loud[2]["wav"], plain[2]["wav"])


# ---- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_truncated_flac_names_file_reason_and_extent(add, share):
    item = add("cut.flac", noise(8))
    content = item.path.read_bytes()
    item.path.write_bytes(content[: int(len(content) * share)])
    found = segments([item], segments_per_epoch=50)
    with pytest.raises(UserError) as error:
        list(found)
    text = str(error.value)
    readable = int(text.split("; ")[1].split()[0])
    assert text.startswith(f"{item.path} is damaged: ")
    assert "of the 128000 samples that its header promises can be read" in text
    assert share - 0.1 < readable / 128000 <= share + 0.03
    assert any(reason in text for reason in ("lost sync", "psf_fseek() failed", "it ends early"))


def test_bytes_overwritten_in_the_middle_are_an_error_not_zeros(add):
    item = add("spoilt.flac", noise(4))
    content = bytearray(item.path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4000] = bytes(4000)
    item.path.write_bytes(content)
    header = read_header(item)
    assert read_part(item, header, 0, 16000).abs().max() > 0.1
    with pytest.raises(UserError, match=r"is damaged: .*of the 64000 samples"):
        read_part(item, header, 24000, 40000)


def test_unreadable_files_are_all_named_at_once(add, tmp_path):
    good = add("good.flac", noise(2))
    names = {"text.flac": b"not audio", "nothing.wav": b"", "head.flac": good.path.read_bytes()[:40]}
    for name, content in names.items():
        (tmp_path / name).write_bytes(content)
    bad = [AudioItem(name, tmp_path / name, "train", "1:1") for name in [*names, "absent.flac"]]
    with pytest.raises(UserError) as error:
        segments([good, *bad])
    lines = str(error.value).splitlines()
    assert lines[0] == "4 of 5 files can't be read:"
    assert [line.partition(": ")[0].strip() for line in lines[1:]] == [str(item.path) for item in bad]
    assert all(line.partition(": ")[2] for line in lines[1:])


def test_a_header_without_samples_is_refused(add):
    with pytest.raises(ValueError, match="its header claims 0 samples at 16000 Hz"):
        read_header(add("empty.wav", noise(0)))


def test_nan_names_file_and_sample(add):
    wav = noise(3)
    wav[0, 20000] = np.nan
    item = add("nan.wav", wav, subtype="FLOAT")
    with pytest.raises(UserError, match=r"nan.wav: sample 20000 is NaN or infinite"):
        list(segments([item], segments_per_epoch=20))


def test_segments_longer_than_every_file_show_the_lengths(add):
    items = [add(f"{n}.flac", noise(n / 10)) for n in (1, 2, 2, 5)]
    with pytest.raises(UserError) as error:
        segments(items)
    assert "segments of 1.0 s are longer than every recording (0.10 to 0.18 s: 1, 0.18 to 0.26 s: 2, " in str(
        error.value
    )
    assert "0.42 to 0.50 s: 1)" in str(error.value)


def test_other_rates_are_resampled_once_said_or_refused(add, caplog):
    items = [
        add("a.wav", noise(2, 8000), 8000),
        add("b.wav", noise(2, 44100, channels=2), 44100),
        add("c.wav", noise(2)),
    ]
    with caplog.at_level("INFO"):
        segments(items)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["resampled to 16000 Hz: 1 of 8000 Hz, 1 of 44100 Hz", "averaged to mono: 1 of 3 files"]
    with pytest.raises(UserError, match=r"1 of 8000 Hz, 1 of 44100 Hz: of 3 files, where 16000 Hz is wanted"):
        segments(items, resample=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segment_seconds": 0}, "segment_seconds=0: give a length above 0"),
        ({"segment_seconds": float("nan")}, "segment_seconds=nan"),
        ({"segments_per_epoch": 0}, "segments_per_epoch=0: give 1 or more"),
        ({"loudness": (-16, -30)}, r"loudness=\[-16, -30\]: give the lowest and highest"),
    ],
)
def test_wrong_arguments(corpus, options, message):
    with pytest.raises(UserError, match=message):
        segments(corpus, **options)


def test_an_empty_split():
    with pytest.raises(UserError, match="the split is empty"):
        segments([])


# ---- real recordings -----------------------------------------------------------------------------------------------


@pytest.mark.skipif("VOXLAB_REAL_DATA" not in os.environ, reason="set VOXLAB_REAL_DATA to the folder of real samples")
@pytest.mark.parametrize("wanted", [16000, 24000])
def test_real_recordings(wanted):
    items = LibriSpeech(root=str(Path(os.environ["VOXLAB_REAL_DATA"]) / "librispeech"), subsets=None).items()
    found = segments(items, sample_rate=wanted, segment_seconds=3, segments_per_epoch=40)
    whole = {item.id: audio.load(item.path, wanted)[0] for item in items}
    for segment in found:
        start = segment["start"] * wanted // 16000
        expected = whole[segment["id"]][:, start : start + 3 * wanted]
        assert segment["lengths"] == expected.shape[1]
        assert (segment["wav"][:, : segment["lengths"]] - expected).abs().max() < 1e-6
    assert found.num_silent == 0


def test_a_header_is_that_of_soundfile(corpus):
    info = soundfile.info(io.BytesIO(corpus[0].read()))
    assert read_header(corpus[0]) == Header(info.frames, info.samplerate, info.channels)
