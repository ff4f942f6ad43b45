"""Training on a built token data set: windows of codes with their conditioning, as a map-style Dataset.

`TokenDataset` reads what `task=extract` built (folder `dataset`); `collate` makes batches; `TokenDataModule` in
token_datamodule.py wraps both for Lightning.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.utils.data import Dataset

from voxlab.codecs.base import Codec, CodecInfo, pad_rows, unstack
from voxlab.data.token_store import TokenStore, open_store
from voxlab.errors import UserError

NORMALIZE = ("standard", "minmax")
_SEPARATOR = "\x1f"  # between names of columns; not a character that a name holds


class TokenDataset(Dataset[dict[str, Any]]):
    """Windows of the recordings of one split.

    An item is a dict of
        codes: (K, N) int64, one row a codebook; 0 past the end of the recording.
        cond: (N, D) float32, row n belongs to frame n, columns as in `columns`; 0 past the end.
        mask: (N,) bool, True where there is a frame.
        start: int, first frame of the window in its recording.
        id: str, name of the recording.
        index: int, number of the window.
    N is `window_frames`, or the length of the recording.

    Args:
        root: folder that the stage build wrote.
        split: name of the split.
        window_frames: frames of a window; None: whole recordings.
        hop_frames: frames from one window to the next, at most `window_frames`: the windows then cover every frame.
            None: random windows, as many a recording as it takes to cover it, drawn from (seed, epoch).
        columns: names of the conditioning columns wanted, in this order; None: all, which every recording must have.
        normalize: "standard": (x - mean) / std; "minmax": to 0..1 between smallest and largest value, by the
            statistics over all frames of `stats_split`; constant columns become 0. None: as stored.
        stats_split: split whose statistics normalise this one.
        seed: of the random windows.

    Raises:
        UserError: no such data set, split or column, or the codec has codebooks of different rates.
    """

    def __init__(
        self,
        root: Path | str,
        split: str = "train",
        *,
        window_frames: int | None = None,
        hop_frames: int | None = None,
        columns: Sequence[str] | None = None,
        normalize: str | None = None,
        stats_split: str = "train",
        seed: int = 0,
    ) -> None:
        _check_window(window_frames, hop_frames)
        self.root, self.split, self.seed = Path(root), split, seed
        self.window_frames, self.hop_frames = window_frames, hop_frames
        self.info = _read_info(self.root)
        self._frames = self._table["frames"].to_numpy()
        self.columns, self._group, self._picks = _pick_columns(self._table, columns)
        self._norm = _normalization(self.root, stats_split, self.columns, normalize)
        counts = count_windows(self._frames, window_frames, hop_frames)
        self._rows = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        # Workers that live on see the epoch that the main process sets.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._drawn: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))

    @cached_property
    def _table(self) -> pa.Table:
        return _open_table(self.root, self.split)

    @cached_property
    def _store(self) -> TokenStore:
        return open_store(self.root, self._table)

    def __getstate__(self) -> dict[str, Any]:
        # Memory maps are opened anew by a process that gets this object; pickled, they would be copies.
        return {key: value for key, value in self.__dict__.items() if key not in ("_table", "_store")}

    def __len__(self) -> int:
        return len(self._rows)

    def set_epoch(self, epoch: int) -> None:
        """Draw other random windows; to be called before an epoch, from the main process."""
        self._epoch.fill_(epoch)

    @property
    def _starts(self) -> np.ndarray:
        epoch = int(self._epoch)
        if self._drawn[0] != epoch:
            starts = draw_starts(self._frames, self._rows, self.window_frames, self.hop_frames, (self.seed, epoch))
            self._drawn = (epoch, starts)
        return self._drawn[1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Read several windows; PyTorch's DataLoader fetches a whole batch through this. They share their memory."""
        rows, starts = self._rows[indices], self._starts[indices]
        widths = self._frames[rows] if self.window_frames is None else np.full(len(rows), self.window_frames)
        lengths = np.minimum(widths, self._frames[rows] - starts)
        codes = np.zeros((len(rows), self.info.num_codebooks, widths.max()), np.int64)
        cond = np.zeros((len(rows), widths.max(), len(self.columns)), np.float32)
        for n, (row, start, length) in enumerate(zip(rows.tolist(), starts.tolist(), lengths.tolist(), strict=True)):
            codes[n, :, :length] = self._store.codes(row, start, start + length)
            if self.columns:
                cond[n, :length] = self._store.cond(row, start, start + length)[:, self._picks[self._group[row]]]
        mask = np.arange(widths.max()) < lengths[:, None]
        if self._norm is not None:
            shift, scale = self._norm
            cond = ((cond - shift) * scale * mask[..., None]).astype(np.float32)
        tensors = (torch.from_numpy(codes), torch.from_numpy(cond), torch.from_numpy(mask))
        return [self._item(tensors, n, int(index), rows, starts, widths) for n, index in enumerate(indices)]

    def _item(self, tensors: tuple[Tensor, ...], n: int, index: int, *numbers: np.ndarray) -> dict[str, Any]:
        (codes, cond, mask), (row, start, width) = tensors, (int(array[n]) for array in numbers)
        return {
            "codes": codes[n, :, :width],
            "cond": cond[n, :width],
            "mask": mask[n, :width],
            "start": start,
            "id": self._table["id"][row].as_py(),
            "index": index,
        }


def count_windows(frames: np.ndarray, window_frames: int | None, hop_frames: int | None) -> np.ndarray:
    """Return how many windows cover each recording: (R,) frames -> (R,) counts of 1 or more."""
    if window_frames is None:
        return np.ones(len(frames), np.int64)
    hop = window_frames if hop_frames is None else hop_frames
    return 1 + np.maximum(-(-(frames - window_frames) // hop), 0)


def draw_starts(
    frames: np.ndarray, rows: np.ndarray, window_frames: int | None, hop_frames: int | None, seed: Sequence[int]
) -> np.ndarray:
    """Return the first frame of every window.

    Args:
        frames: (R,) lengths of the recordings.
        rows: (W,) recording of each window, ascending.
        window_frames: frames of a window; None: whole recordings.
        hop_frames: frames between windows; None: drawn uniformly from those that lie in the recording.
        seed: of the drawing; for one seed, the same windows on every machine.
    """
    if window_frames is None or hop_frames is not None:
        return (np.arange(len(rows)) - np.searchsorted(rows, rows)) * (hop_frames or 0)
    free = np.maximum(frames - window_frames, 0)[rows]
    return np.random.default_rng(seed).integers(0, free + 1)


def collate(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join items to a batch, padded to the longest: for `DataLoader(dataset, collate_fn=collate)`.

    Returns:
        codes (B, K, N) int64, cond (B, N, D) float32, mask (B, N) bool (True: a frame), lengths (B,) int64 frames,
        start (B,) int64, index (B,) int64, id: list of B str.
    """
    mask = _join([item["mask"] for item in items])
    return {
        "codes": _join([item["codes"] for item in items]),
        "cond": torch.nn.utils.rnn.pad_sequence([item["cond"] for item in items], batch_first=True),
        "mask": mask,
        "lengths": mask.sum(1),
        "start": torch.tensor([item["start"] for item in items]),
        "index": torch.tensor([item["index"] for item in items]),
        "id": [item["id"] for item in items],
    }


def _join(rows: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(rows)) if len({row.shape for row in rows}) == 1 else pad_rows(rows)


def decode_batch(batch: Mapping[str, Any], codec: Codec) -> tuple[Tensor, Tensor]:
    """Decode the windows of a batch, on the codec's device.

    A window is decoded by itself: its first frames sound as after silence, not as in the recording.

    Args:
        batch: from `collate`.
        codec: the codec that made the codes; `check_codec` tells.

    Returns:
        wav (B, C, T) float32, zero past each end, and (B,) lengths in samples.
    """
    return codec.decode(unstack(batch["codes"].cpu(), batch["lengths"].cpu()))


def check_codec(codec: CodecInfo, info: CodecInfo) -> None:
    """Stop when a codec can't decode the windows of a data set.

    Args:
        codec: of the codec.
        info: `TokenDataset.info`.

    Raises:
        UserError: it is another one (names what differs), or its codes need loudness factors, which windows lack.
    """
    if info.has_scales:
        raise UserError(f"windows of {info.name} at {info.sample_rate} Hz can't be decoded: they lack loudness factors")
    found = {key: (getattr(info, key), value) for key, value in vars(codec).items()}
    wrong = [f"{key}: {ours} -> {theirs}" for key, (ours, theirs) in found.items() if ours != theirs]
    if wrong:
        raise UserError("the codec is not the one that made the codes of the data set:\n  " + "\n  ".join(wrong))


# ---- what the folder holds -----------------------------------------------------------------------------------------


def _read_json(root: Path, name: str) -> dict[str, Any]:
    try:
        return json.loads((root / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{root} is not a token data set: {name}: {error}\n"
            "Give the folder `dataset` that python main.py task=extract writes (stages=[build])."
        ) from None


def _read_info(root: Path) -> CodecInfo:
    facts = _read_json(root, "codec.json")
    facts["strides"] = tuple(facts["strides"])
    info = CodecInfo(**{key: value for key, value in facts.items() if key != "format_version"})
    if set(info.strides) != {1}:
        raise UserError(
            f"{root} holds codes of {info.name}, whose codebooks have different rates (strides {info.strides}): no "
            "matrix of codes and frames holds them. Use a flat codec, or voxlab.codecs.token_files.read_tokens."
        )
    return info


def _open_table(root: Path, split: str) -> pa.Table:
    import datasets

    splits = _read_json(root, "dataset_dict.json")["splits"]
    if split not in splits:
        raise UserError(f"{root} has no split {split!r}; it has {', '.join(splits)}")
    return datasets.Dataset.load_from_disk(str(root / split)).data.table


def _check_window(window_frames: int | None, hop_frames: int | None) -> None:
    if window_frames is not None and window_frames < 1:
        raise UserError(f"window_frames={window_frames}: give 1 or more, or null for whole recordings.")
    if hop_frames is not None and (window_frames is None or not 1 <= hop_frames <= window_frames):
        raise UserError(
            f"hop_frames={hop_frames} with window_frames={window_frames}: give 1 to window_frames, so that no frame is "
            "left out, or null for random windows."
        )


def _pick_columns(
    table: pa.Table, columns: Sequence[str] | None
) -> tuple[tuple[str, ...], np.ndarray, list[np.ndarray | slice]]:
    """Return the names wanted; for each row the number of its set of columns; for each such set where they stand."""
    joined = pc.binary_join(table["cond_names"].combine_chunks(), _SEPARATOR)  # pyright: ignore
    encoded = joined.dictionary_encode()
    group = encoded.indices.to_numpy()
    sets = [tuple(text.split(_SEPARATOR)) if text else () for text in encoded.dictionary.to_pylist()]
    if columns is None and len({frozenset(names) for names in sets}) > 1:
        shown = "\n  ".join(f"{_example(table, group, n)}: {list(names)}" for n, names in enumerate(sets[:5]))
        common = [name for name in sets[0] if all(name in names for names in sets)]
        way = (
            f"Type columns={common}, which all have" if common else "All have none in common: type columns=[] for none"
        )
        raise UserError(
            f"the recordings have different conditioning columns:\n  {shown}\n{way}, or let the producers give all "
            "recordings the same columns (stages=[sidecars,build])."
        )
    wanted = tuple(columns) if columns is not None else (sets[0] if sets else ())
    for number, names in enumerate(sets):
        missing = [name for name in wanted if name not in names]
        if missing:
            raise UserError(
                f"no conditioning column {', '.join(missing)} in {_example(table, group, number)}; "
                f"it has {', '.join(names) or 'none'}."
            )
    return wanted, group, [_positions(names, wanted) for names in sets]


def _example(table: pa.Table, group: np.ndarray, number: int) -> str:
    return table["id"][int(np.argmax(group == number))].as_py()


def _positions(names: Sequence[str], wanted: Sequence[str]) -> np.ndarray | slice:
    return slice(None) if tuple(names) == tuple(wanted) else np.array([names.index(name) for name in wanted], np.intp)


def _normalization(
    root: Path, split: str, columns: Sequence[str], normalize: str | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (D,) float64 shift and factor; None to leave the values as they are."""
    if normalize is None:
        return None
    if normalize not in NORMALIZE:
        raise UserError(f"normalize={normalize!r}: choose {', '.join(NORMALIZE)} or null.")
    found = _read_json(root, "cond_stats.json")["splits"].get(split)
    missing = [name for name in columns if name not in (found or {})]
    if found is None or missing:
        raise UserError(
            f"{root / 'cond_stats.json'} has no statistics of {', '.join(missing) or 'conditioning'} in the split "
            f"{split!r}; choose another stats_split, or normalize=null."
        )
    low, spread = ("mean", "std") if normalize == "standard" else ("min", "max")
    shift = np.array([found[name][low] for name in columns])
    width = np.array([found[name][spread] for name in columns]) - (shift if normalize == "minmax" else 0)
    return shift, np.divide(1.0, width, out=np.zeros_like(width), where=width > 0)
