"""Items for tests of producers: a recording with a waveform in memory, and the times of its token frames."""

import numpy as np

from voxlab.sidecars.item import SidecarItem

FRAME_RATE = 75.0


def item_of(
    folder, name="take", frames=150, wav=None, sample_rate=24000, frame_rate=FRAME_RATE, suffix=".wav", **metadata
):
    """An item whose recording lies at `folder/<name><suffix>`; without `wav` it is silent."""
    hop = round(sample_rate / frame_rate)
    wav = np.zeros(frames * hop, np.float32) if wav is None else np.asarray(wav, np.float32)
    return SidecarItem(
        id=name,
        tokens=folder / "tokens" / f"{name}.ecdc",
        source=folder / f"{name}{suffix}",
        metadata=metadata,
        num_samples=len(wav),
        sample_rate=sample_rate,
        frame_rate=frame_rate,
        frames=frames,
        load_wav=lambda: (wav[None], sample_rate),
    )


def times_of(item):
    return (np.arange(item.frames) + 0.5) / item.frame_rate
