"""`python -m voxlab` is the command `voxlab`."""

from voxlab.cli import start

if __name__ == "__main__":
    start()
