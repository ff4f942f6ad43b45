"""Finds and checks the files of a text-to-speech model and its voice, reading no weights; used by `tts.py`."""

import json
from pathlib import Path
from typing import Any

from voxlab.codecs import weights as weight_files
from voxlab.codecs.mimi import WEIGHTS_FILE
from voxlab.errors import UserError

# file role -> (key of config.json that names the file, upstream's name where the key is absent; "": no such file)
ROLES = {
    "lm": ("moshi_name", "model.safetensors"),
    "mimi": ("mimi_name", WEIGHTS_FILE),
    "tokenizer": ("tokenizer_name", "tokenizer_spm_32k_3.model"),
    "mimi_config": ("mimi_config_name", ""),
    "lora": ("lora_name", ""),
}


def load_config(weights: str, num_codebooks: int, cfg_coef: float) -> dict[str, Any]:
    """Read a model's config.json and check that it is one we can run with these options.

    Raises:
        UserError: the file is missing, is of another kind of model, or the model does not allow the options.
    """
    config = json.loads(_find(weights, "config.json", "weights").read_text())
    _check_model(config, weights)
    _check_options(config, num_codebooks, cfg_coef)
    return config


def find_files(weights: str, voice: str, voice_repo: str, config: dict[str, Any]) -> dict[str, Path]:
    """Return every file that is loaded, by role: those of `ROLES`, config, voice.

    Raises:
        UserError: a file is missing, or the voice is not of the kind that the model needs.
    """
    names = {role: config.get(key) or name for role, (key, name) in ROLES.items()} | {"config": "config.json"}
    files = {role: _find(weights, name, "weights") for role, name in names.items() if name}
    return files | {"voice": _find_voice(voice, voice_repo, config)}


def is_conditioned_on_voice(config: dict[str, Any]) -> bool:
    """Return whether the model takes a voice embedding; others continue a recording."""
    return "speaker_wavs" in config["conditioners"]


def guidance_strengths(config: dict[str, Any]) -> list[float]:
    """Return the guidance strengths that a distilled model knows; empty for others."""
    condition = config["conditioners"].get("cfg", {})
    return [float(value) for value in condition.get("lut", {}).get("possible_values") or []]


def _check_model(config: dict[str, Any], weights: str) -> None:
    missing = [key for key in ("tts_config", "model_id", "conditioners", "n_q") if key not in config]
    if missing:
        raise UserError(
            f"text to speech: config.json of '{weights}' has no {', '.join(missing)}, so it is no text-to-speech model "
            "of the moshi package.\nSet tts.weights=kyutai/tts-1.6b-en_fr or a folder with such a model."
        )
    if config["tts_config"].get("multistream"):
        raise UserError(
            f"text to speech: '{weights}' speaks with two voices at once (tts_config.multistream); one is needed.\n"
            "Set tts.weights=kyutai/tts-1.6b-en_fr or another model of one voice."
        )


def _check_options(config: dict[str, Any], num_codebooks: int, cfg_coef: float) -> None:
    available = config["n_q"]
    # A recording is continued with all its codebooks: upstream has no way to leave some out.
    least = 1 if is_conditioned_on_voice(config) else available
    if not least <= num_codebooks <= available:
        raise UserError(
            f"text to speech: tts.num_codebooks={num_codebooks}; this model allows {least} to {available}.\n"
            f"Set tts.num_codebooks={available}."
        )
    strengths = guidance_strengths(config)
    if strengths and cfg_coef not in strengths:
        raise UserError(f"text to speech: tts.cfg_coef={cfg_coef}; this model allows {strengths}")


def _find(where: str, name: str, key: str) -> Path:
    """Return a file of a folder or hub repository; `key` is the option to set where it is missing."""
    try:
        return weight_files.resolve(where, [name], codec="tts")[name]
    except UserError as error:
        # The first line says what was missing and where it was looked for; the advice after it is for codecs.
        found = str(error).splitlines()[0].removeprefix("codec tts: ")
        raise UserError(
            f"text to speech: {found}\nAllowed: a hub id, or a folder with the model's files.\n"
            f"Set tts.{key}=<folder or hub id>; on a machine without network, copy the files there first."
        ) from error


def _find_voice(voice: str, repo: str, config: dict[str, Any]) -> Path:
    """Return an embedding made for this very model, or a recording for models that continue one."""
    name = voice
    if is_conditioned_on_voice(config) and not voice.endswith(".safetensors"):
        name = f"{voice}.{config['model_id']['sig']}@{config['model_id']['epoch']}.safetensors"
    path = Path(name).expanduser()
    if not path.is_file():
        if path.is_absolute() or name.startswith("."):
            raise UserError(f"text to speech: voice {path} does not exist.\nSet tts.voice=<file, or name in {repo}>.")
        path = _find_in_repo(repo, name)
    _check_voice(path, config)
    return path


def _find_in_repo(repo: str, name: str) -> Path:
    try:
        return _find(repo, name, "voice_repo")
    except UserError as error:
        raise UserError(f"{error}\nOr set tts.voice=<local file, or another name in {repo}>.") from error


def _check_voice(path: Path, config: dict[str, Any]) -> None:
    if is_conditioned_on_voice(config):
        dim, shape = config["conditioners"]["speaker_wavs"]["tensor"]["dim"], _embedding_shape(path)
        fits, wanted = len(shape) == 3 and shape[:2] == (1, dim), f"a safetensors file with speaker_wavs (1, {dim}, N)"
        found = f"has speaker_wavs {shape}" if shape else "has none"
    else:
        channels = _num_channels(path)
        fits, wanted = channels == 1, "a mono recording"
        found = f"has {channels} channels" if channels else "is no audio file"
    if not fits:
        raise UserError(
            f"text to speech: this model needs {wanted}; voice {path} {found}.\n"
            "Set tts.voice=<name in the voice repository, or file made for this model>."
        )


def _embedding_shape(path: Path) -> tuple[int, ...]:
    """Return the shape of a voice embedding, () where there is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            return tuple(file.get_slice("speaker_wavs").get_shape())
    except SafetensorError:
        return ()


def _num_channels(path: Path) -> int:
    """Return the audio channels of a recording, 0 where it can't be read."""
    import soundfile

    try:
        return soundfile.info(path).channels
    except soundfile.LibsndfileError:
        return 0
