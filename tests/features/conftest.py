"""Shared by the tests of features: tiny models on disk, and no compilation in moshi."""

import os

os.environ.setdefault("NO_TORCH_COMPILE", "1")

from pathlib import Path

import pytest

from tests.tiny_models import write_tiny_mimi, write_tiny_moshi, write_tiny_wavlm


@pytest.fixture(scope="session")
def mimi_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_mimi(tmp_path_factory.mktemp("mimi"))


@pytest.fixture(scope="session")
def moshi_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_moshi(tmp_path_factory.mktemp("moshi"))


@pytest.fixture(scope="session")
def wavlm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_wavlm(tmp_path_factory.mktemp("wavlm"))
