import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codecs.test_ecdc import info as encodec_info
from tests.codecs.test_ecdc import random_codes
from voxlab.codecs import safetensors_file, token_files
from voxlab.codecs.base import CodecInfo, Codes, stack, unstack
from voxlab.codecs.ecdc import read_ecdc
from voxlab.codecs.token_files import frame_times, read_header, read_tokens, read_window, upgrade, write_tokens
from voxlab.errors import UserError

MIMI = CodecInfo("mimi", 24000, 1, 1920, 8, 2048, (1,) * 8, "sha256:mimi")
SNAC = CodecInfo("snac", 24000, 1, 512, 3, 4096, (4, 2, 1), "sha256:snac")


def mimi_codes(frames=30, seed=0):
    codes = np.random.default_rng(seed).integers(0, 2048, (1, 8, frames))
    return unstack(torch.from_numpy(codes), torch.tensor([frames]), torch.tensor([1920 * frames - 7]))


def snac_codes():
    books = tuple(torch.arange(8 // step)[None] + 100 * step for step in SNAC.strides)
    return Codes(books, torch.tensor([8]), None, torch.tensor([4000]))


CASES = {
    "ecdc": (random_codes(24_000), encodec_info(), "auto"),
    "ecdc48": (random_codes(100_000, rate=48000), encodec_info(rate=48000), "auto"),
    "torch": (random_codes(24_000), encodec_info(), "torch"),
    "tensors": (mimi_codes(), MIMI, "auto"),
    "tensors48": (random_codes(100_000, rate=48000), encodec_info(rate=48000), "safetensors"),
    "snac": (snac_codes(), SNAC, "auto"),
}


@pytest.mark.parametrize("case", list(CASES))
def test_what_is_written_comes_back(case, tmp_path):
    codes, info, container = CASES[case]
    path = tmp_path / f"take.one{token_files.suffix(info, container)}"
    digest = write_tokens(path, codes, info, container)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == write_tokens(path, codes, info, container)
    found = read_tokens(path)
    for ours, theirs in zip(found.codes.codebooks, codes.codebooks, strict=True):
        assert ours.dtype == torch.int64
        assert torch.equal(ours, theirs)
    assert found.codes.lengths.tolist() == codes.lengths.tolist() == [found.num_frames]
    assert (found.codes.scales is None) == (codes.scales is None)
    if found.codes.scales is not None and codes.scales is not None:
        assert torch.equal(found.codes.scales, codes.scales)
    assert codes.num_samples is not None
    assert found.num_samples == int(codes.num_samples[0])
    for name in ("sample_rate", "frame_rate", "hop_length", "num_codebooks", "codebook_size", "strides"):
        assert getattr(found, name) == getattr(info, name), name
    assert found.codec == info.name
    assert found.weights_id == (info.weights_id if found.container == "safetensors" else None)
    header = read_header(path)
    assert {name: getattr(header, name) for name in vars(header)} == {
        name: getattr(found, name) for name in vars(header)
    }


@settings(max_examples=60)
@given(case=st.sampled_from([name for name in CASES if name != "snac"]), data=st.data())
def test_windows_are_cuts_of_the_whole(case, data, tmp_path_factory):
    codes, info, container = CASES[case]
    path = tmp_path_factory.mktemp(case) / "a"
    write_tokens(path, codes, info, container)
    whole, header = stack(codes)[0], read_header(path)
    stop = data.draw(st.integers(0, whole.shape[1]))
    start = data.draw(st.integers(0, stop))
    for source in (path, header):
        window = read_window(source, start, stop)
        assert window.dtype == torch.int64
        assert torch.equal(window, whole[:, start:stop])
    shutil.rmtree(path.parent)


def test_windows_outside_and_of_several_rates_are_refused(tmp_path):
    write_tokens(tmp_path / "a", mimi_codes(), MIMI)
    write_tokens(tmp_path / "b", snac_codes(), SNAC)
    for start, stop in ((-1, 3), (3, 2), (0, 31)):
        with pytest.raises(ValueError, match=rf"frames {start} to {stop}; the file has 30 \(.*a\)"):
            read_window(tmp_path / "a", start, stop)
    with pytest.raises(ValueError, match=r"snac has codebooks of different rates \(4, 2, 1\)"):
        read_window(tmp_path / "b", 0, 4)


def test_safetensors_files_open_with_the_library(tmp_path):
    codes, path = random_codes(100_000, rate=48000), tmp_path / "a.safetensors"
    write_tokens(path, codes, encodec_info(rate=48000), "safetensors", metadata={"made_by": "a test"})
    tensors = safetensors.torch.load_file(path)
    assert tensors["codes"].dtype == torch.int16
    assert torch.equal(tensors["codes"].long(), stack(codes)[0])
    assert codes.scales is not None
    assert torch.equal(tensors["scales"], codes.scales[0])
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {
            "format_version": "1",
            "codec": "encodec",
            "weights_id": "sha256:x",
            "sample_rate": "48000",
            "hop_length": "320",
            "num_codebooks": "8",
            "codebook_size": "1024",
            "num_samples": "100000",
            "strides": "[1, 1, 1, 1, 1, 1, 1, 1]",
            "made_by": "a test",
        }
    assert read_header(path).metadata == {"made_by": "a test"}
    write_tokens(path, snac_codes(), SNAC)
    tensors = safetensors.torch.load_file(path)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "codes.0": (2,),
        "codes.1": (4,),
        "codes.2": (8,),
    }


def test_files_of_the_library_are_read(tmp_path):
    codes = mimi_codes()
    write_tokens(tmp_path / "ours", codes, MIMI)
    with safetensors.safe_open(tmp_path / "ours", "pt") as file:
        metadata = file.metadata()
    safetensors.torch.save_file({"codes": stack(codes)[0].to(torch.int16)}, tmp_path / "theirs", metadata)
    assert torch.equal(stack(read_tokens(tmp_path / "theirs").codes), stack(codes))


def spell_table(change):
    """Return a safetensors file of 8 x 30 codes after `change` has worked on its header."""
    data = token_files.spell_tokens(mimi_codes(), MIMI)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header["__metadata__"].pop("strides"), "bad_safetensors: metadata .*KeyError"),
        (lambda header: header["__metadata__"].update(format_version="2"), "format_version 2, readable: 1"),
        (lambda header: header["__metadata__"].update(num_codebooks="7"), "do not fit"),
        (lambda header: header["__metadata__"].update(num_samples="57601"), "30 frames, strides .* do not fit"),
        (lambda header: header["__metadata__"].update(strides="[2, 1]"), "strides .* ask for"),
        (lambda header: header["codes"].update(dtype="F64"), "header cannot be read .*F64"),
        (lambda header: header["codes"].update(shape=[8, 31]), "header cannot be read .*a tensor of shape"),
        (lambda header: header["codes"].update(data_offsets=[240, 720]), r"has \d+ bytes, needs \d+"),
        (lambda header: header.pop("codes"), "tensors {}; strides"),
    ],
    ids=range(9),
)
def test_malformed_safetensors_say_what_is_wrong(change, message, tmp_path):
    (tmp_path / "a").write_bytes(spell_table(change))
    for read in (read_header, read_tokens):
        with pytest.raises(ValueError, match=f"bad_safetensors: .*{message.removeprefix('bad_safetensors: ')}"):
            read(tmp_path / "a")


def test_every_cut_file_is_refused(tmp_path):
    for codes, info, container in CASES.values():
        data = token_files.spell_tokens(codes, info, container)
        for size in {0, 3, 8, 9, 40, len(data) // 2, len(data) - 1}:
            (tmp_path / "cut").write_bytes(data[:size])
            with pytest.raises(ValueError, match=r"bad_(ecdc|safetensors): .*cut\)"):
                read_tokens(tmp_path / "cut")


def test_unknown_files_are_named(tmp_path):
    (tmp_path / "song.ecdc").write_bytes(b"RIFF0000WAVE")
    with pytest.raises(ValueError, match=r"bad_ecdc: unknown magic b'RIFF'; known: .* \(.*song\.ecdc\)"):
        read_header(tmp_path / "song.ecdc")
    with pytest.raises(FileNotFoundError):
        read_tokens(tmp_path / "nothing.ecdc")


@pytest.mark.parametrize("shape", [(1, 1, 8, 75), (1, 8, 75), (8, 75)])
def test_files_of_the_earlier_workflow_are_read_and_upgraded(shape, tmp_path):
    codes, path = random_codes(23_999), tmp_path / "a.ecdc"
    legacy = {"audio_codes": stack(codes).reshape(shape), "audio_scales": [None], "audio_length": 23_999}
    torch.save(legacy, path)
    found = read_tokens(path)
    assert (found.container, found.num_frames, found.num_samples) == ("torch", 75, 23_999)
    assert torch.equal(stack(found.codes), stack(codes))
    assert upgrade(path)
    assert path.read_bytes() == token_files.spell_tokens(codes, encodec_info(), "ecdc")
    assert torch.equal(stack(read_ecdc(path.read_bytes())[0]), stack(codes))
    assert not upgrade(path)


def test_torch_files_are_what_their_loaders_expect(tmp_path):
    codes = random_codes(24_000)
    write_tokens(tmp_path / "a.ecdc", codes, encodec_info(), "torch")
    content = torch.load(tmp_path / "a.ecdc", weights_only=True)
    assert torch.equal(content.pop("audio_codes"), stack(codes)[None])
    assert content == {"audio_scales": [None], "audio_length": 24_000}


class Payload:
    """Makes a file, if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds list, needs audio_codes"),
        ({"codes": torch.zeros(8, 75)}, r"holds \['codes'\], needs audio_codes and audio_length"),
        ({"audio_codes": torch.zeros(8, 75), "audio_length": 24_000}, r"audio_codes \(8, 75\); allowed: whole numbers"),
        ({"audio_codes": [1], "audio_length": 24_000}, "audio_codes list; allowed: whole numbers"),
        ({"audio_codes": torch.zeros(2, 8, 75).long(), "audio_length": 24_000}, r"audio_codes \(2, 8, 75\); allowed"),
        ({"audio_codes": torch.zeros(8, 75).long(), "audio_length": 24_001}, "audio_length 24001; 75 frames hold 1 to"),
        ({"audio_codes": torch.zeros(8, 0).long(), "audio_length": 0}, r"audio_codes \(8, 0\)"),
    ],
    ids=range(7),
)
def test_malformed_torch_files_say_what_is_wrong(content, message, tmp_path):
    torch.save(content, tmp_path / "a.ecdc")
    with pytest.raises(ValueError, match=f"bad_ecdc: .*{message}"):
        read_tokens(tmp_path / "a.ecdc")


def test_torch_files_cannot_run_code(tmp_path):
    torch.save({"audio_codes": Payload(tmp_path / "ran"), "audio_length": 1}, tmp_path / "a.ecdc")
    with pytest.raises(ValueError, match="bad_ecdc: torch archive cannot be read"):
        read_tokens(tmp_path / "a.ecdc")
    assert not (tmp_path / "ran").exists()


def test_upgrade_refuses_what_the_container_cannot_say(tmp_path):
    legacy = {"audio_codes": torch.zeros(8, 76, dtype=torch.int64), "audio_scales": [None], "audio_length": 24_000}
    torch.save(legacy, tmp_path / "a.ecdc")
    before = (tmp_path / "a.ecdc").read_bytes()
    with pytest.raises(ValueError, match=r"76 frames; 24000 samples ask for 75 \(.*a\.ecdc\)"):
        upgrade(tmp_path / "a.ecdc")
    assert (tmp_path / "a.ecdc").read_bytes() == before


@pytest.mark.parametrize(
    ("container", "info", "message"),
    [
        ("zip", MIMI, "container='zip' is unknown; allowed: auto, ecdc, safetensors, torch"),
        ("ecdc", MIMI, "container=ecdc holds EnCodec at 24 or 48 kHz, not mimi"),
        ("torch", encodec_info(rate=48000), "container=torch holds EnCodec at 24 kHz, not encodec at 48000 Hz"),
        ("auto", CodecInfo("rvq", 24000, 1, 320, 1, 65536, (1,), "x"), "holds codes up to 32767; rvq has 65536"),
    ],
    ids=range(4),
)
def test_containers_that_do_not_fit_are_refused(container, info, message):
    with pytest.raises(UserError, match=message):
        token_files.resolve_container(info, container)


def test_codes_out_of_range_are_not_written(tmp_path):
    codes = mimi_codes()
    codes.codebooks[2][0, 5] = 2048
    with pytest.raises(ValueError, match=r"codebook 2, frame 5: code 2048 is out of range"):
        write_tokens(tmp_path / "a", codes, MIMI)
    assert list(tmp_path.iterdir()) == []


def test_padding_of_scales_is_not_written():
    codes, info = random_codes(100_000, rate=48000), encodec_info(rate=48000)
    assert codes.scales is not None
    padded = Codes(codes.codebooks, codes.lengths, torch.nn.functional.pad(codes.scales, (0, 4)), codes.num_samples)
    for container in ("ecdc", "safetensors"):
        assert token_files.spell_tokens(padded, info, container) == token_files.spell_tokens(codes, info, container)


def test_frame_times_are_middles(tmp_path):
    write_tokens(tmp_path / "mono", random_codes(24_000), encodec_info())
    times = frame_times(read_header(tmp_path / "mono"))
    assert np.allclose(times, (np.arange(75) + 0.5) / 75, rtol=0, atol=1e-12)
    write_tokens(tmp_path / "snac", snac_codes(), SNAC)
    assert np.allclose(frame_times(read_header(tmp_path / "snac")), (np.arange(8) + 0.5) * 512 / 24000, atol=1e-12)


@pytest.mark.parametrize("container", ["ecdc", "safetensors"])
def test_frame_times_of_overlapping_segments(container, tmp_path):
    write_tokens(tmp_path / "a", random_codes(100_000, rate=48000), encodec_info(rate=48000), container)
    wanted = [
        segment * 0.99 + (n + 0.5) / 150 for segment, count in ((0, 150), (1, 150), (2, 16)) for n in range(count)
    ]
    header = read_header(tmp_path / "a")
    assert header.num_frames == len(wanted)
    assert np.allclose(frame_times(header), wanted, rtol=0, atol=1e-12)


def test_the_safetensors_writer_pads_its_header():
    data = safetensors_file.write({"codes": np.zeros((1, 3), "<i2")}, {"b": "2", "a": "ü"})
    assert int.from_bytes(data[:8], "little") % 8 == 0
    assert safetensors.deserialize(data)[0][1]["shape"] == [1, 3]
