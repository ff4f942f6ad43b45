"""The card of a built data set: `README.md` with the front matter of the Hugging Face hub."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from voxlab.audio import compute_duration
from voxlab.codecs.base import CodecInfo
from voxlab.tasks.extract.build_rows import Row

# Upper bound of rows -> the hub's word for it.
_SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}
# Codec -> the licence that its published weights came with.
_LICENCES = {"encodec": "CC BY-NC 4.0", "mimi": "CC BY 4.0", "snac": "MIT"}
_LOCATIONS = {
    "hardlink": "Token files and sidecars lie in `tokens/`; the folder is complete in itself.",
    "copy": "Token files and sidecars lie in `tokens/`; the folder is complete in itself.",
    "link": "`tokens/` holds relative links into the folder `tokens` beside this one: move both together.",
    "none": "Token files and sidecars lie in the folder `tokens` beside this one: move both together.",
}


def describe(
    splits: Mapping[str, Sequence[Row]],
    statistics: Mapping[str, Mapping[str, Mapping[str, Any]]],
    info: CodecInfo,
    materialize: str,
    inline: bool,
) -> str:
    """Return the card: what the data set holds, how to load it, and the statistics of its conditioning."""
    title = f"{info.name} tokens with per-frame conditioning"
    parts = [
        _front_matter(title, splits, info),
        f"# {title}",
        _codec_text(info),
        _splits_table(splits, info),
        _loading_text(next(iter(splits)), info, inline, materialize),
        _windows_text(next(iter(splits))) if set(info.strides) == {1} else _codes_text(info),
        _statistics_text(statistics),
        "<!-- Written by voxlab (task=extract, stage build), which writes it anew when the data change. -->",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(title: str, splits: Mapping[str, Sequence[Row]], info: CodecInfo) -> str:
    total = sum(len(rows) for rows in splits.values())
    size = next((word for bound, word in _SIZES.items() if total < bound), "n>10M")
    lines = ["---", f"pretty_name: {json.dumps(title)}", "tags:", "- audio", "- audio-tokens", f"- {info.name}"]
    lines += ["size_categories:", f"- {size}", "configs:", "- config_name: default", "  data_files:"]
    for name in splits:
        lines += [f"  - split: {json.dumps(name)}", f"    path: {json.dumps(f'{name}/data-*.arrow')}"]
    return "\n".join([*lines, "---"])


def _codec_text(info: CodecInfo) -> str:
    licence = _LICENCES.get(info.name, "see where they come from")
    if info.weights_id.startswith("random"):
        licence = "none: they are random, so the tokens are for tests only"
    return (
        f"Codec: {info.name}, {info.num_codebooks} codebooks of {info.codebook_size} entries, {info.frame_rate:g} "
        f"frames/s at {info.sample_rate} Hz ({info.bitrate / 1000:g} kbit/s), weights `{info.weights_id}`. "
        f"Licence of the codec's published weights: {licence}. "
        "The licence of the data is that of the recordings they were made from."
    )


def _splits_table(splits: Mapping[str, Sequence[Row]], info: CodecInfo) -> str:
    lines = ["| split | items | frames | hours |", "|---|---|---|---|"]
    for name, rows in splits.items():
        seconds = sum(compute_duration(row.encoded["num_samples"], info.sample_rate) for row in rows)
        frames = sum(row.encoded["frames"] for row in rows)
        lines.append(f"| {name} | {len(rows)} | {frames} | {seconds / 3600:.3f} |")
    return "\n".join(lines)


def _loading_text(split: str, info: CodecInfo, inline: bool, materialize: str) -> str:
    columns = (
        "Columns: `id`, `audio` (token file, relative to this folder), `duration` in s, `frames`, `num_codebooks`, "
        "`num_samples`, `sample_rate`, `frame_rate`, `cond` (conditioning as NumPy array (frames, columns), or null), "
        "`cond_names` (its columns)"
    )
    if inline:
        codes = "codebooks x frames" if set(info.strides) == {1} else "a list of codes for each codebook"
        columns += f", `codes` ({codes}), `cond_values` (frames x columns)"
    return f"""\
{columns}, and the metadata of the recordings. {_LOCATIONS[materialize]}
Row n of the conditioning is the state in the middle of frame n.

```python
from datasets import load_from_disk

rows = load_from_disk("dataset")[{json.dumps(split)}]
```"""


def _windows_text(split: str) -> str:
    return f"""\
Windows for training, conditioning normalised by the statistics below:

```python
from torch.utils.data import DataLoader
from voxlab.data.tokens import TokenDataset, collate

windows = TokenDataset("dataset", split={json.dumps(split)}, window_frames=150, normalize="standard")
loader = DataLoader(windows, batch_size=32, collate_fn=collate)
```"""


def _codes_text(info: CodecInfo) -> str:
    return f"""\
The codebooks have different rates (a code every {", ".join(map(str, info.strides))} frames), so no matrix of codebooks
and frames holds the codes, and `voxlab.data.tokens.TokenDataset` does not read this data set. The codes of a recording:

```python
from pathlib import Path
from voxlab.codecs.token_files import read_tokens

codebooks = read_tokens(Path("dataset", rows[0]["audio"])).codes.codebooks  # one tensor (1, codes) for each
```"""


def _statistics_text(statistics: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    if not any(statistics.values()):
        return ""
    lines = ["Statistics over all frames of a split (`cond_stats.json`):", ""]
    lines += ["| split | column | unit | frames | mean | std | min | max |", "|---|---|---|---|---|---|---|---|"]
    for split, columns in statistics.items():
        for name, found in columns.items():
            numbers = " | ".join(f"{found[key]:.6g}" for key in ("mean", "std", "min", "max"))
            lines.append(f"| {split} | {_cell(name)} | {_cell(found['unit'])} | {found['count']} | {numbers} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
