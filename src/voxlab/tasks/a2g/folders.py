"""Metrics of two folders of motion files, whatever wrote them: `python main.py task=a2g stage=evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlab.errors import UserError
from voxlab.motion.files import read_motion
from voxlab.motion.kinematics import joint_positions
from voxlab.motion.parts import Layout
from voxlab.motion.representation import to_frames
from voxlab.motion.skeleton import Skeleton
from voxlab.motion.smplx_model import BodyModel
from voxlab.motion.statistics import Statistics, compute_statistics
from voxlab.tasks.a2g.baselines import with_baselines
from voxlab.tasks.a2g.evaluate import Pair, evaluate_methods
from voxlab.tasks.a2g.fgd import TrainReference, emage_net, mean_speeds, raw_net, read_mean_speeds
from voxlab.tasks.a2g.protocols import Metrics

PREDICTED = "predicted"
PREFIXES = ("res_", "gt_")  # that other tools put before the name of a clip
_WAVES = "wave16k"  # of BEAT2, beside its folder of motion
_SHOWN = 5


@dataclass(frozen=True)
class PairFiles:
    """The files of one clip.

    Attributes:
        id: of the clip.
        predicted: motion that is measured.
        reference: recorded motion.
        wav: recording; None where there is none.
    """

    id: str
    predicted: Path
    reference: Path
    wav: Path | None


def evaluate_folders(
    predicted: Path,
    reference: Path,
    *,
    settings: Metrics,
    skeleton: Skeleton,
    layout: Layout,
    wavs: Path | None = None,
    statistics: Statistics | None = None,
    body: BodyModel | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure the clips of a folder, and the baselines, against the clips of the same names of another.

    Args:
        predicted: folder of .npz in the form of BEAT2; "res_" and "gt_" before a name don't matter.
        reference: the same; may hold more clips.
        settings: protocol and the rest; there is no fgd_ae, which needs a motion store.
        skeleton: gives positions of joints.
        layout: parts of the body.
        wavs: folder of recordings; None looks in `reference` and in wave16k beside it. Clips may lack theirs.
        statistics: of a train split; None: of the reference clips, which the record then says.
        body: for vertices of the face; None: without.

    Returns:
        method -> record as of `evaluate.evaluate`, first that of `PREDICTED`.

    Raises:
        UserError: see `find_pairs`; or a file is bad.
    """
    files = find_pairs(predicted, reference, wavs)
    truths = [read_motion(pair.reference, fps=None) for pair in files]
    found = statistics or compute_statistics(map(to_frames, truths), record={"fps": truths[0].fps, "trans": "velocity"})
    pairs = [
        Pair(pair.id, read_motion(pair.predicted, fps=None), truth, pair.wav)
        for pair, truth in zip(files, truths, strict=True)
    ]
    methods = with_baselines(PREDICTED, pairs, found)
    if settings.mean_speeds:
        train = TrainReference(read_mean_speeds(Path(settings.mean_speeds)), "file")
    else:
        train = TrainReference(
            mean_speeds((joint_positions(motion, skeleton), motion.fps) for motion in truths), "references"
        )
    nets = [raw_net(found)] + ([emage_net(Path(settings.fgd_emage))] if settings.fgd_emage else [])
    records = evaluate_methods(
        methods,
        settings=settings,
        skeleton=skeleton,
        layout=layout,
        statistics=found,
        nets=nets,
        train=train,
        body=body,
    )
    told = {
        "statistics": "given" if statistics else "of the reference clips",
        "not_predicted": len(_list_motions(reference, "reference")) - len(files),
    }
    return {name: {**record, "about": {**record["about"], **told}} for name, record in records.items()}


def find_pairs(predicted: Path, reference: Path, wavs: Path | None = None) -> list[PairFiles]:
    """Return the files of each clip in `predicted`, sorted by clip; arguments as in `evaluate_folders`.

    Raises:
        UserError: a folder is missing or has no motion, a clip has no reference, or `wavs` has the recording of none.
    """
    own, others = _list_motions(predicted, "predicted"), _list_motions(reference, "reference")
    if missing := sorted(set(own) - set(others)):
        raise UserError(
            f"reference={reference} lacks {len(missing)} of the {len(own)} clips in predicted={predicted}: "
            f"{', '.join(missing[:_SHOWN])}. It has {', '.join(sorted(others)[:_SHOWN])}, ..."
        )
    if wavs is not None and not wavs.is_dir():
        raise UserError(f"audio={wavs}: no such folder. Give the folder of the clips' recordings, <clip>.wav, or null.")
    folders = [wavs] if wavs else [reference, reference.parent / _WAVES]
    pairs = [
        PairFiles(clip, own[clip], others[clip], _find_wav(clip, others[clip].stem, folders)) for clip in sorted(own)
    ]
    if wavs is not None and not any(pair.wav for pair in pairs):
        raise UserError(
            f"audio={wavs} has no recording of the clips in predicted={predicted}: "
            f"{', '.join(f'{pair.id}.wav' for pair in pairs[:_SHOWN])} ... are not there."
        )
    return pairs


def _list_motions(folder: Path, key: str) -> dict[str, Path]:
    """Return clip -> file."""
    if not folder.is_dir():
        raise UserError(f"{key}={folder}: no such folder. Give a folder of .npz motion files.")
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.npz")):
        clip = path.stem
        for prefix in PREFIXES:
            clip = clip.removeprefix(prefix)
        if clip in found:
            raise UserError(f"{key}={folder}: {found[clip].name} and {path.name} are of one clip. Keep one of them.")
        found[clip] = path
    if not found:
        raise UserError(f"{key}={folder}: no .npz motion files there.")
    return found


def _find_wav(clip: str, stem: str, folders: list[Path]) -> Path | None:
    places = [folder / f"{name}.wav" for folder in folders for name in (clip, stem)]
    return next((place for place in places if place.is_file()), None)
