"""The one entry point of voxlab: python main.py task=<task> [group=option] [key=value]."""

from typing import Any

import hydra
from omegaconf import DictConfig

from voxlab import config

config.register()


# Spelled out as `hydra.main`, because shell completion looks for that text in this file.
@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(settings: DictConfig) -> Any:
    """Run the chosen task; nothing heavy is imported before this point."""
    from voxlab.run import execute

    return execute(settings)


if __name__ == "__main__":
    config.launch(main)
