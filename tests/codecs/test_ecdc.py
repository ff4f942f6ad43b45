import io
import json
import struct
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from transformers import EncodecModel

from tests.tiny_models import write_tiny_encodec
from voxlab.codecs.base import CodecInfo, stack, unstack
from voxlab.codecs.ecdc import (
    FORMATS,
    EcdcHeader,
    format_of,
    pack,
    packed_size,
    read_ecdc,
    read_ecdc_header,
    unpack,
    write_ecdc,
)
from voxlab.codecs.encodec import Encodec
from voxlab.codecs.encodec_package import to_package

GHOSTS = (6720, 13440, 16320, 26880, 53760)  # lengths at which version 0.1.1 of the package counts a frame too many
RATES = {"encodec_24khz": 24000, "encodec_48khz": 48000}


def info(books=8, rate=24000):
    stereo = rate == 48000
    return CodecInfo("encodec", rate, 1 + stereo, 320, books, 1024, (1,) * books, "sha256:x", stereo)


def random_codes(samples, books=8, rate=24000, seed=0):
    header = EcdcHeader("encodec_48khz" if rate == 48000 else "encodec_24khz", samples, books, False)
    rng = np.random.default_rng(seed)
    codes = torch.from_numpy(rng.integers(0, 1024, (1, books, header.num_frames)))
    scales = torch.from_numpy(rng.uniform(0.01, 1, (1, len(header.segments))).astype(np.float32))
    frames = torch.tensor([header.num_frames])
    return unstack(codes, frames, torch.tensor([samples]), scales if rate == 48000 else None)


def bits_one_by_one(codes, bits):
    """Pack as the format says, one bit after the other."""
    stream = [code >> bit & 1 for frame in codes.T.tolist() for code in frame for bit in range(bits)]
    stream += [0] * (-len(stream) % 8)
    return bytes(sum(bit << i for i, bit in enumerate(stream[at : at + 8])) for at in range(0, len(stream), 8))


@pytest.mark.parametrize(
    ("codes", "payload"), [([[1, 2], [3, 4]], "010c200001"), ([[1023, 0, 512], [5, 6, 7]], "ff17008001001e00")]
)
def test_goldens(codes, payload):
    assert pack(np.array(codes)).hex() == payload
    assert unpack(bytes.fromhex(payload), 2, 0, len(codes[0])).tolist() == codes


def test_golden_header():
    data = write_ecdc(random_codes(640, books=2), info(books=2))
    assert data[:9].hex() == "454344430000000037"
    assert data[9:64] == b'{"m": "encodec_24khz", "al": 640, "nc": 2, "lm": false}'
    assert len(data) == 64 + packed_size(2, 2)


@st.composite
def matrices(draw):
    bits = draw(st.integers(1, 16))
    shape = (draw(st.integers(1, 9)), draw(st.integers(0, 20)))
    return draw(arrays(np.int64, shape, elements=st.integers(0, 2**bits - 1))), bits


@given(matrices(), st.data())
def test_packing_equals_bit_by_bit_and_any_window_comes_back(case, data):
    codes, bits = case
    payload = pack(codes, bits)
    assert payload == bits_one_by_one(codes, bits)
    stop = data.draw(st.integers(0, codes.shape[1]))
    start = data.draw(st.integers(0, stop))
    assert np.array_equal(unpack(payload, len(codes), start, stop, bits), codes[:, start:stop])


def test_codes_beyond_the_bits_are_refused():
    for bad in (-1, 1024):
        with pytest.raises(ValueError, match=r"cannot be packed; allowed 0\.\.1023"):
            pack(np.array([[0, bad]]))


@settings(max_examples=40)
@given(st.sampled_from([24000, 48000]), st.integers(1, 200_000), st.sampled_from([2, 4, 8, 16]), st.integers(0, 9))
def test_round_trip(rate, samples, books, seed):
    codes = random_codes(samples, books, rate, seed)
    found, header = read_ecdc(write_ecdc(codes, info(books, rate)))
    assert torch.equal(stack(found), stack(codes))
    assert (header.num_samples, header.num_codebooks, header.lm) == (samples, books, False)
    assert found.num_samples is not None
    assert found.num_samples.tolist() == [samples]
    assert (found.scales is None) == (codes.scales is None) == (rate == 24000)
    if found.scales is not None and codes.scales is not None:
        assert torch.equal(found.scales, codes.scales)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return our codec and the package's model for each rate, with the same weights."""
    pytest.importorskip("encodec")
    import encodec.compress  # noqa: F401

    found = {}
    for name, rate in RATES.items():
        folder = write_tiny_encodec(tmp_path_factory.mktemp(name), stereo=rate == 48000)
        package = to_package(EncodecModel.from_pretrained(folder)).eval()
        package.set_target_bandwidth(6.0)
        package.name = name
        found[rate] = Encodec(weights=str(folder)), package
    return found


@pytest.fixture
def upstream(models, monkeypatch):
    """Return the package's module of `compress` and `decompress`, working on the tiny models."""
    module = sys.modules["encodec.compress"]  # the name encodec.compress is the function
    replaced = {name: (lambda model=models[rate][1]: model) for name, rate in RATES.items()}
    monkeypatch.setattr(module, "MODELS", replaced)
    return module


def noise(rate, samples):
    return 0.1 * torch.randn(1 + (rate == 48000), samples, generator=torch.Generator().manual_seed(samples))


@pytest.mark.parametrize(
    ("rate", "samples"),
    [(24000, n) for n in (1, 319, 320, 24000, 24001, 48123)] + [(48000, n) for n in (321, 47521, 48000, 95361)],
)
def test_bytes_equal_upstream_compress(models, upstream, rate, samples):
    codec, package = models[rate]
    wav = noise(rate, samples)
    theirs = upstream.compress(package, wav, use_lm=False)
    codes = codec.encode(wav[None], torch.tensor([samples]))
    assert write_ecdc(codes, codec.info) == theirs
    found, _ = read_ecdc(theirs)
    assert torch.equal(stack(found), stack(codes))
    assert torch.equal(upstream.decompress(write_ecdc(found, codec.info))[0], upstream.decompress(theirs)[0])


@pytest.mark.parametrize(("rate", "samples"), [(24000, n) for n in GHOSTS] + [(48000, n) for n in (6720, 54240)])
def test_ghost_lengths_decode_upstream_and_in_readers_of_either_formula(models, upstream, rate, samples):
    codec, package = models[rate]
    wav = noise(rate, samples)
    with pytest.raises(EOFError):
        upstream.decompress(upstream.compress(package, wav, use_lm=False))
    codes = codec.encode(wav[None], torch.tensor([samples]))
    data = write_ecdc(codes, codec.info)
    found, header = read_ecdc(data)
    assert torch.equal(stack(found), stack(codes))
    assert data[header.num_bytes :] == bytes(len(data) - header.num_bytes) != b""
    decoded, _ = upstream.decompress(data)
    wanted, _ = codec.decode(codes)
    assert decoded.shape == wanted[0].shape
    if rate == 24000:  # the 48 kHz model normalises over a whole segment, the surplus frame included
        assert (decoded - wanted[0]).abs().max() <= 1e-6


def test_which_lengths_get_a_ghost_frame():
    for samples in range(320, 60_000, 320):
        data = write_ecdc(random_codes(samples, books=2), info(books=2))
        ghost = len(data) > read_ecdc_header(data).num_bytes
        assert ghost == (samples in {*GHOSTS, 32640, 36800, 49600, 57920})


def spell(facts, payload=b"", version=0, magic=b"ECDC"):
    text = facts if isinstance(facts, bytes) else json.dumps(facts).encode()
    return struct.pack("!4sBI", magic, version, len(text)) + text + payload


GOOD = {"m": "encodec_24khz", "al": 640, "nc": 2, "lm": False}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"unknown magic b''"),
        (b"RIFFxxxxWAVE", r"unknown magic b'RIFF', needs b'ECDC'"),
        (b"ECDC\0", "header has 5 bytes, needs 9"),
        (spell(GOOD, bytes(5), version=1), "version 1, allowed: 0"),
        (spell(GOOD)[:20], "header has 11 bytes of JSON, needs 55"),
        (struct.pack("!4sBI", b"ECDC", 0, 2**31) + bytes(99), "needs 2147483648"),
        (spell(b"{nonsense"), "header is not JSON"),
        (spell(b"\xff\xfe"), "header is not JSON"),
        (spell([1]), "lacks one of m, al, nc, lm"),
        (spell({"m": "encodec_24khz"}), "lacks one of m, al, nc, lm"),
        (spell(GOOD | {"m": "dac"}), "m='dac', allowed: encodec_24khz, encodec_48khz"),
        (spell(GOOD | {"al": 0}), "al=0, allowed"),
        (spell(GOOD | {"al": True}), "al=True, allowed"),
        (spell(GOOD | {"nc": 3}), "nc=3, allowed: 2, 4, 8, 16, 32"),
        (spell(GOOD | {"m": "encodec_48khz", "nc": 32}), "nc=32, allowed: 2, 4, 8, 16$"),
        (spell(GOOD | {"lm": 0}), "lm=0, allowed: true, false"),
        (spell(GOOD, bytes(4)), r"payload has 4 bytes, needs 5 \(2 frames of 2 codebooks\)"),
    ],
    ids=range(17),
)
def test_malformed_files_say_what_is_wrong(data, message):
    with pytest.raises(ValueError, match=f"bad_ecdc: .*{message}"):
        read_ecdc(data)


@given(st.data())
def test_cut_files_are_refused_and_surplus_is_ignored(data):
    rate = data.draw(st.sampled_from([24000, 48000]))
    whole = write_ecdc(random_codes(50_000, 2, rate), info(2, rate))
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ValueError, match="bad_ecdc: "):
        read_ecdc(whole[:cut])
    assert torch.equal(stack(read_ecdc(whole + bytes(7))[0]), stack(read_ecdc(whole)[0]))


def test_entropy_coded_files_need_the_model():
    with pytest.raises(ValueError, match=r"lm_stream_unsupported: .*lm_weights"):
        read_ecdc(spell(GOOD | {"lm": True}, bytes(3)))


def test_codes_that_do_not_fit_are_refused():
    codes = random_codes(640)
    wrong = [
        (codes, info(books=3)),
        (codes, CodecInfo("mimi", 24000, 1, 1920, 8, 2048, (1,) * 8, "sha256:x")),
        (unstack(stack(codes), codes.lengths), info()),
    ]
    for bad, described in wrong:
        with pytest.raises(ValueError, match="holds one item of EnCodec at 24 or 48 kHz"):
            write_ecdc(bad, described)
    with pytest.raises(ValueError, match="0 scales; 640 samples ask for 1"):
        write_ecdc(codes, info(rate=48000))
    with pytest.raises(ValueError, match="2 frames; 641 samples ask for 3"):
        write_ecdc(unstack(stack(codes), codes.lengths, torch.tensor([641])), info())
    codes.codebooks[3][0, 1] = 1024
    with pytest.raises(ValueError, match=r"codebook 3, frame 1: code 1024 is out of range"):
        write_ecdc(codes, info())


def test_the_formats_are_those_of_the_codec(models):
    for rate, (codec, package) in models.items():
        known = format_of(codec.info)
        assert known is not None
        assert known == FORMATS[package.name]
        assert (known.segment, known.stride) == (package.segment_length, package.segment_stride)
        assert (known.sample_rate, known.channels) == (rate, package.channels)


def test_reads_a_header_from_the_beginning_of_a_file():
    data = write_ecdc(random_codes(240_000), info())
    header = read_ecdc_header(data[:100], len(data))
    assert header.num_frames == 750
    with pytest.raises(ValueError, match="payload has 4000 bytes, needs 7500"):
        read_ecdc_header(data[:100], header.payload + 4000)


def test_scales_are_big_endian_before_each_segment():
    codes = random_codes(96_000, books=2, rate=48000)
    data = write_ecdc(codes, info(2, 48000))
    file = io.BytesIO(data[read_ecdc_header(data).payload :])
    assert codes.scales is not None
    for wanted, frames in zip(codes.scales[0].tolist(), (150, 150, 3), strict=True):
        assert struct.unpack("!f", file.read(4)) == (wanted,)
        file.read(packed_size(frames, 2))
    assert file.read() == b""
