"""The command line: main.py, `voxlab` and `python -m voxlab` all start here.

Importing this module makes schemas, resolvers and recipes known, also in the processes of a launcher.
"""

from typing import Any

import hydra
from omegaconf import DictConfig

from voxlab import config

config.register()


@hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="config")
def main(settings: DictConfig) -> Any:
    """Run the chosen task; nothing heavy is imported before this point."""
    from voxlab.run import execute

    return execute(settings)


def start() -> None:
    """Run the words of the command line and end the process."""
    config.launch(main)
