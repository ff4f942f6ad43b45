import hashlib
import os

import pytest
import torch

from voxlab.codecs import runtime, weights
from voxlab.errors import UserError


def test_resolves_a_folder_with_optional_files(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"a")
    assert weights.resolve(str(tmp_path), ["a.bin"], ["b.json"], codec="x") == {"a.bin": tmp_path / "a.bin"}
    (tmp_path / "b.json").write_bytes(b"b")
    assert list(weights.resolve(str(tmp_path), ["a.bin"], ["b.json"], codec="x")) == ["a.bin", "b.json"]


def test_missing_file_names_file_place_and_key(tmp_path):
    (tmp_path / "other.txt").write_text("")
    with pytest.raises(UserError, match=r"(?s)a\.bin not found.*other\.txt.*codec\.weights="):
        weights.resolve(str(tmp_path), ["a.bin"], codec="x")


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "a/b/c", "plainword", "~/no/such", "x/y.safetensors"])
def test_missing_paths_never_reach_the_hub(path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match="does not exist"):
        weights.resolve(path, ["a.bin"], codec="x")


def test_unreachable_hub_is_a_user_error(monkeypatch):
    def offline(repo, name, **options):
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(
        UserError, match=r"(?s)a\.bin not found for weights 'owner/model'.*and on the hub.*without network"
    ):
        weights.resolve("owner/model", ["a.bin"], codec="x")


def test_hub_files_come_from_the_cache_and_optional_ones_may_lack(tmp_path, monkeypatch):
    def cached(repo, name, **options):
        if name == "b.json":
            raise FileNotFoundError(name)
        return str(tmp_path / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", cached)
    assert weights.resolve("owner/model", ["a.bin"], ["b.json"], codec="x") == {"a.bin": tmp_path / "a.bin"}


def test_id_is_the_hash_of_the_bytes_and_sees_changes(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"one")
    assert weights.weights_id({"a.bin": file}) == "sha256:" + hashlib.sha256(b"one").hexdigest()[:16]
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert weights.weights_id({"a.bin": file}) == "sha256:" + hashlib.sha256(b"two").hexdigest()[:16]


def test_id_of_several_files_depends_on_each(tmp_path):
    files = {name: tmp_path / name for name in ("a", "b")}
    for name, file in files.items():
        file.write_text(name)
    before = weights.weights_id(files)
    assert before == weights.weights_id(dict(reversed(files.items())))
    files["b"].write_text("changed")
    assert weights.weights_id(files) != before


def test_missing_package_says_what_to_type():
    with pytest.raises(UserError, match=r"codec x needs the package nosuchpackage.*pip install 'voxlab\[e\]'"):
        runtime.package_version("nosuchpackage", "x", extra="e")


def test_missing_compiler_says_what_to_type(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match=r"(?s)compile=true needs a C\+\+ compiler.*codec\.compile=false"):
        runtime.compile_function(len, "x")


def test_unknown_dtype():
    with pytest.raises(UserError, match="dtype='int8' is unknown; allowed: float32"):
        runtime.check_dtype("int8", "x")


def test_exact_inference_restores_the_settings_of_cuda():
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    cudnn.allow_tf32, matmul.allow_tf32 = True, True
    with runtime.exact_inference(torch.device("cuda"), torch.float32):
        assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic) == (False, False, True)
        assert not torch.is_grad_enabled()
    assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic) == (True, True, False)
    matmul.allow_tf32 = False
    assert torch.is_grad_enabled()
