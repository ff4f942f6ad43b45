"""The record that Hydra leaves of how a run was launched."""

from pathlib import Path


def launch(run_dir: Path, mode: str) -> None:
    """Make the folder of a run that was started alone (RUN) or as a job of a sweep (MULTIRUN)."""
    (run_dir / ".hydra").mkdir(parents=True)
    (run_dir / ".hydra" / "hydra.yaml").write_text(f"hydra:\n  help:\n    mode: x\n  mode: {mode}\n")
