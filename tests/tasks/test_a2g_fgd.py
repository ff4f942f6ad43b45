"""The features of FGDs: their training, where they are kept, and the training-free ones against slow loops."""

import dataclasses
import os

import numpy as np
import pytest
import torch

from voxlab.data.beat2 import Beat2
from voxlab.data.motion_store import open_motion_store
from voxlab.errors import UserError
from voxlab.motion.files import read_motion, write_motion
from voxlab.motion.parts import FRAME_DIM, read_layout
from voxlab.motion.skeleton import UPPER_JOINTS
from voxlab.motion.statistics import compute_statistics
from voxlab.parallel import Ranks
from voxlab.tasks.a2g import fgd
from voxlab.tasks.a2g.fgd_training import encode_clip, load_net, obtain_net, train_net
from voxlab.tasks.a2g.protocols import FgdNet, Metrics
from voxlab.tasks.motion_statistics import train_statistics

TINY = FgdNet(width=16, dim=4, steps=40, batch_size=8, window=32, lr=1e-2)


def frames(seed: int, count: int) -> np.ndarray:
    """Return (T, 433) smooth frames."""
    t = np.arange(count)[:, None]
    generator = np.random.default_rng(seed)
    rates, phases = generator.uniform(0.05, 0.2, FRAME_DIM), generator.uniform(0, 6, FRAME_DIM)
    return np.sin(rates * t + phases).astype(np.float32)


@pytest.fixture(scope="module")
def clips():
    return [frames(seed, count) for seed, count in enumerate((80, 31, 50))]


@pytest.fixture(scope="module")
def statistics(clips):
    return compute_statistics(clips)


def test_training_is_deterministic_and_lowers_the_loss(clips, statistics):
    first, early = train_net(clips, statistics, dataclasses.replace(TINY, steps=1))
    again, loss = train_net(clips, statistics, TINY)
    same, _ = train_net(clips, statistics, TINY)
    assert loss < 0.9 * early
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name]), name
    assert not torch.equal(first.encoder[0].weight, again.encoder[0].weight)


def test_training_leaves_the_global_generator_alone(clips, statistics):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    train_net(clips, statistics, dataclasses.replace(TINY, steps=1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_net_is_trained_once_for_each_setting(clips, statistics, tmp_path, monkeypatch):
    network, identity = obtain_net(clips, statistics, TINY, tmp_path, "motion")
    path = tmp_path / "fgd" / f"{identity}.safetensors"
    written = path.read_bytes()
    monkeypatch.setattr("voxlab.tasks.a2g.fgd_training.train_net", lambda *_: pytest.fail("trained again"))
    again, same = obtain_net(clips, statistics, TINY, tmp_path, "motion")
    assert (same, path.read_bytes()) == (identity, written)
    np.testing.assert_array_equal(encode_clip(again, clips[0]), encode_clip(network, clips[0]))
    monkeypatch.undo()
    others = [dataclasses.replace(TINY, seed=1), dataclasses.replace(TINY, dim=3)]
    names = {obtain_net(clips, statistics, settings, tmp_path, "motion")[1] for settings in others}
    names.add(obtain_net(clips, statistics, TINY, tmp_path, "other motion")[1])
    names.add(obtain_net(clips, compute_statistics(clips[:2]), TINY, tmp_path, "motion")[1])
    assert len(names | {identity}) == 5


def test_other_motion_of_the_same_length_gets_a_net_of_its_own(tmp_path):
    corpus = Beat2(source="sample", root=str(tmp_path / "BEAT2"), store=str(tmp_path / "store"))
    store, settings = open_motion_store(corpus), Metrics(fgd=dataclasses.replace(TINY, steps=1))
    statistics = compute_statistics(clip.frames() for clip in store.split("test"))
    before, numbers = fgd.trained_net(store, statistics, settings).id, train_statistics(store, Ranks()).fingerprint
    path = store.split("train")[0].source.motion
    os.utime(path, ns=(1, 1))
    touched = open_motion_store(corpus)
    assert fgd.trained_net(touched, statistics, settings).id == before
    assert train_statistics(touched, Ranks()).fingerprint == numbers
    motion = read_motion(path)
    poses = motion.poses.copy()
    poses[3:6, 50] += 0.01
    write_motion(path, dataclasses.replace(motion, poses=poses))
    changed = open_motion_store(corpus)
    assert [clip.num_frames for clip in changed.clips] == [clip.num_frames for clip in store.clips]
    assert changed.fingerprint == store.fingerprint
    assert fgd.trained_net(changed, statistics, settings).id != before
    assert train_statistics(changed, Ranks()).fingerprint != numbers


def test_features_are_one_for_16_frames_and_none_for_a_short_clip(clips, statistics):
    network, _ = train_net(clips, statistics, dataclasses.replace(TINY, steps=1))
    assert encode_clip(network, clips[0]).shape == (5, 4)
    np.testing.assert_array_equal(encode_clip(network, clips[0][:79]), encode_clip(network, clips[0][:64]))
    assert encode_clip(network, clips[0][:15]).shape == (0, 4)


def test_clips_shorter_than_a_window_are_named(clips, statistics):
    with pytest.raises(UserError, match=r"metrics\.fgd\.window=96: no clip .*longest: 80"):
        train_net(clips, statistics, dataclasses.replace(TINY, window=96))


def test_a_damaged_file_says_to_delete_it(tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="Delete the file"):
        load_net(path)


def test_raw_features_are_means_over_each_16_frames(statistics):
    clip = frames(7, 40)
    part = read_layout("full421").part("upper")
    found = fgd.raw_net(statistics).features(clip)
    values = statistics.normalize(
        clip[:, [6 * joint + k for joint in UPPER_JOINTS for k in range(6)]], part, read_layout("full421")
    )
    assert found.shape == (24, 78 + 13)
    for start in (0, 11, 23):
        np.testing.assert_allclose(found[start, :78], values[start : start + 16].mean(0), atol=1e-5)
        for number in range(13):
            joint = values[:, 6 * number : 6 * number + 6]
            steps = [np.linalg.norm(joint[t + 1] - joint[t]) for t in range(start, start + 16)]
            assert found[start, 78 + number] == pytest.approx(np.mean(steps), abs=1e-5)
    assert fgd.raw_net(statistics).features(clip[:16]).shape == (0, 91)


def test_mean_speeds_are_over_all_frames_of_all_clips():
    slow, fast = np.zeros((10, 55, 3)), np.zeros((30, 55, 3))
    slow[..., 0], fast[..., 1] = 0.1 * np.arange(10)[:, None], 0.2 * np.arange(30)[:, None]
    np.testing.assert_allclose(fgd.mean_speeds([(slow, 30), (fast, 15)]), 3.0)
    np.testing.assert_allclose(fgd.mean_speeds([(slow, 10), (fast, 10)]), 0.25 * 1 + 0.75 * 2)
    np.testing.assert_allclose(fgd.mean_speeds([(slow, 30), (slow[:1], 30)]), 3.0)
    np.testing.assert_array_equal(fgd.mean_speeds([(slow[:1], 30)]), 0.0)


def test_a_file_of_mean_speeds_is_checked(tmp_path):
    path = tmp_path / "speeds.npy"
    np.save(path, np.full(55, 0.2, np.float32))
    np.testing.assert_allclose(fgd.read_mean_speeds(path), 0.2)
    np.save(path, np.zeros(54))
    with pytest.raises(UserError, match=r"metrics\.mean_speeds=.*an array \(54,\).*needed: \(55,\) positive"):
        fgd.read_mean_speeds(path)
    with pytest.raises(UserError, match="can't be read"):
        fgd.read_mean_speeds(tmp_path / "absent.npy")
