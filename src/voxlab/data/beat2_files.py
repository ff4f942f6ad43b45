"""Where the files of BEAT2 are, what the names of its clips say, which split each is in, and its small tables.

Layout: <root>/beat_<language>_v2.0.0/{smplxflame_30/<id>.npz, wave16k/<id>.wav, textgrid/, sem/, train_test_split.csv}.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from voxlab.audio import Seconds
from voxlab.data.names import inflected, listed
from voxlab.errors import UserError

SPLIT_TABLE = "train_test_split.csv"
MOTION, WAV, TEXT, SEMANTIC = "smplxflame_30", "wave16k", "textgrid", "sem"
SPLITS = {"train": "train", "val": "validation", "test": "test", "additional": "train"}
ADDITIONAL = "additional"
_DEPTH = 3  # folders below the root that are searched
_NAME = re.compile(r"beat_(\w+?)_v\d")
_ID = re.compile(r"(?P<speaker>\d+)_(?P<name>[^_]+)_(?P<kind>\d)_(?P<start>[^_]+)_(?P<end>[^_]+)")
_EMOTIONS = ("happiness", "anger", "sadness", "contempt", "surprise", "fear", "disgust")
_EMOTION_STARTS = (65, 73, 81, 87, 95, 103, 111, 119)


@dataclass(frozen=True)
class ClipName:
    """What the id of a clip says, such as 2_scott_0_65_65.

    Attributes:
        speaker: a number, as text.
        name: of the speaker.
        kind: "speech" or "conversation".
        emotion: that was acted: of speeches 65 to 118; all else is neutral.
    """

    speaker: str
    name: str
    kind: str
    emotion: str


class SemanticLabel(NamedTuple):
    """A gesture with a meaning: its name, when (s), how clear it is (0 to 10), and the words it goes with."""

    name: str
    start: Seconds
    end: Seconds
    score: float
    keywords: str


# ---- names ----------------------------------------------------------------------------------------------------------


def parse_id(clip_id: str) -> ClipName:
    """Read the id of a clip: speaker, name, kind (even: speech), first and last number of the recording.

    Raises:
        ValueError: it is none.
    """
    match = _ID.fullmatch(clip_id)
    if match is None:
        raise ValueError(f"{clip_id!r} is no <speaker>_<name>_<kind>_<start>_<end>")
    is_speech = int(match["kind"]) % 2 == 0
    leading = re.match(r"\d+", match["start"])  # halves of a recording have a letter behind the number
    number = int(leading[0]) if leading and is_speech else 0
    passed = sum(number >= start for start in _EMOTION_STARTS)
    emotion = _EMOTIONS[passed - 1] if 0 < passed <= len(_EMOTIONS) else "neutral"
    return ClipName(match["speaker"], match["name"], "speech" if is_speech else "conversation", emotion)


def is_id(name: str) -> bool:
    """Say whether a name is the id of a clip."""
    return _ID.fullmatch(name) is not None


def describe_splits(split_of: Mapping[str, str]) -> str:
    """Spell how many clips each speaker has in each split."""
    counts: dict[str, Counter[str]] = {}
    for clip_id, split in split_of.items():
        counts.setdefault(parse_id(clip_id).speaker, Counter())[split] += 1
    ordered = sorted(counts.items(), key=lambda entry: int(entry[0]))
    return "; ".join(
        f"speaker {speaker}: " + ", ".join(f"{split} {of[split]}" for split in ("train", "validation", "test"))
        for speaker, of in ordered
    )


# ---- where ----------------------------------------------------------------------------------------------------------


def find_corpus(root: Path, language: str) -> Path:
    """Return the folder of one language: the root itself, or one up to 3 levels below it.

    Raises:
        UserError: there is none, or only of other languages, or it isn't clear which.
    """
    if _is_corpus(root):
        match = _NAME.match(root.absolute().name)
        if match and match[1] != language:
            raise UserError(
                f"data.language={language}: data.root={root} holds {match[1]}. Set data.language={match[1]}."
            )
        return root
    found = _below(root, _DEPTH) if root.is_dir() else []
    named = {folder: match[1] for folder in found if (match := _NAME.match(folder.name))}
    matching = [folder for folder in found if named.get(folder) == language] if named else found
    if len(matching) == 1:
        return matching[0]
    if len(matching) > 1:
        raise UserError(
            f"data.root={root} holds several: {listed([str(folder) for folder in matching])}. Set data.root to one."
        )
    if named:
        spoken = ", ".join(sorted(set(named.values())))
        raise UserError(f"data.language={language}: {root} holds {spoken}. Choose one of these.")
    state = f"no folder with {SPLIT_TABLE} or {MOTION}" if root.is_dir() else "no such folder"
    raise UserError(
        f"data.root={root}: {state}, also not up to {_DEPTH} levels below; expected beat_{language}_v2.0.0/{MOTION}, "
        f"{WAV} and {SPLIT_TABLE}.\nSet data.root=DIR, let data.source=download fetch it, or try data.source=sample."
    )


def _is_corpus(folder: Path) -> bool:
    return (folder / SPLIT_TABLE).is_file() or (folder / MOTION).is_dir()


def _below(folder: Path, depth: int) -> list[Path]:
    """Return the corpora below a folder; what is inside one is not looked at."""
    children = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    found = [child for child in children if _is_corpus(child)]
    if depth > 1:
        found += [corpus for child in children if child not in found for corpus in _below(child, depth - 1)]
    return found


# ---- tables ---------------------------------------------------------------------------------------------------------


def read_split_table(path: Path) -> dict[str, str]:
    """Read id -> type ("train", "val", "test" or "additional") from a CSV with these two columns.

    Raises:
        UserError: the file or a column is missing, or rows are wrong; lists all of them.
    """
    rows = _rows(path, ("id", "type"))
    counts = Counter(row["id"] for _, row in rows)
    problems = []
    for line, row in rows:
        clip_id, kind = row["id"], row["type"]
        if kind not in SPLITS:
            problems.append(f"line {line}: {clip_id} has the type {kind!r}; expected {', '.join(SPLITS)}")
        if counts[clip_id] > 1:
            problems.append(f"line {line}: {clip_id} is there {counts[clip_id]} times ({kind})")
        try:
            parse_id(clip_id)
        except ValueError as error:
            problems.append(f"line {line}: {error}")
    if problems or not rows:
        what = inflected("{} [problem|problems]", len(problems)) if rows else "no row"
        raise UserError(
            f"{path}: {what}\n  " + listed(problems, "\n  ") + "\nCorrect the table, or set data.split_file=."
        )
    return {row["id"]: row["type"] for _, row in rows}


def read_offsets(path: Path) -> dict[str, Seconds]:
    """Read id -> second of the wav at which the motion starts, from a CSV with the columns id and offset_s.

    Raises:
        UserError: the file or a column is missing, a value is no finite number, or an id is there twice.
    """
    offsets: dict[str, Seconds] = {}
    for line, row in _rows(path, ("id", "offset_s")):
        if row["id"] in offsets:
            raise UserError(f"{path}, line {line}: {row['id']} is there a second time; leave one row of each.")
        try:
            offset = float(row["offset_s"])
        except ValueError:
            offset = math.nan
        if not math.isfinite(offset):
            raise UserError(f"{path}, line {line}: offset_s is {row['offset_s']!r}; expected seconds.")
        offsets[row["id"]] = offset
    return offsets


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read {path}: {getattr(error, 'strerror', None) or error}.") from None
    reader = csv.DictReader(io.StringIO(text), strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    last = 0
    try:
        reader.fieldnames = header = [name.strip() for name in reader.fieldnames or ()]
        missing = [name for name in columns if name not in header]
        if missing:
            raise UserError(
                f"{path} has no column {' and '.join(missing)}: its first line is {','.join(header)!r}, expected "
                f"{','.join(columns)}."
            )
        last = reader.line_num
        for row in reader:
            last = reader.line_num
            rows.append((last, {name: (row[name] or "").strip() for name in columns}))
    except csv.Error as error:
        raise UserError(f"{path}, after line {last}: {error}. Is a quotation mark never closed there?") from None
    return rows


def read_semantic(path: Path) -> list[SemanticLabel]:
    """Read the semantic labels of a clip: lines of name, start, end, duration, score, keywords between tabs.

    Raises:
        UserError: the file can't be read, or a line is of another form.
    """
    labels = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read {path}: {getattr(error, 'strerror', None) or error}.") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = line.split("\t")
        try:
            start, end, _, score = map(float, fields[1:5])
        except ValueError:
            raise UserError(
                f"{path}, line {number}: {line[:60]!r}; expected name, start, end, duration, score and keywords, with "
                "tabs between them."
            ) from None
        labels.append(SemanticLabel(fields[0], start, end, score, " ".join(fields[5:]).strip()))
    return labels
