"""Videos of motion: whatever keeps one from being drawn is told, and costs nothing but the video."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from voxlab.motion.clip import Motion
from voxlab.motion.skeleton import Skeleton, load_skeleton
from voxlab.tasks.a2g.settings import Body

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """Whose body is measured and drawn, and how.

    Attributes:
        body: settings.
        render: "stick", "mesh" or "none".
    """

    body: Body
    render: str

    @cached_property
    def skeleton(self) -> Skeleton:
        """Where the joints are."""
        return load_skeleton(self.body.skeleton, self.body.path)

    @cached_property
    def mesh(self) -> Any:
        """The body model, for vertices; None where it isn't chosen."""
        from voxlab.motion.smplx_model import load_body

        return load_body(self.body.path) if self.body.skeleton == "smplx" and self.body.path else None

    def draw(
        self, path: Path, motions: Sequence[tuple[str, Motion]], wav: Path | None, wav_start: float = 0.0
    ) -> list[Path]:
        """Write a video of motions side by side, with sound.

        Returns:
            the files; none where render=none, or where drawing failed, which is logged.
        """
        if self.render == "none":
            return []
        try:
            if self.render == "mesh":
                from voxlab.motion.mesh_video import render_mesh

                return render_mesh(path, motions, self.mesh, wav=wav, wav_start=wav_start)
            from voxlab.motion.stick_video import render_video

            return render_video(path, motions, self.skeleton, wav=wav, wav_start=wav_start)
        except Exception as error:  # a picture is never worth an evaluation
            log.warning("no video %s: %s", path, error)
            return []
