"""Root keys of every task as typed dataclasses: what the command line may set, and of which type."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

MISSING: Any = "???"  # what OmegaConf calls a key without a value


class Stage(Enum):
    """What a training task does."""

    fit = "fit"
    test = "test"
    generate = "generate"
    reconstruct = "reconstruct"
    export = "export"
    stream = "stream"
    compare = "compare"
    evaluate = "evaluate"
    tokenize = "tokenize"
    check = "check"
    clean = "clean"


class Input(Enum):
    """What convert starts from."""

    tokens = "tokens"
    text = "text"
    audio = "audio"


class ExtractStage(Enum):
    """A step of extract."""

    normalize = "normalize"
    encode = "encode"
    sidecars = "sidecars"
    build = "build"
    audit = "audit"


class Verify(Enum):
    """How extract tells whether the features of a recording are as they were written."""

    size = "size"
    hash = "hash"


class AudioFormat(Enum):
    """How convert stores audio."""

    float32 = "float32"
    flac = "flac"
    none = "none"


class PartialTail(Enum):
    """What to do with a token text whose last group is cut short."""

    error = "error"
    drop = "drop"


# Every field is MISSING: a default here would reset what config.yaml and the groups have set before (values live in
# YAML), and a default of None would erase the chosen option of a group.
@dataclass
class Config:
    """Root keys of every run."""

    stage: Stage = MISSING
    seed: int = MISSING
    name: str | None = MISSING
    tags: list[str] = MISSING
    device: str = MISSING
    resume: str | None = MISSING
    rerun: str | None = MISSING
    objective: str | None = MISSING
    ckpt: str | None = MISSING
    dry_run: bool = MISSING
    task: Any = MISSING
    data: Any = MISSING
    source: Any = MISSING
    codec: Any = MISSING
    vocoder: Any = MISSING
    features: Any = MISSING
    acoustic: Any = MISSING
    model: Any = MISSING
    loss: Any = MISSING
    optim: Any = MISSING
    logger: Any = MISSING
    trainer: Any = MISSING


@dataclass
class ConvertConfig(Config):
    """Root keys of task=convert."""

    input: Input = MISSING
    out: str = MISSING
    audio_format: AudioFormat = MISSING
    partial_tail: PartialTail = MISSING
    max_seconds: float = MISSING
    unit_rows: int = MISSING
    max_batch_seconds: float | None = MISSING
    tts_batch_size: int = MISSING
    max_bad_fraction: float = MISSING
    restart: bool = MISSING
    tts: Any = MISSING


@dataclass
class ExtractConfig(Config):
    """Root keys of task=extract."""

    out: str = MISSING
    verify: Verify = MISSING
    stages: list[ExtractStage] = MISSING
    normalize: Any = MISSING
    encode: Any = MISSING
    sidecars: Any = MISSING
    producers: Any = MISSING
    build: Any = MISSING
    audit: Any = MISSING
    strict: bool = MISSING
    overwrite: bool = MISSING
    list_missing: bool = MISSING
    upgrade: bool = MISSING
    max_batch_seconds: float | None = MISSING
    max_bad_fraction: float | None = MISSING


@dataclass
class TrainTokenizerConfig(Config):
    """Root keys of task=train_tokenizer."""

    part: str | None = MISSING
    audio: str | None = MISSING
    out: str | None = MISSING
    max_bad_fraction: float = MISSING
    fit: Any = MISSING
    test: Any = MISSING


@dataclass
class LaughterConfig(Config):
    """Root keys of task=laughter."""

    shift: int = MISSING
    store: str = MISSING
    runs: str | None = MISSING
    audio: str | None = MISSING
    labels: Any = MISSING
    sampling: Any = MISSING
    fit: Any = MISSING
    thr: Any = MISSING
    events: Any = MISSING
    eval: Any = MISSING


@dataclass
class A2gConfig(Config):
    """Root keys of task=a2g."""

    tokenizers: Any = MISSING
    stores: Any = MISSING
    audio: str | None = MISSING
    predicted: str | None = MISSING
    reference: str | None = MISSING
    out: str | None = MISSING
    fit: Any = MISSING
    sampling: Any = MISSING
    generate: Any = MISSING
    metrics: Any = MISSING
    body: Any = MISSING
    render: str = MISSING
    any_fps: bool = MISSING
    max_bad_fraction: float = MISSING


@dataclass
class CompareConfig(Config):
    """Root keys of task=compare."""

    runs: Any = MISSING
    metrics: list[str] | None = MISSING
    sort: str | None = MISSING
    media: int = MISSING


SCHEMAS: dict[str, type[Config]] = {
    "convert": ConvertConfig,
    "extract": ExtractConfig,
    "train_tokenizer": TrainTokenizerConfig,
    "laughter": LaughterConfig,
    "a2g": A2gConfig,
    "compare": CompareConfig,
}
# Keys that hold a folder or a file of the user's.
PLACES = ("out", "data.root", "store", "runs", "ckpt", "audio", "tokenizers", "resume", "rerun")
PLACES += ("hydra.run.dir", "hydra.sweep.dir")
SOURCES = ("disk", "sample", "download")  # of the corpora of conf/data; not all can be downloaded
# task -> what `stage` may be, said before anything is imported; the default comes first.
STAGES: dict[str, tuple[str, ...]] = {
    "convert": ("fit",),
    "extract": ("fit", "check", "clean"),
    "train_tokenizer": ("fit", "test", "reconstruct", "export"),
    "laughter": ("fit", "test", "stream", "compare"),
    "a2g": ("fit", "test", "generate", "evaluate", "tokenize"),
    "compare": ("fit",),
}
