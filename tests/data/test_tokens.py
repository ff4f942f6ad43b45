"""The training loader: every window against the arrays that were written, on files and on inline columns."""

import itertools
import json
import multiprocessing
import pickle
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from tests.tiny_models import write_tiny_encodec
from tests.token_corpus import ENCODEC, MIMI, SNAC, TokenCorpus
from voxlab.codecs.base import stack, unstack
from voxlab.codecs.encodec import Encodec
from voxlab.data.token_datamodule import TokenDataModule
from voxlab.data.token_store import FileStore, NestedColumn
from voxlab.data.tokens import TokenDataset, check_codec, collate, count_windows, decode_batch, draw_starts
from voxlab.errors import UserError
from voxlab.tasks.extract.build import build

LENGTHS = {"a": 50, "b/foo_pitch_64.00_amp_.75": 7, "c": 20, "d": 21}
INLINE = pytest.mark.parametrize("inline", [False, True], ids=["files", "inline"])


def make(folder, info=ENCODEC, *, inline=False, container="auto", materialize="hardlink", lengths=LENGTHS, **options):
    corpus = TokenCorpus(folder / "out", info, container)
    for name, frames in lengths.items():
        corpus.add(name, frames, **options)
    corpus.add("v", 9, split="validation")
    return built(corpus, inline=inline, materialize=materialize)


def built(corpus, *, inline=False, materialize="hardlink"):
    build(
        corpus.stage(),
        info=corpus.info,
        container=corpus.container,
        materialize=materialize,
        inline=inline,
        push_to_hub=None,
    )
    return corpus


def codes_of(corpus, name):
    return stack(corpus.codes[name])[0]


def check_item(corpus, item, window=None):
    """An item is what was written, from its start on, and zero past the end."""
    codes, cond = codes_of(corpus, item["id"]), torch.from_numpy(corpus.values[item["id"]]).float()
    width = codes.shape[1] if window is None else window
    stop = min(item["start"] + width, codes.shape[1])
    count = stop - item["start"]
    assert (item["codes"].dtype, item["cond"].dtype, item["mask"].dtype) == (torch.int64, torch.float32, torch.bool)
    assert item["codes"].shape == (corpus.info.num_codebooks, width)
    assert item["cond"].shape == (width, cond.shape[1])
    assert item["codes"][:, :count].equal(codes[:, item["start"] : stop])
    assert item["cond"][:count].equal(cond[item["start"] : stop])
    assert item["mask"].tolist() == [True] * count + [False] * (width - count)
    assert not item["codes"][:, count:].any()
    assert not item["cond"][count:].any()


# ---- windows -------------------------------------------------------------------------------------------------------


@INLINE
@pytest.mark.parametrize("container", ["ecdc", "safetensors", "torch"])
def test_whole_recordings(tmp_path, container, inline):
    corpus = make(tmp_path, container=container, inline=inline)
    dataset = TokenDataset(corpus.out / "dataset")
    assert (dataset.columns, dataset.info) == (("pitch", "gain"), ENCODEC)
    assert [item["id"] for item in dataset] == sorted(LENGTHS)
    assert [item["index"] for item in dataset] == [0, 1, 2, 3]
    for item in dataset:
        assert item["start"] == 0
        check_item(corpus, item)


@INLINE
@pytest.mark.parametrize("materialize", ["link", "copy", "none"])
def test_every_way_of_holding_the_files_after_a_move(tmp_path, materialize, inline):
    corpus = make(tmp_path, MIMI, inline=inline, materialize=materialize)
    corpus.out = corpus.out.rename(tmp_path / "moved")
    for item in TokenDataset(corpus.out / "dataset"):
        check_item(corpus, item)


@INLINE
@pytest.mark.parametrize(("window", "hop"), [(8, 8), (8, 3), (20, 1), (100, 50), (1, 1)])
def test_sequential_windows_cover_every_frame(tmp_path, window, hop, inline):
    corpus = make(tmp_path, inline=inline)
    dataset = TokenDataset(corpus.out / "dataset", window_frames=window, hop_frames=hop)
    seen = {name: set() for name in LENGTHS}
    for item in dataset:
        check_item(corpus, item, window)
        assert item["start"] % hop == 0
        seen[item["id"]] |= set(range(item["start"], item["start"] + int(item["mask"].sum())))
    assert seen == {name: set(range(frames)) for name, frames in LENGTHS.items()}
    if window == hop:
        assert sum(int(item["mask"].sum()) for item in dataset) == sum(LENGTHS.values())


@INLINE
def test_random_windows(tmp_path, inline):
    corpus = make(tmp_path, inline=inline)
    dataset = TokenDataset(corpus.out / "dataset", window_frames=8)
    assert len(dataset) == sum(-(-frames // 8) for frames in LENGTHS.values())
    starts = {name: set() for name in LENGTHS}
    for epoch in range(120):
        dataset.set_epoch(epoch)
        for item in dataset:
            starts[item["id"]].add(item["start"])
        check_item(corpus, dataset[epoch % len(dataset)], 8)
    assert starts == {name: set(range(max(frames - 8, 0) + 1)) for name, frames in LENGTHS.items()}


def test_random_windows_depend_on_seed_epoch_and_index_alone(tmp_path):
    root = make(tmp_path).out / "dataset"

    def starts(epoch, **options):
        dataset = TokenDataset(root, window_frames=4, **options)
        dataset.set_epoch(epoch)
        return [dataset[index]["start"] for index in reversed(range(len(dataset)))]

    assert starts(3) == starts(3)
    assert len({tuple(starts(epoch, seed=seed)) for epoch, seed in itertools.product(range(3), range(3))}) == 9


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.integers(1, 15),
    st.one_of(st.none(), st.integers(1, 15)),
    st.integers(0, 5),
)
@settings(max_examples=200, deadline=None)
def test_plan_of_windows(frames, window, hop, epoch):
    """Starts against a slow and obvious loop; recordings of any lengths."""
    if hop is not None and hop > window:
        return
    lengths = np.array(frames)
    counts = count_windows(lengths, window, hop)
    rows = np.repeat(np.arange(len(frames)), counts)
    starts = draw_starts(lengths, rows, window, hop, (0, epoch))
    if hop is None:
        assert counts.tolist() == [-(-length // window) for length in frames]
        assert all(0 <= start <= max(frames[row] - window, 0) for row, start in zip(rows, starts, strict=True))
        return
    expected = []
    for row, length in enumerate(frames):
        start = 0
        while True:
            expected.append((row, start))
            if start + window >= length:
                break
            start += hop
    assert list(zip(rows.tolist(), starts.tolist(), strict=True)) == expected


# ---- conditioning --------------------------------------------------------------------------------------------------


@INLINE
def test_columns_are_chosen_by_name_in_order(tmp_path, inline):
    corpus = TokenCorpus(tmp_path / "out").add("a", 9, columns=("x", "y", "z")).add("b", 5, columns=("z", "x"))
    built(corpus, inline=inline)
    dataset = TokenDataset(corpus.out / "dataset", columns=["z", "x"])
    assert dataset.columns == ("z", "x")
    assert dataset[0]["cond"].equal(torch.from_numpy(corpus.values["a"][:, [2, 0]]).float())
    assert dataset[1]["cond"].equal(torch.from_numpy(corpus.values["b"]).float())
    found = (
        r"(?s)different .*a: \['x', 'y', 'z'\].*b: \['z', 'x'\].*columns=\['x', 'z'\], which all have, or let the prod"
    )
    with pytest.raises(UserError, match=found):
        TokenDataset(corpus.out / "dataset")
    with pytest.raises(UserError, match="no conditioning column y in b; it has z, x"):
        TokenDataset(corpus.out / "dataset", columns=["y"])


@INLINE
def test_no_conditioning(tmp_path, inline):
    corpus = TokenCorpus(tmp_path / "out").add("a", 9, columns=None).add("b", 5, columns=()).add("c", 5)
    built(corpus, inline=inline)
    items = list(TokenDataset(corpus.out / "dataset", columns=[], normalize="standard"))
    assert [tuple(item["cond"].shape) for item in items] == [(9, 0), (5, 0), (5, 0)]
    with pytest.raises(UserError, match=r"All have none in common: type columns=\[\] for none"):
        TokenDataset(corpus.out / "dataset")
    with pytest.raises(UserError, match="no conditioning column pitch in a; it has none"):
        TokenDataset(corpus.out / "dataset", columns=["pitch"])


@INLINE
def test_normalisation_by_the_statistics_of_a_split(tmp_path, inline):
    corpus = make(tmp_path, inline=inline)
    frames = np.concatenate([corpus.values[name] for name in LENGTHS]).astype(np.float64)
    mean, std, low, high = frames.mean(0), frames.std(0), frames.min(0), frames.max(0)
    for split, names in {"train": sorted(LENGTHS), "validation": ["v"]}.items():
        standard = TokenDataset(corpus.out / "dataset", split, normalize="standard")
        minmax = TokenDataset(corpus.out / "dataset", split, normalize="minmax", columns=["gain"])
        for index, name in enumerate(names):
            values = corpus.values[name].astype(np.float64)
            np.testing.assert_allclose(standard[index]["cond"], (values - mean) / std, atol=1e-6)
            np.testing.assert_allclose(minmax[index]["cond"], ((values - low) / (high - low))[:, 1:], atol=1e-6)
    own = TokenDataset(corpus.out / "dataset", "validation", normalize="minmax", stats_split="validation")[0]["cond"]
    assert (float(own.min()), float(own.max())) == (0.0, 1.0)


def test_padding_stays_zero_and_constant_columns_become_zero(tmp_path):
    corpus = make(tmp_path)
    path = corpus.out / "dataset" / "cond_stats.json"
    stats = json.loads(path.read_text())
    stats["splits"]["train"]["gain"] |= {"std": 0.0, "max": stats["splits"]["train"]["gain"]["min"]}
    path.write_text(json.dumps(stats))
    for normalize in ("standard", "minmax"):
        item = TokenDataset(corpus.out / "dataset", "validation", window_frames=12, normalize=normalize)[0]
        assert not item["cond"][9:].any()
        assert not item["cond"][:, 1].any()
        assert item["cond"][:9, 0].any()


# ---- batches -------------------------------------------------------------------------------------------------------


def test_collate_pads_to_the_longest(tmp_path):
    corpus = make(tmp_path)
    dataset = TokenDataset(corpus.out / "dataset")
    batch = collate([dataset[0], dataset[1], dataset[3]])
    assert batch["codes"].shape == (3, 4, 50)
    assert batch["cond"].shape == (3, 50, 2)
    assert batch["lengths"].tolist() == [50, 7, 21]
    assert batch["index"].tolist() == [0, 1, 3]
    assert batch["start"].tolist() == [0, 0, 0]
    assert batch["id"] == ["a", "b/foo_pitch_64.00_amp_.75", "d"]
    for n, length in enumerate([50, 7, 21]):
        item = {key: value[n] for key, value in batch.items()}
        cut = {"codes": item["codes"][:, :length], "cond": item["cond"][:length], "mask": item["mask"][:length]}
        assert item["mask"].tolist() == [True] * length + [False] * (50 - length)
        assert not item["codes"][:, length:].any()
        assert not item["cond"][length:].any()
        check_item(corpus, item | cut)


@INLINE
@pytest.mark.parametrize("window", [None, 8])
def test_fetching_together_equals_one_by_one(tmp_path, window, inline):
    dataset = TokenDataset(make(tmp_path, inline=inline).out / "dataset", window_frames=window, normalize="standard")
    order = [3, 0, 2, 1]
    for together, alone in zip(dataset.__getitems__(order), [dataset[index] for index in order], strict=True):
        assert together.keys() == alone.keys()
        for key, value in alone.items():
            assert torch.equal(together[key], value) if isinstance(value, torch.Tensor) else together[key] == value


@pytest.mark.parametrize(("method", "inline"), [("fork", False), ("fork", True), ("spawn", True)])
def test_workers_read_the_same_and_follow_the_epoch(tmp_path, method, inline):
    dataset = TokenDataset(make(tmp_path, inline=inline).out / "dataset", window_frames=8)
    context = multiprocessing.get_context(method)
    workers = DataLoader(
        dataset, 3, collate_fn=collate, num_workers=1, persistent_workers=True, multiprocessing_context=context
    )
    plain = DataLoader(dataset, 3, collate_fn=collate)
    for epoch in range(2):
        dataset.set_epoch(epoch)
        for ours, theirs in zip(workers, plain, strict=True):
            assert all(torch.equal(ours[key], theirs[key]) for key in ("codes", "cond", "mask", "start"))


@INLINE
def test_pickling_carries_no_data(tmp_path, inline):
    corpus = make(tmp_path, inline=inline, lengths={f"{n}": 2000 for n in range(10)})
    dataset = TokenDataset(corpus.out / "dataset")
    dataset[0]
    data = pickle.dumps(dataset)
    assert len(data) < 5_000
    check_item(corpus, pickle.loads(data)[3])


def test_files_are_read_by_the_window(tmp_path, monkeypatch):
    corpus = make(tmp_path, lengths={"a": 2000})
    dataset = TokenDataset(corpus.out / "dataset", window_frames=4, hop_frames=4)
    dataset[0]
    import os

    sizes = []
    plain = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, place: sizes.append(size) or plain(file, size, place))
    check_item(corpus, dataset[200], 4)
    assert 4 * 2 * 2 in sizes
    assert max(sizes) <= 4 * 4 * 2


def test_caches_stay_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("voxlab.data.token_store._MAX_CACHED", 2)
    corpus = make(tmp_path)
    dataset = TokenDataset(corpus.out / "dataset")
    for _, item in itertools.product(range(2), dataset):
        check_item(corpus, item)
    assert isinstance(dataset._store, FileStore)
    assert len(dataset._store._headers) <= 2
    assert len(dataset._store._layouts) <= 2


@given(
    st.lists(st.lists(st.one_of(st.none(), st.tuples(st.integers(1, 4), st.integers(0, 5))), max_size=4), min_size=1),
    st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_nested_column(chunks, cut):
    """Any chunks, nulls and slices, against pyarrow's own lists."""
    kind = pa.list_(pa.list_(pa.int16()))
    counter = itertools.count()
    rows = [
        [None if shape is None else [[next(counter) for _ in range(shape[1])] for _ in range(shape[0])] for shape in c]
        for c in chunks
    ]
    column = pa.chunked_array([pa.array(part, kind).slice(min(cut, len(part))) for part in rows], kind)
    ours = NestedColumn(column)
    for row, expected in enumerate(column.to_pylist()):
        assert ours[row].tolist() == (expected or [])


# ---- audio ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encodec(tmp_path_factory):
    folder = write_tiny_encodec(tmp_path_factory.mktemp("models") / "encodec")
    return Encodec(weights=str(folder), bandwidth=3.0)


def test_decoding_a_batch_equals_decoding_the_windows(tmp_path, encodec):
    corpus = make(tmp_path, encodec.info)
    dataset = TokenDataset(corpus.out / "dataset")
    check_codec(encodec.info, dataset.info)
    wav, lengths = decode_batch(collate([dataset[0], dataset[1]]), encodec)
    assert lengths.tolist() == [50 * 320, 7 * 320]
    for n, item in enumerate([dataset[0], dataset[1]]):
        alone, _ = encodec.decode(unstack(item["codes"][None], torch.tensor([item["codes"].shape[1]])))
        assert torch.allclose(wav[n, :, : lengths[n]], alone[0], atol=1e-5)
        assert not wav[n, :, lengths[n] :].any()


def test_another_codec_is_refused(encodec):
    with pytest.raises(UserError, match="num_codebooks: 8 -> 4"):
        check_codec(encodec.info, replace(encodec.info, num_codebooks=8))
    with pytest.raises(UserError, match="weights_id: random:1 -> "):
        check_codec(encodec.info, replace(encodec.info, weights_id="random:1"))
    with pytest.raises(UserError, match="lack loudness factors"):
        check_codec(encodec.info, replace(encodec.info, has_scales=True))


# ---- Lightning -----------------------------------------------------------------------------------------------------


class Recorder(LightningModule):
    """Writes down what it gets."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_seen, self.val_seen = [], []

    def training_step(self, batch, _):
        self.train_seen.append((self.current_epoch, batch["id"], batch["start"].tolist()))
        self.last = batch
        return self.weight * batch["cond"].sum()

    def validation_step(self, batch, _):
        self.val_seen += list(zip(batch["id"], batch["start"].tolist(), strict=True))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


def fit(module, data, folder, **options):
    Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        **options,
    ).fit(module, datamodule=data)
    return module


@pytest.mark.parametrize("num_workers", [0, 1])
def test_data_module_draws_anew_each_epoch_and_alike_each_run(tmp_path, num_workers):
    root = make(tmp_path, inline=True).out / "dataset"

    def run():
        data = TokenDataModule(
            root=root, window_frames=8, batch_size=4, val_split="validation", num_workers=num_workers
        )
        return fit(Recorder(), data, tmp_path)

    first, second = run(), run()
    assert first.train_seen == second.train_seen
    epochs = [[seen[1:] for seen in first.train_seen if seen[0] == epoch] for epoch in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    for epoch in epochs:
        names = sorted(name for ids, _ in epoch for name in ids)
        assert names == sorted(name for name, frames in LENGTHS.items() for _ in range(-(-frames // 8)))
    assert first.val_seen == [("v", 0), ("v", 8)] * 3


def test_data_module_adds_audio(tmp_path, encodec):
    root = make(tmp_path, encodec.info).out / "dataset"
    module = fit(Recorder(), TokenDataModule(root=root, window_frames=8, batch_size=3, codec=encodec), tmp_path)
    assert module.last["wav"].shape == (len(module.last["id"]), 1, 8 * 320)
    assert module.last["wav_lengths"].tolist() == [320 * length for length in module.last["lengths"].tolist()]
    other = Encodec(weights=encodec.weights, bandwidth=6.0)
    with pytest.raises(UserError, match="num_codebooks: 4 -> 8"):
        TokenDataModule(root=root, window_frames=8, codec=other).setup()


# ---- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "has no split 'test'; it has train, validation"),
        ({"window_frames": 0}, "window_frames=0: give 1 or more"),
        ({"hop_frames": 3}, "hop_frames=3 with window_frames=None"),
        ({"window_frames": 4, "hop_frames": 5}, "hop_frames=5 with window_frames=4"),
        ({"normalize": "zscore"}, "normalize='zscore': choose standard, minmax"),
        ({"normalize": "minmax", "stats_split": "test"}, "no statistics of pitch, gain in the split 'test'"),
        ({"columns": ["loudness"]}, "no conditioning column loudness in a; it has pitch, gain"),
    ],
)
def test_wrong_arguments(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        TokenDataset(make(tmp_path).out / "dataset", **options)


def test_not_a_data_set(tmp_path):
    with pytest.raises(UserError, match=r"(?s)is not a token data set: codec.json.*task=extract"):
        TokenDataset(tmp_path)


def test_codebooks_of_different_rates_are_refused(tmp_path):
    corpus = TokenCorpus(tmp_path / "out", SNAC).add("a", 24)
    built(corpus)
    with pytest.raises(UserError, match=r"snac, whose codebooks have different rates \(strides \(4, 2, 1\)\)"):
        TokenDataset(corpus.out / "dataset", window_frames=8)


def test_files_that_are_gone_are_named(tmp_path):
    corpus = make(tmp_path)
    (corpus.out / "dataset/tokens/a.ecdc").unlink()
    (corpus.out / "dataset/tokens/c.cond.npy").write_bytes(b"\x93NUMPY")
    dataset = TokenDataset(corpus.out / "dataset")
    with pytest.raises(UserError, match=r"can't read .*a\.ecdc.*"):
        dataset[0]
    with pytest.raises(UserError, match=r"can't read the frames 0 to 20 of .*c\.cond\.npy"):
        dataset[2]
