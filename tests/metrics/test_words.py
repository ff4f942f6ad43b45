"""Word errors against a slow edit distance, and the listening models with tiny random weights."""

import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxlab.errors import UserError
from voxlab.metrics.words import SpeakerEncoder, Transcriber, word_errors, words_of

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": (8, 8),
    "conv_stride": (160, 2),
    "conv_kernel": (320, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}


def write_tiny_asr(folder):
    """Write a random Wav2Vec2ForCTC with its processor."""
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    folder.mkdir(parents=True)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAOIN"]
    (folder / "vocab.json").write_text(json.dumps({letter: index for index, letter in enumerate(letters)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=len(letters), **TINY)).save_pretrained(folder)
    return folder


def write_tiny_speaker(folder):
    """Write a random WavLMForXVector with its feature extractor."""
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

    torch.manual_seed(0)
    sizes = {"tdnn_dim": (8, 8, 8), "tdnn_kernel": (3, 3, 1), "tdnn_dilation": (1, 2, 1), "xvector_output_dim": 8}
    WavLMForXVector(WavLMConfig(**TINY, **sizes)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def slow_distance(a, b):
    if not a or not b:
        return len(a) + len(b)
    change = slow_distance(a[1:], b[1:]) + (a[0] != b[0])
    return min(change, slow_distance(a[1:], b) + 1, slow_distance(a, b[1:]) + 1)


@settings(max_examples=40, deadline=None)
@given(*[st.lists(st.sampled_from(["A", "B", "C"]), max_size=5)] * 2)
def test_word_errors_are_the_edit_distance(one, other):
    assert word_errors(" ".join(one), " ".join(other)) == (slow_distance(one, other), len(one))


def test_spelling_does_not_count():
    assert words_of("It\N{RIGHT SINGLE QUOTATION MARK}s  here, Mr. Smith!") == ["IT'S", "HERE", "MR", "SMITH"]
    assert word_errors("IT'S HERE", "it's, here.") == (0, 2)


def test_a_transcriber_writes_words_of_its_alphabet(tmp_path):
    transcribe = Transcriber(str(write_tiny_asr(tmp_path / "asr")), "cpu")
    wav = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    text = transcribe(wav)
    assert text
    assert set(re.sub("<unk>|</?s>", "", text)) <= set("ETAOIN ")
    assert text == transcribe(wav)


def test_a_voice_is_most_like_itself(tmp_path):
    embed = SpeakerEncoder(str(write_tiny_speaker(tmp_path / "speaker")), "cpu")
    wav = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    assert float(embed(wav) @ embed(wav)) == pytest.approx(1)
    assert float(embed(wav) @ embed(wav.cumsum(0).tanh())) < 1


@pytest.mark.parametrize(("kind", "key"), [(Transcriber, "test.asr"), (SpeakerEncoder, "test.speaker")])
def test_a_folder_without_model_is_named(kind, key, tmp_path):
    with pytest.raises(UserError, match=f"{key}=.*no such folder"):
        kind(str(tmp_path / "nothing"), "cpu")
    (tmp_path / "readme.txt").write_text("no model")
    with pytest.raises(UserError, match=rf"{key}=.*can't be loaded.*readme\.txt"):
        kind(str(tmp_path), "cpu")
