import pytest

from tests.tiny_models import write_tiny_mimi, write_tiny_snac


@pytest.fixture(scope="session")
def tiny_snac(tmp_path_factory):
    return write_tiny_snac(tmp_path_factory.mktemp("models") / "snac")


@pytest.fixture(scope="session")
def tiny_mimi(tmp_path_factory):
    return write_tiny_mimi(tmp_path_factory.mktemp("models") / "mimi")
