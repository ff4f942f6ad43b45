import pytest

from tests.tasks import a2g_runs
from tests.tiny_models import write_tiny_mimi, write_tiny_snac


@pytest.fixture(scope="session")
def tiny_snac(tmp_path_factory):
    return write_tiny_snac(tmp_path_factory.mktemp("models") / "snac")


@pytest.fixture(scope="session")
def tiny_mimi(tmp_path_factory):
    return write_tiny_mimi(tmp_path_factory.mktemp("models") / "mimi")


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> a2g_runs.Made:
    """What runs of task=a2g start from, not to be changed; they add codes of tokenizers to its store."""
    return a2g_runs.make(tmp_path_factory.mktemp("a2g"))
