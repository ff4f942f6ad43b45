"""Text to Mimi codes with Kyutai's delayed-streams text-to-speech models (moshi package); used by `input=text`.

Codes only: the caller decodes audio with its own Mimi codec. The models are CC BY 4.0; each voice has its licence.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from voxlab.codecs import weights as weight_files
from voxlab.codecs.base import CodecInfo
from voxlab.codecs.mimi import PUBLISHED
from voxlab.codecs.runtime import check_dtype, package_version
from voxlab.codecs.tts_files import find_files, guidance_strengths, is_conditioned_on_voice, load_config
from voxlab.errors import UserError

NOT_NEGATIVE = ("temperature", "padding_between", "initial_padding", "final_padding")
POSITIVE = ("num_codebooks", "max_padding", "max_gen_length")


@dataclass(frozen=True)
class SpokenText:
    """What became of one text: Mimi codes (K, N) int64 on the CPU, or the reason why there are none.

    Reasons: "empty_text" (no word to say), "bad_break" (a break tag whose time is no number),
    "tts_incomplete" (`max_gen_length` was spent before the text was).
    """

    codes: Tensor | None = None
    reason: str | None = None


class MoshiTTS:
    """Speaks texts in one voice; one batch is one run of the language model.

    Sampling draws from the global random generator, for the whole batch at once: a batch is reproducible from its
    seed, its texts in their order, and the device, but an item's codes depend on the batch it is in.
    The global generator is left as it was found.

    Args:
        weights: hub id, or a folder with config.json and the files it names; a folder wins.
        voice: name in `voice_repo`, or a local file.
        voice_repo: hub id or folder.
        num_codebooks: K, 8 to 32 of the model's; fewer are faster.
        temperature: of text and audio sampling; 0 takes the likeliest token.
        cfg_coef: guidance strength, 1 is none. Models distilled for guidance allow a few values (1.0, 1.5, ... 4.0).
        padding_between: steps of silence forced between words (1 articulates better).
        initial_padding: steps before the first word.
        max_padding: most steps without a new word.
        final_padding: steps kept after the end of the text. Generation of a batch stops when its longest item is done,
            so that item has as many fewer as the model's acoustic delay (2).
        padding_bonus: added to the logit of silence, -2 to 2; positive speaks slower.
        max_gen_length: most steps of a batch (12.5 a second).
        dtype: of the language model: bfloat16, float16 or float32 (for CPUs without fast bfloat16).

    Raises:
        UserError: an argument is outside what is allowed.
    """

    def __init__(
        self,
        *,
        weights: str = "kyutai/tts-1.6b-en_fr",
        voice: str = "vctk/p225_023.wav",
        voice_repo: str = "kyutai/tts-voices",
        num_codebooks: int = 32,
        temperature: float = 0.6,
        cfg_coef: float = 2.0,
        padding_between: int = 1,
        initial_padding: int = 2,
        max_padding: int = 8,
        final_padding: int = 4,
        padding_bonus: float = 0.0,
        max_gen_length: int = 30000,
        dtype: str = "bfloat16",
    ) -> None:
        self.weights, self.voice, self.voice_repo = weights, voice, voice_repo
        self.num_codebooks, self.temperature, self.cfg_coef = num_codebooks, temperature, float(cfg_coef)
        self.padding_between, self.initial_padding = padding_between, initial_padding
        self.max_padding, self.final_padding, self.padding_bonus = max_padding, final_padding, padding_bonus
        self.max_gen_length, self.dtype = max_gen_length, check_dtype(dtype, "tts")
        self.device: torch.device | None = None
        for name in (*POSITIVE, *NOT_NEGATIVE):
            least = 1 if name in POSITIVE else 0
            if getattr(self, name) < least:
                raise UserError(f"text to speech: tts.{name}={getattr(self, name)}; allowed: {least} or more")

    @cached_property
    def _config(self) -> dict[str, Any]:
        return load_config(self.weights, self.num_codebooks, self.cfg_coef)

    @cached_property
    def _files(self) -> dict[str, Path]:
        return find_files(self.weights, self.voice, self.voice_repo, self._config)

    def mimi_weights(self) -> Path:
        """Return the file of the Mimi codec whose codes are generated."""
        return self._files["mimi"]

    @property
    def info(self) -> CodecInfo:
        """Describe the Mimi codec whose codes are generated: the decoding codec must have the same `weights_id`."""
        return self._info

    @cached_property
    def _info(self) -> CodecInfo:
        files = {self._files[role].name: self._files[role] for role in ("mimi", "mimi_config") if role in self._files}
        config = json.loads(self._files["mimi_config"].read_text()) if len(files) > 1 else PUBLISHED
        hop_length = round(config["sample_rate"] / config["frame_rate"])
        identity = weight_files.weights_id(files)
        strides, size = (1,) * self.num_codebooks, config["quantizer"]["bins"]
        channels, rate = config["channels"], config["sample_rate"]
        return CodecInfo("mimi", rate, channels, hop_length, self.num_codebooks, size, strides, identity)

    def fingerprint(self) -> dict[str, Any]:
        """Return what changes the codes, apart from batch plan and device, as JSON-able values; loads no model."""
        return {
            "name": "moshi_tts",
            "files": {role: weight_files.weights_id({role: path}) for role, path in sorted(self._files.items())},
            **{name: getattr(self, name) for name in (*POSITIVE, *NOT_NEGATIVE, "cfg_coef", "padding_bonus")},
            "dtype": str(self.dtype).removeprefix("torch."),
            "packages": {name: package_version(name, "tts") for name in ("moshi", "sentencepiece")},
        }

    def to(self, device: torch.device | str) -> Self:
        """Load model and voice onto `device`, on the first call and when the device changes."""
        device = torch.device(device)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        if device != self.device:
            with _seeded(0, device):  # upstream draws random weights before it reads the real ones
                self._model = self._load(device)
                self._attributes, self._prefix = self._load_voice()
            self.device = device
        return self

    def _load(self, device: torch.device) -> Any:
        from moshi.models.loaders import CheckpointInfo
        from moshi.models.tts import TTSModel

        files = self._files
        checkpoint = CheckpointInfo.from_hf_repo(
            self.weights,
            moshi_weights=files["lm"],
            mimi_weights=files["mimi"],
            tokenizer=files["tokenizer"],
            config_path=files["config"],
            mimi_config_path=files.get("mimi_config"),
            lora_weights=files.get("lora"),
        )
        # A model distilled for guidance takes its strength as a condition and refuses a second pass.
        guidance = 1.0 if guidance_strengths(self._config) else self.cfg_coef
        return TTSModel.from_checkpoint_info(
            checkpoint, device=device, dtype=self.dtype, n_q=self.num_codebooks, temp=self.temperature,
            cfg_coef=guidance, initial_padding=self.initial_padding, max_padding=self.max_padding,
            final_padding=self.final_padding, padding_bonus=self.padding_bonus, max_gen_length=self.max_gen_length,
        )  # fmt: skip

    def _load_voice(self) -> tuple[Any, Tensor | None]:
        """Return the conditions of an item and, for models that continue a recording, its codes (1 + K, N)."""
        strength = self.cfg_coef if guidance_strengths(self._config) else None
        voice = self._files["voice"]
        if is_conditioned_on_voice(self._config):
            return self._model.make_condition_attributes([voice], strength), None
        with _eager_on_cpu(self._model.lm.device):
            return self._model.make_condition_attributes([], strength), self._model.get_prefix(voice)

    def generate(self, texts: Sequence[str], seed: int) -> list[SpokenText]:
        """Speak a batch of texts.

        Args:
            texts: one turn each; `<break time="1.5s"/>` makes a pause, colons and parentheses are not spoken.
            seed: of everything that is sampled for this batch.

        Returns:
            one result per text, in order.

        Raises:
            RuntimeError: `to` was not called, or the model left holes in its codes.
        """
        if self.device is None:
            raise RuntimeError("MoshiTTS.generate was called before MoshiTTS.to(device)")
        scripts = [self._script(text) for text in texts]
        spoken = iter(self._speak([script for script in scripts if not isinstance(script, str)], seed))
        return [SpokenText(reason=script) if isinstance(script, str) else next(spoken) for script in scripts]

    def _script(self, text: str) -> list[Any] | str:
        """Split a text into the model's words, or say why it can't be spoken."""
        try:
            entries = self._model.prepare_script([text], padding_between=self.padding_between)
        except ValueError:
            return "bad_break"  # upstream's pattern lets <break time="1x5s"/> through, its float() does not
        return entries if any(entry.tokens for entry in entries) else "empty_text"

    def _speak(self, scripts: list[list[Any]], seed: int) -> list[SpokenText]:
        """Run the language model on a batch of words, as upstream's own command does."""
        if not scripts:
            return []
        device = self._model.lm.device
        two_pass = not guidance_strengths(self._config)
        prefixes = None if self._prefix is None else [self._prefix] * len(scripts)
        with _seeded(seed, device), _eager_on_cpu(device):
            result = self._model.generate(
                scripts, [self._attributes] * len(scripts), prefixes=prefixes,
                cfg_is_no_prefix=two_pass, cfg_is_no_text=two_pass,
            )  # fmt: skip
        if not result.frames:
            return [SpokenText(reason="tts_incomplete") for _ in scripts]
        frames = torch.cat(result.frames, dim=-1).cpu()
        return [self._cut(item, end) for item, end in zip(frames, result.end_steps, strict=True)]

    def _cut(self, frames: Tensor, end_step: int | None) -> SpokenText:
        """Take one item's codes out of frames (1 + K, N): those after the audio delay and the recording, to its end."""
        if end_step is None:
            return SpokenText(reason="tts_incomplete")
        delay = self._model.delay_steps
        stop = delay + end_step + self.final_padding
        # The step budget may also end between the last word and its audio, which upstream does not report.
        if frames.shape[-1] < stop - max(self._model.lm.delays):
            return SpokenText(reason="tts_incomplete")
        start = delay + (0 if self._prefix is None else self._prefix.shape[-1])
        codes = frames[1:, start:stop].contiguous()
        if codes.numel() == 0 or codes.min() < 0 or codes.max() >= self._model.lm.card:
            raise RuntimeError(
                f"text to speech: codes {tuple(codes.shape)} outside 0..{self._model.lm.card - 1}; "
                f"config.json of '{self.weights}' does not fit its weights (delays, tts_config.audio_delay)"
            )
        return SpokenText(codes=codes)


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the generators of the CPU and of `device`, and give them back their state afterwards."""
    index = [device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=index):
        torch.default_generator.manual_seed(seed)
        for number in index:
            torch.cuda.default_generators[number].manual_seed(seed)
        yield


def _eager_on_cpu(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Keep moshi from compiling its small functions on the CPU: minutes and a C++ compiler, for nothing."""
    from moshi.utils.compile import no_compile

    return no_compile() if device.type == "cpu" else contextlib.nullcontext()
