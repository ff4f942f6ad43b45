"""Clips to listen to during training: a few validation segments as they are and as they come back."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from voxlab import audio
from voxlab.models.tokenizer.output import Output
from voxlab.parallel import Ranks
from voxlab.plots import plot_spectrogram
from voxlab.storage import atomic_write_bytes
from voxlab.tasks.train_tokenizer.data import TokenizerData, evenly
from voxlab.tasks.train_tokenizer.module import TokenizerModule

log = logging.getLogger(__name__)

FOLDER = "samples"


class Samples(Callback):
    """Writes clips to `samples/` of the run folder and to TensorBoard and W&B, on the first rank.

    Args:
        ranks: this process among its peers.
        run_dir: folder of the run.
        loggers: Lightning loggers.
        vocoder: makes audio of the mel of a mel-domain codec.
    """

    def __init__(self, ranks: Ranks, run_dir: Path, loggers: dict[str, Any], vocoder: Any) -> None:
        self.ranks, self.run_dir, self.loggers, self.vocoder = ranks, run_dir, loggers, vocoder

    def on_train_batch_end(self, trainer: Trainer, pl_module: TokenizerModule, *_: Any) -> None:  # type: ignore[override]
        """Write clips every `audio_every` steps, and at the end."""
        fit, data = pl_module.fit, trainer.datamodule  # type: ignore[attr-defined]
        due = fit.audio_every and (pl_module.step % fit.audio_every == 0 or trainer.should_stop)
        if due and fit.num_clips and self.ranks.is_first and data.val_set is not None:
            self._write(pl_module, data)

    def _write(self, module: TokenizerModule, data: TokenizerData) -> None:
        folder = self.run_dir / FOLDER / f"step-{module.step:07d}"
        assert data.val_set is not None
        rate = module.architecture.sample_rate
        for number, index in enumerate(evenly(range(len(data.val_set)), module.fit.num_clips), 1):
            segment = data.val_set[index]
            wav, length = segment["wav"], segment["lengths"]
            coded = reconstruct(module, wav, length, self.vocoder)
            pair = {"original": wav[:, :length], "coded": coded}
            for kind, clip in pair.items():
                atomic_write_bytes(folder / f"{number}.{kind}.flac", audio.encode_flac(clip, rate))
            self._log(number, pair, rate, module.step)
        log.info("clips: %s", folder)

    def _log(self, number: int, pair: dict[str, Tensor], sample_rate: int, step: int) -> None:
        for logger in self.loggers.values():
            for kind, clip in pair.items():
                key = f"clip-{number}/{kind}"
                if hasattr(logger, "log_audio"):  # W&B
                    logger.log_audio(key, [clip[0].numpy()], step=step, sample_rate=[sample_rate])
                    logger.log_image(f"{key}-spectrogram", [plot_spectrogram(clip, sample_rate)], step=step)
                elif hasattr(logger.experiment, "add_audio"):  # TensorBoard
                    logger.experiment.add_audio(key, clip[0], step, sample_rate=sample_rate)
                    logger.experiment.add_figure(f"{key}-spectrogram", plot_spectrogram(clip, sample_rate), step)


@torch.no_grad()
def reconstruct(module: TokenizerModule, wav: Tensor, length: int, vocoder: Any) -> Tensor:
    """Return what the averaged weights make of the first `length` samples of wav (1, N): (1, length) on the CPU."""
    placed = module.placed(wav[None], torch.tensor([length]))
    coded = to_wav(module, module.run_average(dict(zip(("wav", "lengths"), placed, strict=True))), vocoder)
    return coded[0, :, :length].float().cpu().clamp(-1.0, 1.0)


def to_wav(module: TokenizerModule, output: Output, vocoder: Any) -> Tensor:
    """Return the audio (B, 1, N) of an output; the mel of a mel-domain codec goes through the vocoder."""
    if module.architecture.family != "mel":
        return output.output
    log_mel = output.output * module.ema_network.mel_std + module.ema_network.mel_mean
    return vocoder(log_mel.float(), module.architecture.mel)


def clip_pairs(folder: Path) -> Sequence[tuple[str, Path, Path]]:
    """Return (number, original, coded) of the newest clips in a run folder."""
    steps = sorted((folder / FOLDER).glob("step-*"))
    originals = sorted(steps[-1].glob("*.original.flac")) if steps else []
    coded = [path.with_name(path.name.replace("original", "coded")) for path in originals]
    return [(path.name.partition(".")[0], path, other) for path, other in zip(originals, coded, strict=True)]
