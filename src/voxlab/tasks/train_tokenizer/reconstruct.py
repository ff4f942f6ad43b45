"""One file through a codec: audio, tokens and spectrograms beside each other."""

import logging
from pathlib import Path
from typing import Any

from voxlab import audio, storage
from voxlab.codecs.base import Codec
from voxlab.codecs.token_files import suffix, write_tokens
from voxlab.errors import UserError
from voxlab.metrics.audio import is_silent
from voxlab.tasks.train_tokenizer.files import draw_pair
from voxlab.tasks.train_tokenizer.measure import codec_input, roundtrip
from voxlab.tasks.train_tokenizer.summary import rates_of

log = logging.getLogger(__name__)

_OTHER_AUDIO = (".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aiff")


def target_of(source: Path, out: str | None, run_dir: Path) -> Path:
    """Return the WAV file to write: `out` itself, or `<name>.rec.wav` in the folder that it names.

    Raises:
        UserError: that would overwrite the source, or `out` is a file of another kind.
    """
    ending = "" if out is None else Path(out).suffix.lower()
    if ending in _OTHER_AUDIO:
        raise UserError(f"out={out}: reconstructions are WAV files. Give a name that ends in .wav, or a folder.")
    named = ending == ".wav"
    target = Path(str(out)) if named else Path(out or run_dir) / f"{source.stem}.rec.wav"
    if target.resolve() == source.resolve():
        raise UserError(f"out={out} is the file to read. Choose another name.")
    return target


def reconstruct(codec: Codec, source: Path, target: Path, seed: int) -> dict[str, Any]:
    """Write the reconstruction of `source` and what belongs to it; see `quality.reconstruct`."""
    wav, rate = _load(source)
    info = codec.info
    notes = [f"{len(wav)} channels averaged to one"] if len(wav) > 1 else []
    notes += [f"resampled from {rate} to {info.sample_rate} Hz"] if rate != info.sample_rate else []
    mono = audio.to_mono(wav)
    try:
        codes, output = roundtrip(codec, codec_input(mono, rate, info), source.stem, seed)
    except ValueError as error:
        raise UserError(f"audio={source}: {error}") from error
    tokens, picture = target.with_suffix(suffix(info)), target.with_suffix(".png")
    storage.atomic_write_bytes(target, audio.encode_wav(output, info.sample_rate))
    write_tokens(tokens, codes, info)
    storage.atomic_write_bytes(picture, draw_pair(mono, rate, output, info.sample_rate))
    summary = {
        **{"audio": str(source), "out": str(target), "tokens": str(tokens), "spectrograms": str(picture)},
        **rates_of(info),
        "seconds": audio.compute_duration(mono.shape[-1], rate),
        "frames": int(codes.lengths[0]),
        "silent": is_silent(mono),
    }
    for note in notes:
        log.info("%s: %s", source, note)
    if summary["silent"]:
        log.warning("%s is silent: its codes are valid, but say nothing", source)
    log.info("\n%s", "\n".join(f"  {key.replace('_', ' ')}: {value}" for key, value in summary.items()))
    return summary


def _load(source: Path) -> tuple[Any, int]:
    try:
        return audio.load(source)
    except FileNotFoundError as error:
        raise UserError(f"audio={source}: there is no such file.") from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"audio={source}: {error}. Give a WAV, FLAC, Ogg or MP3 file with at least one sample, all finite."
        ) from error
