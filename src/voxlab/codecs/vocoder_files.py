"""Vocoders with weights: Vocos, HiFi-GAN, and the ISTFT vocoder that task=train_tokenizer codec=vocoder trains.

Weights come from a local place or the hub, never silently: what is missing is an error that names Griffin-Lim.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, Self

import torch
from torch import Tensor

from voxlab.codecs import weights as weight_files
from voxlab.codecs.hifigan_files import build_jik876, build_transformers, jik876_files, jik876_mel, read_json
from voxlab.codecs.vocos_files import build_vocos, vocos_architecture
from voxlab.errors import UserError
from voxlab.mel import Mel
from voxlab.models.tokenizer import files
from voxlab.models.tokenizer.istft_vocoder import IstftVocoder, VocoderArchitecture
from voxlab.models.tokenizer.vocoders import require_fit

SPEECHT5_MEL = Mel(
    sample_rate=16000, num_bins=80, f_min=80.0, f_max=7600.0, scale="slaney", norm="slaney", floor=1e-10, log="log10"
)


class _IstftNetwork:
    """What Vocos and Istft share: one network, `synthesize`, in float32."""

    device = torch.device("cpu")

    @property
    def mel(self) -> Mel:
        """The only mel it takes."""
        return self._architecture.mel

    @property
    def _architecture(self) -> VocoderArchitecture:
        raise NotImplementedError

    @cached_property
    def _network(self) -> IstftVocoder:
        raise NotImplementedError

    def fingerprint(self) -> dict[str, Any]:
        raise NotImplementedError

    def to(self, device: torch.device | str) -> Self:
        """Move to `device`; loads the weights on the first call."""
        self.device = torch.device(device)
        self._network.to(self.device)
        return self

    @torch.no_grad()
    def __call__(self, log_mel: Tensor, mel: Mel) -> Tensor:
        """Turn log-mels (B, num_bins, F) into wav (B, 1, F * hop_length); see `Vocoder`."""
        require_fit(self, mel)
        return self._network.synthesize(log_mel.to(self.device, torch.float32))


class Vocos(_IstftNetwork):
    """Vocos with the files that its authors publish: config.yaml and pytorch_model.bin of a mel model.

    Args:
        weights: hub id or folder.

    Raises:
        UserError: (later) the files are missing or not those of a mel Vocos.
    """

    def __init__(self, *, weights: str = "charactr/vocos-mel-24khz") -> None:
        self.weights = weights

    @cached_property
    def _files(self) -> dict[str, Path]:
        names = ["config.yaml", "pytorch_model.bin"]
        return weight_files.resolve(self.weights, names, codec="vocos", group="vocoder")

    @cached_property
    def _architecture(self) -> VocoderArchitecture:
        return vocos_architecture(self._files["config.yaml"])

    @cached_property
    def _network(self) -> IstftVocoder:
        return build_vocos(self._architecture, self._files["pytorch_model.bin"])

    def fingerprint(self) -> dict[str, Any]:
        """Return name and hash of the files."""
        return {"name": "vocos", "weights_id": weight_files.weights_id(self._files)}


class Istft(_IstftNetwork):
    """The vocoder of task=train_tokenizer codec=vocoder.

    Args:
        weights: run folder, vocoder folder or checkpoint file.

    Raises:
        UserError: (later) no weights are given, or they are not a vocoder's.
    """

    def __init__(self, *, weights: str | None = None) -> None:
        self.weights = weights

    @cached_property
    def _stored(self) -> files.Stored:
        if self.weights is None:
            raise UserError(
                "vocoder istft: weights=null. Train one with task=train_tokenizer codec=vocoder and set "
                "vocoder.weights=<its run folder>, or use vocoder=griffin_lim, which needs none."
            )
        try:
            stored = files.describe(self.weights)
        except UserError as error:
            raise UserError(f"vocoder istft: {error}\nSet vocoder.weights=<run folder>.") from error
        if stored.architecture.family != VocoderArchitecture.family:
            raise UserError(
                f"vocoder istft: {self.weights} holds a codec of family {stored.architecture.family}, no vocoder. "
                "Set codec.weights to it instead, and vocoder.weights to a run of codec=vocoder."
            )
        return stored

    @property
    def _architecture(self) -> VocoderArchitecture:
        return self._stored.architecture

    @cached_property
    def _network(self) -> Any:
        return files.build(self._stored)

    def fingerprint(self) -> dict[str, Any]:
        """Return name and hash of the files."""
        return {"name": "istft", "weights_id": weight_files.weights_id(self._stored.files)}


class HifiGan:
    """HiFi-GAN through transformers' SpeechT5HifiGan: its own folders, and generators of jik876/hifi-gan.

    Args:
        weights: hub id or folder of a SpeechT5HifiGan; or a generator of jik876/hifi-gan, or the folder that holds
            only one (g_*), with its config.json beside it.
        mel: what the weights take, where they don't say so: transformers' config doesn't. None: the generator's
            config.json (jik876), or the mel of SpeechT5 where rate, bins and hop are its own.

    Raises:
        UserError: (later) the weights are missing, of another kind, or their mel is not known.
    """

    def __init__(self, *, weights: str | None = None, mel: Mel | None = None) -> None:
        self.weights, self._mel, self.device = weights, mel, torch.device("cpu")

    @cached_property
    def _files(self) -> dict[str, Path]:
        if self.weights is None:
            raise UserError(
                "vocoder hifigan: weights=null. Set vocoder.weights=<hub id, folder or generator file>, or use "
                "vocoder=griffin_lim, which needs none."
            )
        found = jik876_files(Path(self.weights).expanduser())
        if found:
            return found
        names = ["config.json"], ["model.safetensors", "pytorch_model.bin"]
        resolved = weight_files.resolve(self.weights, *names, codec="hifigan", group="vocoder")
        if len(resolved) == 1:
            weight_files.resolve(self.weights, names[1], codec="hifigan", group="vocoder")
        return resolved

    @cached_property
    def _config(self) -> dict[str, Any]:
        return read_json(self._files["config.json"])

    @property
    def _is_transformers(self) -> bool:
        return "model_in_dim" in self._config

    @property
    def mel(self) -> Mel:
        """The only mel it takes.

        Raises:
            UserError: transformers' config doesn't tell, and `mel` was not given.
        """
        if self._mel is not None:
            return self._mel
        if not self._is_transformers:
            return jik876_mel(self._config, self._files["config.json"])
        hop = int(torch.tensor(self._config["upsample_rates"]).prod())
        if (self._config["sampling_rate"], self._config["model_in_dim"], hop) == (16000, 80, 256):
            return SPEECHT5_MEL
        raise UserError(
            f"vocoder hifigan: {self._files['config.json']} doesn't say which mel it takes. If it is the codec's, set "
            "vocoder.mel='${codec.architecture.mel}' (the weights need "
            f"{self._config['sampling_rate']} Hz, {self._config['model_in_dim']} bins, hop {hop})."
        )

    @cached_property
    def _network(self) -> Any:
        if self._is_transformers:
            return build_transformers(self._files["config.json"].parent)
        return build_jik876(self._files)

    def fingerprint(self) -> dict[str, Any]:
        """Return name and hash of the files."""
        return {"name": "hifigan", "weights_id": weight_files.weights_id(self._files)}

    def to(self, device: torch.device | str) -> Self:
        """Move to `device`; loads the weights on the first call."""
        self.device = torch.device(device)
        self._network.to(self.device)
        return self

    @torch.no_grad()
    def __call__(self, log_mel: Tensor, mel: Mel) -> Tensor:
        """Turn log-mels (B, num_bins, F) into wav (B, 1, F * hop_length); see `Vocoder`."""
        require_fit(self, mel)
        return self._network(log_mel.to(self.device, torch.float32).transpose(1, 2))[:, None]


class TrainableVocoder:
    """What codec=vocoder stands for in task=train_tokenizer: a vocoder's architecture. It makes no codes.

    Args:
        architecture: shape of the network.
        weights: None, as it is to be trained; see `Istft` for a trained one.
    """

    def __init__(self, *, architecture: VocoderArchitecture, weights: str | None = None) -> None:
        self.architecture, self.weights = architecture, weights

    @property
    def info(self) -> NoReturn:
        """Refuse, see `to`."""
        self.to("cpu")

    def to(self, device: torch.device | str) -> NoReturn:
        """Refuse: a vocoder is no codec.

        Raises:
            UserError: says where it belongs.
        """
        raise UserError(
            "codec=vocoder makes no codes; it is for task=train_tokenizer alone. Use the trained one with "
            "codec=rvq vocoder=istft vocoder.weights=<run folder>."
        )
