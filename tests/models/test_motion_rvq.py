"""The motion tokenizer's network, its files, those of the earlier projects, and how whole clips become codes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from voxlab.errors import UserError
from voxlab.models.gesture.motion_checkpoint import read_legacy, write_legacy
from voxlab.models.gesture.motion_codec import (
    RECORD,
    MotionCodec,
    find_tokenizers,
    hash_weights,
    load_motion_codec,
    part_record,
)
from voxlab.models.gesture.motion_rvq import MotionArchitecture, MotionRvq, MotionRvqVae
from voxlab.models.tokenizer import files
from voxlab.models.tokenizer.quantizer import QuantizerSettings
from voxlab.motion.parts import columns, read_layout

FULL, LEGACY = read_layout("full421"), read_layout("legacy415")
DIMS = {part.name: part.dim for part in LEGACY.parts}
SMALL = MotionArchitecture(
    dim=78, width=8, depth=3, dropout=0.0, code_dim=4, quantizer=QuantizerSettings(num_codebooks=6, codebook_size=16)
)


def network(architecture: MotionArchitecture = SMALL, seed: int = 0) -> MotionRvqVae:
    torch.manual_seed(seed)
    return architecture.build().eval()


def codec_of(part: str, folder: Path, seed: int = 0, fps: int = 30) -> MotionCodec:
    """Export a network with random weights for a part of full421, and load it."""
    chosen = FULL.part(part)
    made = network(MotionRvq(architecture=SMALL).of_part(chosen), seed)
    made.set_statistics(torch.linspace(-1, 1, chosen.dim), torch.linspace(0.5, 2, chosen.dim))
    files.export(made, made.architecture, folder / "codec", {RECORD: part_record(chosen, FULL, fps, "velocity")})
    return load_motion_codec(folder)


# ---- network -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dim", "expected"), [(78, 17_787_342), (180, 18_100_788), (54, 17_713_590), (57, 17_722_809), (100, 17_854_948)]
)
def test_the_published_shape_has_the_published_number_of_parameters(dim: int, expected: int) -> None:
    with torch.device("meta"):
        made = MotionArchitecture(dim=dim).build()
    projections = 6 * (128 * 128 + 128)  # they trained a projection of each codebook, which is a plain table here
    assert sum(parameter.numel() for parameter in made.parameters()) + projections == expected


@pytest.mark.parametrize("strides", [(2, 2), (2, 1), (1, 1), (1,), (2, 2, 2)])
def test_shapes_and_codes(strides: tuple[int, ...]) -> None:
    made = network(dataclasses.replace(SMALL, strides=strides))
    x = torch.randn(2, 16, 78)
    codes = made.encode(x)
    tokens = 16 // made.stride
    assert codes.shape == (2, tokens, 6)
    assert codes.dtype == torch.int64
    latents = made.codebooks[torch.arange(6), codes].sum(2)
    assert latents.shape == (2, tokens, made.code_dim)
    torch.testing.assert_close(made.decode(codes), made.decode_latents(latents))
    torch.testing.assert_close(made(x).output, made.decode(codes))
    with pytest.raises(ValueError, match=r"multiple"):
        made.encode(torch.randn(1, 0, 78))


def test_a_length_that_is_no_multiple_is_refused() -> None:
    with pytest.raises(ValueError, match=r"17 frames; needs a multiple of 4"):
        network().encode(torch.randn(1, 17, 78))


def test_items_do_not_see_each_other() -> None:
    made, x = network(), torch.randn(3, 32, 78)
    torch.testing.assert_close(made.encode(x), torch.cat([made.encode(item[None]) for item in x]))


def test_the_gradient_passes_the_quantizer_once() -> None:
    z = torch.randn(2, 4, 10, requires_grad=True)
    quantized = network().quantizer(z, torch.ones(2, 10, dtype=torch.bool))
    quantized.output.sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, torch.ones_like(z))


def test_frozen_decoding_passes_gradients_to_latents() -> None:
    made = network().requires_grad_(False)
    z = torch.randn(1, 4, 4, requires_grad=True)
    made.decode_latents(z).square().sum().backward()
    assert z.grad is not None
    assert float(z.grad.abs().min()) > 0
    assert all(parameter.grad is None for parameter in made.parameters())


def test_a_training_step_after_loading_goes_on_with_the_codebooks(tmp_path: Path) -> None:
    made = network().train()
    made.quantizer.initialize(torch.randn(500, 4), 64, 0)
    for _ in range(3):
        made(torch.randn(4, 64, 78))
    files.export(made, SMALL, tmp_path, {})
    again = files.load(tmp_path)[0].train()
    before, counts = again.codebooks.clone(), again.quantizer.counts.clone()
    output = again(torch.randn(4, 64, 78))
    change = (again.codebooks - before).norm(dim=-1) / before.norm(dim=-1)
    assert int(output.quantized.revived.sum()) == 0
    assert float((change < 0.5).float().mean()) > 0.99  # moved on, not replaced
    torch.testing.assert_close(again.quantizer.counts.sum(1), 0.99 * counts.sum(1) + 0.01 * 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": (2, 3)}, "strides=\\[2, 3\\]"),
        ({"strides": ()}, "strides=\\[\\]"),
        ({"width": 0}, "width=0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"quantizer": QuantizerSettings(codebook_size=40_000)}, "codebook_size=40000: at most 32768"),
    ],
)
def test_settings_out_of_range(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SMALL, **change)


def test_faces_have_strides_of_their_own() -> None:
    codec = MotionRvq(architecture=SMALL)
    assert [codec.of_part(part).stride for part in FULL.parts] == [4, 4, 4, 2]
    assert [codec.of_part(part).dim for part in FULL.parts] == [78, 180, 57, 106]


# ---- files of the earlier projects ---------------------------------------------------------------------------------


def legacy_state(projected: bool = True, dim: int = 78) -> dict[str, Tensor]:
    """A state dict in their format, for SMALL, with random numbers."""
    generator = torch.Generator().manual_seed(1)
    made = network(dataclasses.replace(SMALL, dim=dim))
    blocks = {"encoder": "1", "decoder": "0"}
    state = {}
    for name, value in made.state_dict().items():
        words = name.split(".")
        if words[0] in blocks:
            if len(words) > 3 and words[2] == blocks[words[0]]:
                words.insert(3, "model")
            state[".".join([words[0], "model", *words[1:]])] = value
    for layer in range(6):
        state[f"quantizer.layers.{layer}.codebook"] = torch.randn(16, 4, generator=generator)
        if projected:
            state[f"quantizer.layers.{layer}.embedding_proj.weight"] = torch.randn(4, 4, generator=generator)
            state[f"quantizer.layers.{layer}.embedding_proj.bias"] = torch.randn(4, generator=generator)
    return state


def tables(state: dict[str, Tensor]) -> list[Tensor]:
    """What each layer of their quantizer measures distances to."""
    layers = [f"quantizer.layers.{layer}" for layer in range(6)]
    return [
        nn.functional.linear(
            state[f"{layer}.codebook"],
            state[f"{layer}.embedding_proj.weight"],
            state[f"{layer}.embedding_proj.bias"],
        )
        for layer in layers
    ]


def test_a_legacy_file_gives_its_own_reconstruction(tmp_path: Path) -> None:
    state = legacy_state()
    assert len(state) == 84
    torch.save({"net": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "net_300000_upper.pth")
    made = read_legacy(tmp_path / "net_300000_upper.pth", DIMS).eval()
    x = torch.randn(2, 32, 78)
    residual, total, wanted = made.encode_latents(x), 0.0, []
    for table in tables(state):
        nearest = ((residual[:, :, None] - table) ** 2).sum(-1).argmin(-1)
        residual, total = residual - table[nearest], total + table[nearest]
        wanted.append(nearest)
    codes = made.encode(x)
    assert torch.equal(codes, torch.stack(wanted, -1))
    forward = made.decode_latents(torch.as_tensor(total)).detach()
    torch.testing.assert_close(made.decode(codes), forward, atol=1e-5, rtol=0)
    raw = sum(state[f"quantizer.layers.{layer}.codebook"][codes[..., layer]] for layer in range(6))
    theirs = made.decode_latents(torch.as_tensor(raw)).detach()  # decoding without the projection, as they did
    assert float((theirs - forward).norm() / (forward - forward.mean()).norm()) > 0.3


def test_legacy_files_are_written_and_read_back(tmp_path: Path) -> None:
    made = network()
    written = write_legacy(made, tmp_path / "net_upper.pth")
    state = torch.load(written, weights_only=True)["net"]
    assert state.keys() == legacy_state().keys()
    again = read_legacy(written, DIMS).eval()
    assert again.architecture == dataclasses.replace(SMALL, dropout=0.2)
    x = torch.randn(1, 16, 78)
    assert torch.equal(again.encode(x), made.encode(x))
    torch.testing.assert_close(again.decode(made.encode(x)), made.decode(made.encode(x)))
    with pytest.raises(UserError, match=r"stages all halve"):
        write_legacy(network(dataclasses.replace(SMALL, strides=(2, 1))), tmp_path / "face.pth")


def test_codebooks_without_projection_are_taken_as_they_are(tmp_path: Path) -> None:
    state = legacy_state(projected=False)
    torch.save({"net": state}, tmp_path / "net_1.pth")
    made = read_legacy(tmp_path / "net_1.pth", DIMS)
    assert torch.equal(made.codebooks[3], state["quantizer.layers.3.codebook"])


def test_legacy_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "net_300000_lower.pth"
    with pytest.raises(UserError, match=r"does not exist.*\n.*task=train_tokenizer"):
        read_legacy(path, DIMS)
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match=r"can't be read as a checkpoint: it is cut off after 14 bytes\.$"):
        read_legacy(path, DIMS)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(UserError, match=r"no key `net`.*found: \['state_dict'\]"):
        read_legacy(path, DIMS)
    torch.save({"net": {"encoder.model.0.weight": torch.zeros(8, 78, 3)}}, path)
    with pytest.raises(UserError, match=r"no stage that shortens time"):
        read_legacy(path, DIMS)
    torch.save({"net": legacy_state(dim=54)}, path)
    with pytest.raises(UserError, match=r"54 numbers a frame.*upper 78.*54 are the legs without"):
        read_legacy(path, DIMS)
    state = legacy_state()
    state["quantizer.layers.2.codebook"] = torch.zeros(8, 4)
    torch.save({"net": state}, path)
    with pytest.raises(UserError, match=r"codebooks of shapes \[\(8, 4\), \(16, 4\)\]"):
        read_legacy(path, DIMS)


def test_a_legacy_file_needs_its_statistics(tmp_path: Path) -> None:
    path, npz = tmp_path / "net_300000_upper.pth", tmp_path / "stats.npz"
    torch.save({"net": legacy_state()}, path)
    with pytest.raises(UserError, match=r"no mean and standard deviation.*\n.*stage=export"):
        load_motion_codec(path)
    mean, std = np.arange(330, dtype=np.float32), np.arange(1, 331, dtype=np.float32)
    np.savez(npz, a_330_mean=mean, a_330_std=std, a_trans_mean=np.zeros(3), a_trans_std=np.ones(3))
    codec = load_motion_codec(path, statistics=npz)
    assert codec.part == LEGACY.part("upper")
    np.testing.assert_array_equal(codec.mean, mean[columns(codec.part)])
    np.testing.assert_array_equal(codec.std, std[columns(codec.part)])
    assert codec.trans == "any"
    codec.check_fits(LEGACY, 30)
    with pytest.raises(UserError, match=r"\(its movements would run 2 times as long\)"):
        codec.check_fits(LEGACY, 15)


# ---- whole clips ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_frames", [1, 3, 4, 61, 64])
def test_clips_of_any_length(tmp_path: Path, num_frames: int) -> None:
    codec = codec_of("upper", tmp_path)
    frames = np.random.default_rng(0).normal(size=(num_frames, 433)).astype(np.float32)
    codes = codec.tokenize(frames)
    assert codes.shape == (-(-num_frames // 4), 6)
    assert codes.dtype == np.int16
    values = codec.detokenize(codes, num_frames)
    assert values.shape == (num_frames, 78)
    held = np.concatenate([frames, np.repeat(frames[-1:], -num_frames % 4, axis=0)])
    normal = torch.from_numpy((held[:, columns(codec.part)] - codec.mean) / codec.std)
    whole = codec.network(normal[None]).output[0].numpy() * codec.std + codec.mean
    np.testing.assert_allclose(values, whole[:num_frames], atol=2e-5)
    with pytest.raises(ValueError, match=r"codes are"):
        codec.detokenize(codes, len(codes) * 4 + 1)


def test_only_its_own_columns_count(tmp_path: Path) -> None:
    codec = codec_of("hands", tmp_path)
    frames = np.random.default_rng(0).normal(size=(32, 433)).astype(np.float32)
    other = frames.copy()
    outside = np.setdiff1d(np.arange(433), columns(codec.part))
    other[:, outside] += 1
    assert np.array_equal(codec.tokenize(frames), codec.tokenize(other))
    other[:, columns(codec.part)] += 1
    assert not np.array_equal(codec.tokenize(frames), codec.tokenize(other))


def test_normalising_and_back(tmp_path: Path) -> None:
    codec = codec_of("upper", tmp_path)
    values = np.random.default_rng(0).normal(size=(5, 78)).astype(np.float32)
    np.testing.assert_allclose(codec.denormalize(codec.normalize(values)), values, atol=1e-6)
    np.testing.assert_allclose(codec.network.normalize(torch.from_numpy(values)), codec.normalize(values), atol=1e-6)


def test_the_identity_is_that_of_the_weights(tmp_path: Path) -> None:
    one, same, other = (codec_of("upper", tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert one.weights_id == same.weights_id != other.weights_id
    one.network.mean += 1
    assert hash_weights(one.network) != one.weights_id


def test_other_layouts_and_rates_are_refused(tmp_path: Path) -> None:
    codec = codec_of("lower_trans", tmp_path)
    codec.check_fits(FULL, 30, "velocity")
    with pytest.raises(
        UserError, match=r"does not fit \(tokenizer [0-9a-f]{16}, in use [0-9a-f]{16}[\s\S]*fps: 30 -> 15"
    ):
        codec.check_fits(FULL, 15)
    codec.check_fits(FULL, 15, any_fps=True)
    with pytest.raises(UserError, match=r"trans: velocity -> none"):
        codec.check_fits(FULL, 30, "none")
    codec_of("face", tmp_path / "face")
    with pytest.raises(UserError, match=r"dim: 106 -> 100[\s\S]*normalize_face: True -> False"):
        load_motion_codec(tmp_path / "face").check_fits(LEGACY, 30)
    with pytest.raises(UserError, match=r"has no place in layout custom"):
        codec.check_fits(read_layout({"body": {"joints": [0]}}), 30)


def test_tokenizers_are_found_by_the_part_they_were_trained_on(tmp_path: Path) -> None:
    names = [part.name for part in FULL.parts]
    for number, name in enumerate(reversed(names)):
        codec_of(name, tmp_path / str(number))
    (tmp_path / "sweep.csv").write_text("job\n")
    found = find_tokenizers(tmp_path, FULL)
    assert list(found) == names
    assert [codec.part.name for codec in found.values()] == names
    again = find_tokenizers({name: str(tmp_path / str(3 - names.index(name))) for name in names}, FULL)
    assert {name: codec.weights_id for name, codec in again.items()} == {n: c.weights_id for n, c in found.items()}
    codec_of("upper", tmp_path / "4")
    with pytest.raises(UserError, match=r"more than one tokenizer for a part:\n  upper: "):
        find_tokenizers(tmp_path, FULL)


def test_missing_tokenizers_say_how_they_are_trained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder[\s\S]*codec=motion_rvq part=upper,hands,lower_trans,face"):
        find_tokenizers(tmp_path / "nowhere", FULL)
    codec_of("upper", tmp_path / "0")
    with pytest.raises(UserError, match=r"none for part hands, lower_trans, face.*found: upper[\s\S]*part=hands,low"):
        find_tokenizers(tmp_path, FULL)
    with pytest.raises(UserError, match=r"tokenizers.hands=.* was trained on part=upper"):
        find_tokenizers({part.name: str(tmp_path / "0") for part in FULL.parts}, FULL)
    with pytest.raises(UserError, match=r"tokenizers.feet: layout full421 has the parts"):
        find_tokenizers({"feet": "x"}, FULL)
    with pytest.raises(UserError, match=r"does not exist[\s\S]*task=train_tokenizer data=beat2"):
        load_motion_codec(tmp_path / "gone")
    from voxlab.models.tokenizer.istft_vocoder import VocoderArchitecture

    vocoder = VocoderArchitecture(dim=8, hidden=8, layers=1)
    files.export(vocoder.build(), vocoder, tmp_path / "vocoder", {})
    for number, part in enumerate(FULL.parts[1:], 1):
        codec_of(part.name, tmp_path / str(number))
    assert list(find_tokenizers(tmp_path, FULL)) == [part.name for part in FULL.parts]  # those of sound are passed over
    with pytest.raises(UserError, match=r"holds a vocoder codec of sound; needed is one of motion"):
        load_motion_codec(tmp_path / "vocoder")


def test_tasks_of_audio_are_told_that_it_is_no_audio_codec() -> None:
    with pytest.raises(UserError, match="codes the motion of a body, not audio"):
        _ = MotionRvq().info
