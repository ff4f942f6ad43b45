"""Text to Mimi codes, against moshi's own TTSModel on the same tiny checkpoint."""

import json
from pathlib import Path

import pytest
import torch
from moshi.models import loaders
from moshi.models.tts import TTSModel, TTSResult
from moshi.utils.compile import no_compile

from tests.tiny_tts import (
    CARD,
    MIMI_FILE,
    NUM_CODEBOOKS,
    VOICE,
    VOICE_SUFFIX,
    Kind,
    write_tiny_tts,
)
from voxlab.codecs.base import unstack
from voxlab.codecs.mimi import Mimi
from voxlab.codecs.tts import MoshiTTS, SpokenText

TEXTS = ["Hello world!", "The quick brown fox jumps over it.", "How are you: today (then)?"]
KINDS: list[Kind] = ["distilled", "guided", "prefix"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: write_tiny_tts(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@pytest.fixture
def folder(folders: dict[str, Path]) -> Path:
    return folders["distilled"]


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> MoshiTTS:
    return tiny(folders["distilled"]).to("cpu")


@pytest.fixture(scope="module")
def spoken_alone(loaded: MoshiTTS) -> list[SpokenText]:
    return loaded.generate(TEXTS[:2], seed=3)


def tiny(folder: Path, **options) -> MoshiTTS:
    defaults = {"voice": VOICE, "voice_repo": str(folder), "num_codebooks": NUM_CODEBOOKS, "dtype": "float32"}
    return MoshiTTS(weights=str(folder), **(defaults | options))


def upstream(
    folder: Path, kind: Kind, texts: list[str], seed: int, padding_between: int = 1, cfg_coef: float = 2.0, **options
) -> tuple[TTSModel, TTSResult, int]:
    """Run moshi's own model as its command does; also return the steps taken by the voice recording."""
    config = json.loads((folder / "config.json").read_text())
    names = [config[key] for key in ("moshi_name", "mimi_name", "tokenizer_name")]
    paths = [str(folder / name) for name in [*names, "config.json", config["mimi_config_name"]]]
    checkpoint = loaders.CheckpointInfo.from_hf_repo("nowhere/nothing", *paths)
    options = {"n_q": NUM_CODEBOOKS, "temp": 0.6, "cfg_coef": 1.0 if kind == "distilled" else cfg_coef} | options
    model = TTSModel.from_checkpoint_info(checkpoint, dtype=torch.float32, **options)
    distilled = bool(model.valid_cfg_conditionings)
    assert distilled == (kind == "distilled")
    voices = [folder / (VOICE + VOICE_SUFFIX)] if model.multi_speaker else []
    attributes = [model.make_condition_attributes(voices, cfg_coef if distilled else None) for _ in texts]
    prefixes = None if model.multi_speaker else [model.get_prefix(folder / VOICE) for _ in texts]
    entries = [model.prepare_script([text], padding_between=padding_between) for text in texts]
    torch.manual_seed(seed)
    result = model.generate(
        entries, attributes, prefixes=prefixes, cfg_is_no_prefix=not distilled, cfg_is_no_text=not distilled
    )
    return model, result, prefixes[0].shape[-1] if prefixes else 0


def codes_of(spoken: list[SpokenText]) -> list[torch.Tensor]:
    assert [item.reason for item in spoken] == [None] * len(spoken)
    return [item.codes for item in spoken if item.codes is not None]


def same(a: list[SpokenText], b: list[SpokenText]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(codes_of(a), codes_of(b), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1]], ids=["batch", "single"])
def test_codes_are_those_of_upstream(folders: dict[str, Path], kind: Kind, texts: list[str]):
    with no_compile():
        model, result, recorded = upstream(folders[kind], kind, texts, seed=5)
    frames = torch.cat(result.frames, dim=-1)
    spoken = codes_of(tiny(folders[kind]).to("cpu").generate(texts, seed=5))
    for item, (codes, end) in enumerate(zip(spoken, result.end_steps, strict=True)):
        assert end is not None
        stop = model.delay_steps + end + model.final_padding
        assert torch.equal(codes, frames[item, 1:, model.delay_steps + recorded : stop])
        assert codes.dtype == torch.int64
        assert 0 <= int(codes.min()) <= int(codes.max()) < CARD


def test_every_option_reaches_upstream(folder: Path):
    options = {"padding_between": 3, "cfg_coef": 3.5, "initial_padding": 5, "max_padding": 6, "final_padding": 7}
    options |= {"padding_bonus": -2.0, "max_gen_length": 200}
    with no_compile():
        model, result, _ = upstream(folder, "distilled", TEXTS, 5, temp=0.9, n_q=6, **options)
    frames = torch.cat(result.frames, dim=-1)
    spoken = codes_of(tiny(folder, temperature=0.9, num_codebooks=6, **options).to("cpu").generate(TEXTS, seed=5))
    for item, (codes, end) in enumerate(zip(spoken, result.end_steps, strict=True)):
        assert end is not None
        assert torch.equal(codes, frames[item, 1:, model.delay_steps : model.delay_steps + end + 7])


def test_the_tail_is_kept_and_only_the_longest_item_loses_the_acoustic_delay(folder: Path):
    with no_compile():
        model, result, _ = upstream(folder, "distilled", TEXTS, seed=5)
    ends = [end or 0 for end in result.end_steps]
    lost = [max(model.lm.delays) if end == max(ends) else 0 for end in ends]
    lengths = [codes.shape[1] for codes in codes_of(tiny(folder).to("cpu").generate(TEXTS, seed=5))]
    assert lengths == [end + 4 - loss for end, loss in zip(ends, lost, strict=True)]


def test_a_seed_fixes_a_batch_and_another_seed_changes_it(folder: Path):
    tts = tiny(folder).to("cpu")
    first = tts.generate(TEXTS, seed=1)
    assert same(first, tts.generate(TEXTS, seed=1))
    assert same(first, tiny(folder).to("cpu").generate(TEXTS, seed=1))
    assert not same(first, tts.generate(TEXTS, seed=2))


def test_the_callers_random_state_is_left_alone(folder: Path):
    state = torch.get_rng_state()
    tiny(folder).to("cpu").generate(TEXTS[:1], seed=1)
    assert torch.equal(state, torch.get_rng_state())


def test_without_sampling_a_batch_equals_single_items(folder: Path):
    tts = tiny(folder, temperature=0.0).to("cpu")
    batch = codes_of(tts.generate(TEXTS, seed=0))
    singles = [codes_of(tts.generate([text], seed=9))[0] for text in TEXTS]
    for in_batch, alone in zip(batch, singles, strict=True):
        assert torch.equal(in_batch[:, : alone.shape[1]], alone)


@pytest.mark.parametrize("text", ["", "  \n ", ":", "()", '<break time="1s"/>'])
def test_nothing_to_say_has_its_reason_and_keeps_its_place(loaded: MoshiTTS, spoken_alone: list[SpokenText], text: str):
    spoken = loaded.generate([TEXTS[0], text, TEXTS[1]], seed=3)
    assert spoken[1] == SpokenText(reason="empty_text")
    assert same([spoken[0], spoken[2]], spoken_alone)
    assert loaded.generate([text], seed=3) == [SpokenText(reason="empty_text")]


def test_a_malformed_break_spoils_its_own_item_only(loaded: MoshiTTS):
    spoken = loaded.generate(['Hello <break time="1x5s"/> world', TEXTS[0]], seed=3)
    assert spoken[0] == SpokenText(reason="bad_break")
    assert spoken[1].codes is not None


def test_a_break_makes_a_pause(loaded: MoshiTTS):
    texts = ["Hello world", 'Hello <break time="2s"/> world']
    plain, paused = codes_of([*loaded.generate(texts[:1], 3), *loaded.generate(texts[1:], 3)])
    assert paused.shape[1] - plain.shape[1] >= 10


def test_a_truncated_synthesis_is_reported(folder: Path):
    with no_compile():
        model, result, _ = upstream(folder, "distilled", TEXTS[:1], seed=5)
    assert result.end_steps[0] is not None
    needed = result.end_steps[0] + model.delay_steps + model.final_padding
    complete = tiny(folder, max_gen_length=needed).to("cpu").generate(TEXTS[:1], seed=5)
    assert same(complete, tiny(folder).to("cpu").generate(TEXTS[:1], seed=5))
    # One step less: the text is spent, its last audio is not yet there. 1 step: not even a first frame.
    for budget in (needed - 1, result.end_steps[0], 1):
        spoken = tiny(folder, max_gen_length=budget).to("cpu").generate(TEXTS[:1], seed=5)
        assert spoken == [SpokenText(reason="tts_incomplete")]


def test_a_long_item_beyond_the_budget_does_not_spoil_the_others(folder: Path):
    texts = ["Hello", " ".join(["weather"] * 30)]
    short, long = tiny(folder, max_gen_length=60).to("cpu").generate(texts, seed=5)
    assert long == SpokenText(reason="tts_incomplete")
    assert short.codes is not None
    assert short.codes.shape[0] == NUM_CODEBOOKS


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_fewer_codebooks_and_both_number_formats(folder: Path, dtype: str):
    (codes,) = codes_of(tiny(folder, num_codebooks=4, dtype=dtype).to("cpu").generate(TEXTS[:1], seed=5))
    assert codes.shape[0] == 4


def test_codec_mimi_of_the_same_folder_decodes_the_codes(folder: Path):
    tts, codec = tiny(folder).to("cpu"), Mimi(weights=str(folder), num_codebooks=NUM_CODEBOOKS).to("cpu")
    (codes,) = codes_of(tts.generate(TEXTS[:1], seed=5))
    wav, lengths = codec.decode(unstack(codes[None], torch.tensor([codes.shape[1]])))
    assert tts.info == codec.info
    assert tts.mimi_weights() == folder / MIMI_FILE
    assert wav.shape == (1, 1, codes.shape[1] * 1920)
    assert lengths.tolist() == [wav.shape[2]]
    assert wav.isfinite().all()
    assert wav.std() > 0


def test_info_describes_the_codec_inside(folder: Path):
    info = tiny(folder, num_codebooks=5).info
    assert (info.sample_rate, info.hop_length, info.channels) == (24000, 1920, 1)
    assert (info.num_codebooks, info.codebook_size, info.strides) == (5, CARD, (1,) * 5)


def test_generate_before_loading_says_so(folder: Path):
    with pytest.raises(RuntimeError, match="before MoshiTTS"):
        tiny(folder).generate(TEXTS, seed=0)


def test_moving_to_the_same_device_loads_once(folder: Path):
    tts = tiny(folder).to("cpu")
    model = tts._model
    assert tts.to(torch.device("cpu"))._model is model


def test_delays_that_do_not_fit_the_weights_are_noticed(folder: Path):
    tts = tiny(folder).to("cpu")
    tts._model.lm.card = 3
    with pytest.raises(RuntimeError, match=r"outside 0\.\.2"):
        tts.generate(TEXTS[:1], seed=0)


def test_the_tiny_checkpoint_is_small_and_always_the_same(folder: Path, tmp_path: Path):
    again = write_tiny_tts(tmp_path / "again")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert files == {path.name: path.read_bytes() for path in again.iterdir()}
    assert sum(map(len, files.values())) < 2**20
