"""Small trees in PodcastFillers' layout, for tests that spoil them."""

import csv
import json

import numpy as np
import torch

from voxlab.audio import encode_wav

COLUMNS = (
    *("podcast_filename", "pfID", "label_full_vocab", "label_consolidated_vocab", "event_start_inepisode"),
    *("event_end_inepisode", "episode_split_subset", "clip_split_subset", "confidence"),
)
EPISODES = (("train", "Apple_One"), ("train", "Apple_Two, Again"), ("validation", "Bean_One"), ("test", "Corn_One"))
EVENTS = (("Laughter", "Laughter", 1.0, 1.5, 0.9), ("Um", "Um", 2.0, 2.25, 0.8), ("Noise", "None", 3.0, 3.5, 1.0))
SECONDS = 8.0


def write_tree(root, episodes=EPISODES, *, metadata="metadata", rate=16_000):
    """Write audio of 8 s and three events for each episode."""
    for number, (split, name) in enumerate(episodes):
        write_audio(root / "audio" / "episode_wav" / split / f"{name}.wav", seed=number, rate=rate)
        write_events(root / metadata / "episode_annotations" / split / f"{name}.csv", name, split)
    return root


def noise(seconds=SECONDS, seed=0, rate=16_000, channels=1):
    generator = np.random.default_rng(seed)
    return torch.from_numpy(0.1 * generator.standard_normal((channels, int(seconds * rate)))).float()


def write_audio(path, wav=None, *, seed=0, rate=16_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_wav(noise(seed=seed, rate=rate) if wav is None else wav, rate))


def rows_of(name, split, events=EVENTS):
    return [
        dict(
            zip(
                COLUMNS,
                (name, f"{90_000 + number}", full, label, start, end, split, split, confidence),
                strict=True,
            )
        )
        for number, (full, label, start, end, confidence) in enumerate(events)
    ]


def write_events(path, name, split, events=EVENTS, *, rename=None):
    """Write a table of events; `rename` maps column names to those in the file."""
    write_rows(path, rows_of(name, split, events), rename=rename)


def write_rows(path, rows, *, rename=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    names = {column: (rename or {}).get(column, column) for column in COLUMNS}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names.values())
        writer.writeheader()
        writer.writerows({names[column]: value for column, value in row.items()} for row in rows)


def transcript(words, ticks=10_000_000):
    """Return a transcript of (text, start, end), two words a segment."""
    spoken = [
        {"text": text, "confidence": 1.0, "offset": round(start * ticks), "duration": round((end - start) * ticks)}
        for text, start, end in words
    ]
    pairs = [spoken[place : place + 2] for place in range(0, len(spoken), 2)]
    segments = [{"speaker": 1, "offset": 0, "duration": 0, "nbest": [{"text": "", "words": pair}]} for pair in pairs]
    return {"duration": 0, "language": "en", "segments": segments}


def diarization(segments, seconds=SECONDS):
    """Return a diarization of (start, end, speaker)."""
    speakers = sorted({speaker for _, _, speaker in segments})
    totals = {name: sum(end - start for start, end, speaker in segments if speaker == name) for name in speakers}
    return {
        "num_speakers": len(speakers),
        "speaker_statistics": {
            name: {"total_time": total, "speaking_ratio": total / seconds} for name, total in totals.items()
        },
        "segments": [{"start": start, "end": end, "speaker_id": speaker} for start, end, speaker in segments],
    }


def event_speakers(events):
    """Return the speakers of (label, start, end, speaker)."""
    names = ("label_consolidated_vocab", "event_start_inepisode", "event_end_inepisode", "speaker_id")
    return {"events": [dict(zip(names, event, strict=True)) for event in events]}


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
