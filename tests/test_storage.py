import errno
import json
import os
import stat
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxlab import storage
from voxlab.errors import UserError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8),
    lambda inner: st.dictionaries(st.text(max_size=4), inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=10,
)


def write_half(path, error):
    with storage.atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise error


def test_atomic_write_replaces_the_whole_file(tmp_path):
    path = tmp_path / "deep" / "file.bin"
    storage.atomic_write_bytes(path, b"first")
    storage.atomic_write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "file.bin"
    storage.atomic_write_bytes(path, b"old")
    with pytest.raises(RuntimeError, match="half way"):
        write_half(path, RuntimeError("half way"))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_killed_writer_leaves_the_old_file_and_a_temporary_that_is_swept_up(tmp_path):
    path = tmp_path / "file.bin"
    storage.atomic_write_bytes(path, b"old")
    code = (
        "import os, signal, sys; from pathlib import Path; from voxlab import storage\n"
        "with storage.atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    assert storage.remove_temporaries([tmp_path]) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_files_of_others_are_not_swept_up(tmp_path):
    for name in ("thesis.tmp-2024", "notes.tmp-draft.txt"):
        (tmp_path / name).write_text("mine")
    assert storage.remove_temporaries([tmp_path, tmp_path / "absent"]) == 0


def test_a_file_in_place_of_a_folder_is_explained(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="can't write"):
        storage.atomic_write_bytes(tmp_path / "out" / "x", b"")


def test_full_disk_names_the_file_and_the_free_space(tmp_path):
    with pytest.raises(UserError, match=r"no room to write .*big\.bin.*GB free.*\n.*resumes"):
        write_half(tmp_path / "big.bin", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_as_a_user(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(UserError, match="can't write"):
        storage.atomic_write_bytes(tmp_path / "file", b"x")


def test_read_only_folder_is_explained(tmp_path):
    with pytest.raises(UserError, match=r"can't write .*Read-only file system"), storage.atomic_path(tmp_path / "f"):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_other_os_errors_stay_what_they_are(tmp_path):
    with pytest.raises(OSError, match="Input/output"), storage.atomic_path(tmp_path / "f"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_equal_json_is_not_rewritten(tmp_path):
    path = tmp_path / "a.json"
    storage.atomic_write_json(path, {"a": 1})
    os.utime(path, ns=(1, 1))
    storage.atomic_write_json(path, {"a": 1})
    assert path.stat().st_mtime_ns == 1
    storage.atomic_write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}


@given(st.dictionaries(st.text(max_size=4), json_values, max_size=4))
def test_fingerprint_ignores_key_order_and_sees_every_value(settings):
    reordered = dict(reversed(settings.items()))
    assert storage.fingerprint(settings) == storage.fingerprint(reordered)
    assert storage.fingerprint({**settings, "new key": 0}) != storage.fingerprint(settings)


def test_fingerprint_golden():
    assert storage.fingerprint({"b": [1, 2], "a": {"c": None}}) == "be8a48b71185040b"


def test_differences_names_nested_keys():
    old = {"codec": {"name": "mimi", "num_codebooks": 8}, "seed": 0}
    new = {"codec": {"name": "mimi", "num_codebooks": 32}, "seed": 0, "layout": "x"}
    assert storage.differences(old, new) == ["codec.num_codebooks: 8 -> 32", "layout: (absent) -> x"]


def test_other_settings_are_refused_with_both_values(tmp_path):
    storage.atomic_write_json(tmp_path / storage.MANIFEST, {"settings": {"seed": 0}})
    storage.refuse_other_settings(tmp_path, {"seed": 0})
    with pytest.raises(UserError, match=r"seed: 0 -> 1\n.*restart=true"):
        storage.refuse_other_settings(tmp_path, {"seed": 1})


@pytest.mark.parametrize("content", ["{", "[]", '{"other": 1}'])
def test_foreign_manifest_is_refused(tmp_path, content):
    (tmp_path / storage.MANIFEST).write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        storage.refuse_other_settings(tmp_path, {})
