"""The one entry point of voxlab: python main.py task=<task> [group=option] [key=value]."""

from voxlab.cli import start

if __name__ == "__main__":
    start()  # a function with @hydra.main: shell completion looks for that text in this file
