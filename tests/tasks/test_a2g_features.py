"""Features of a store that are refused: of recordings that have changed, of other weights; and resumed runs."""

import copy
import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tasks import motion_runs
from voxlab.data.motion_store import StoredClip, open_motion_store
from voxlab.data.store_writer import begin_store, write_index
from voxlab.errors import UserError
from voxlab.features.base import FeatureInfo
from voxlab.features.mfcc import Mfcc
from voxlab.parallel import Ranks
from voxlab.storage import read_manifest
from voxlab.tasks.a2g.features import open_features, open_tracks
from voxlab.tasks.a2g.resumed import check_resumed
from voxlab.tasks.extract.feature_plan import settings_of
from voxlab.tasks.extract.features import extract_features


class Weighted(Mfcc):
    """Features that have weights by a name: of random ones, of a folder with one file, or of the hub."""

    def __init__(self, weights: str, random_seed: int = 0) -> None:
        super().__init__(num_coefficients=8, num_bins=32)
        self.weights, self.random_seed = weights, random_seed

    @property
    def info(self) -> FeatureInfo:
        path = Path(self.weights) / "weights"
        content = path.read_text() if path.is_file() else "0"
        identity = f"random:{self.random_seed}" if self.weights == "random" else f"sha256:{content}"
        return dataclasses.replace(super().info, weights_id=identity)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str, tuple[StoredClip, ...]]:
    folder = tmp_path_factory.mktemp("weighted")
    corpus: Any = motion_runs.sample(folder)
    out = str(folder / "out")
    place: dict[str, Any] = {"ranks": Ranks(), "run_dir": folder / "run"}
    extract_features(corpus, Weighted("owner/name"), out, verify="size", max_bad=0.0, dry_run=False, **place)
    return corpus, out, open_motion_store(corpus).clips


def test_features_of_recordings_that_have_changed_are_refused(
    extracted: tuple[Any, str, tuple[StoredClip, ...]], tmp_path: Path
) -> None:
    corpus, out, clips = extracted
    given: dict[str, Any] = {"key": "features", "extraction": "data=beat2 features=mfcc"}
    assert len(open_tracks(out, Weighted("owner/name"), corpus, clips, **given).tracks) == len(clips)
    touched, longer = (Path(shutil.copy2(clips[0].wav, tmp_path / name)) for name in ("touched.wav", "longer.wav"))
    os.utime(touched, ns=(0, clips[0].wav.stat().st_mtime_ns + 1))
    longer.write_bytes(longer.read_bytes() + b"more")
    for path, words in ((touched, "touched.wav: written at another time"), (longer, "bytes")):
        changed = [dataclasses.replace(clips[0], wav=path), *clips[1:]]
        with pytest.raises(UserError) as error:
            open_tracks(out, Weighted("owner/name"), corpus, changed, **given)
        assert words in str(error.value)
        assert f"1 of {len(clips)}" in str(error.value)
        assert f"python main.py task=extract data=beat2 features=mfcc out={out}" in str(error.value)


def test_weights_of_the_hub_are_known_by_the_name_that_they_were_asked_for(
    extracted: tuple[Any, str, tuple[StoredClip, ...]],
) -> None:
    corpus, out, _ = extracted
    given: dict[str, Any] = {"key": "features", "extraction": None}
    manifest = read_manifest(next(Path(out).glob("*/manifest.json")).parent)
    assert manifest is not None
    assert manifest["asked"] == {"weights": "owner/name"}
    open_features(out, Weighted("owner/name"), corpus, **given)
    with pytest.raises(UserError, match=r"features.weights=owner/name .*, now features.weights=owner/other"):
        open_features(out, Weighted("owner/other"), corpus, **given)
    with pytest.raises(UserError, match=r"features.weights_id: sha256:0 -> random:0"):
        open_features(out, Weighted("random"), corpus, **given)


def stored(out: Path, corpus: Any, features: Weighted) -> Path:
    folder = begin_store(out, settings_of(features, corpus), {}, {"weights": features.weights})
    write_index(folder, {}, {}, accepted=True)
    return folder


def test_random_weights_and_those_of_a_folder_are_known_by_what_they_are(tmp_path: Path) -> None:
    corpus: Any = motion_runs.sample(tmp_path)
    given: dict[str, Any] = {"key": "acoustic", "extraction": None}
    first, second = (stored(tmp_path / "out", corpus, Weighted("random", seed)) for seed in (0, 1))
    assert open_features(str(tmp_path / "out"), Weighted("random", 1), corpus, **given).folder == second
    with pytest.raises(UserError, match="weights_id: random:0 -> random:1"):
        open_features(str(first), Weighted("random", 1), corpus, **given)
    with pytest.raises(UserError, match=r"acoustic.weights=random .*, now acoustic.weights=owner/name"):
        open_features(str(first), Weighted("owner/name"), corpus, **given)
    with pytest.raises(UserError, match=r"2 stores in .* fit; choose one with stores.acoustic=DIR:"):
        open_features(str(tmp_path / "out"), Mfcc(num_coefficients=8, num_bins=32), corpus, **given)
    for name, content in (("a", "1"), ("moved", "1"), ("other", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(content)
    folder = stored(tmp_path / "files", corpus, Weighted(str(tmp_path / "a")))
    assert open_features(str(folder), Weighted(str(tmp_path / "moved")), corpus, **given).folder == folder
    with pytest.raises(UserError, match="weights_id: sha256:1 -> sha256:2"):
        open_features(str(folder), Weighted(str(tmp_path / "other")), corpus, **given)


def test_a_run_goes_on_with_the_numbers_that_it_began_with() -> None:
    def numbers() -> dict[str, Any]:
        return {"mean": torch.tensor([0.5, 2.0]), "std": torch.tensor([1.0, 3.0])}

    was: dict[str, Any] = {name: {} for name in ("codecs", "layout", "model")}
    was |= {"features": {"features": {"weights_id": "sha256:1"}}, "fps": 30, "trans": "velocity", "speakers": ["2"]}
    was |= {"words": ["a", "b"], "statistics": numbers(), "moments": {"features": numbers(), "acoustic": numbers()}}
    now = copy.deepcopy(was)
    now["statistics"]["mean"] += 1e-7
    check_resumed(was, now)
    now["moments"]["acoustic"]["std"][1] = 3.1
    with pytest.raises(UserError, match="std of acoustic: other numbers"):
        check_resumed(was, now)
    now["features"]["features"]["weights_id"] = "sha256:2"
    with pytest.raises(UserError, match=r"features.features.weights_id: sha256:1 -> sha256:2"):
        check_resumed(was, now)
    with pytest.raises(UserError, match="words: 2 of training -> 3"):
        check_resumed(was, {**was, "words": ["a", "b", "c"]})
