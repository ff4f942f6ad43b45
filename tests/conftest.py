"""Shared by all tests: no network, no accounts, and composition of configurations in this process."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"

import hypothesis
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from voxlab import config

hypothesis.settings.register_profile("voxlab", deadline=None)  # the machine may be busy with other things
hypothesis.settings.load_profile("voxlab")

ROOT = Path(__file__).resolve().parents[1]
Compose = Callable[..., DictConfig]


@pytest.fixture
def composed() -> Iterator[Compose]:
    """Compose overrides as main.py does; `${hydra:...}` resolves to the last composition."""
    config.register()

    def from_overrides(*overrides: str) -> DictConfig:
        settings = compose("config", list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(settings)
        with open_dict(settings):
            del settings["hydra"]
        return settings

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield from_overrides
    HydraConfig.instance().cfg = None
