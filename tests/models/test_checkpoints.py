"""Checkpoints: what can't be read is said in words of our own, wherever one is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from voxlab.errors import UserError
from voxlab.models.checkpoints import load_checkpoint
from voxlab.models.gesture.motion_checkpoint import read_legacy
from voxlab.models.gesture.skeleton_encoder import load_skeleton_encoder
from voxlab.models.tokenizer import files
from voxlab.parallel import Ranks
from voxlab.tasks.checkpoints import read_checkpoint
from voxlab.tasks.trainer import fit_or_resume


class Lightning:
    """Stands in for the trainer: keeps what it is asked for."""

    def fit(self, *_: Any, ckpt_path: Path | None, **__: Any) -> None:
        self.started_from = ckpt_path


def resume(path: Path) -> Lightning:
    lightning = Lightning()
    fit_or_resume(lightning, None, None, path, Ranks())
    return lightning


READERS: dict[str, Callable[[Path], Any]] = {
    "tokenizer": files.describe,
    "legacy": lambda path: read_legacy(path, {"upper": 78}),
    "task": lambda path: read_checkpoint(path, "laughter"),
    "EMAGE": load_skeleton_encoder,
    "resume": resume,
}


def _text(path: Path) -> None:
    path.write_text("Not Found: 404\n")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    torch.save({"x": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def _code(path: Path) -> None:
    torch.save({"x": Path("/")}, path)


BAD = {
    _text: "it is no file of torch.save, or a damaged one",
    _empty: "it is empty",
    _cut: "it is cut off after 2000 bytes",
    _code: "it is damaged, or holds more than tensors and plain values, which is not loaded",
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("write", BAD)
def test_files_that_are_no_checkpoints(reader: str, write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    write(path)
    with pytest.raises(UserError) as error:
        READERS[reader](path)
    told = str(error.value)
    assert f"{path} can't be read as a checkpoint: {BAD[write]}." in told
    assert not any(word in told for word in ("weights_only", "WeightsUnpickler", "torch.load", "PytorchStream"))


def test_a_folder_or_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"key=\S+absent can't be read .*: No such file or directory\. Give it\.$"):
        load_checkpoint(tmp_path / "absent", key="key", wanted="Give it.")
    with pytest.raises(UserError, match="Is a directory"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("mmap", [True, False])
def test_both_formats_of_torch_are_read(tmp_path: Path, as_zip: bool, mmap: bool) -> None:
    torch.save({"x": torch.arange(3)}, tmp_path / "x", _use_new_zipfile_serialization=as_zip)
    assert load_checkpoint(tmp_path / "x", mmap=mmap)["x"].tolist() == [0, 1, 2]


def test_a_run_begins_or_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    assert resume(path).started_from is None
    torch.save({"x": 1}, path)
    assert resume(path).started_from == path
