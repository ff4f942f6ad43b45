import pytest

from tests.data.beat2_trees import FOLDER
from voxlab.data.sample.beat2 import write_sample


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """The sample corpus of BEAT2, not to be changed."""
    folder = tmp_path_factory.mktemp("beat2") / FOLDER
    write_sample(folder)
    return folder
