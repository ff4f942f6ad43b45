"""The check behind `encode.verify`: token files read back, compared with a fresh encoding, and decoded."""

import random
from collections.abc import Sequence
from typing import Any

import torch

from voxlab.codecs import token_files
from voxlab.codecs.base import single
from voxlab.data.names import inflected
from voxlab.parallel import gather
from voxlab.tasks.extract.encode_work import Input, Job, load

# Batches round differently from single items, so that a code may flip where two entries are equally near: below one in
# 10,000 by all measurements. A wrong file differs nearly everywhere.
_MIN_EQUAL = 0.999


def verify_tokens(job: Job, written: Sequence[Input], count: int) -> tuple[dict[str, str], dict[str, Any]]:
    """Check a seeded sample of token files; called by all ranks.

    Args:
        job: how they were written; its codec is loaded.
        written: the items to draw from, in the same order on all ranks.
        count: size of the sample.

    Returns:
        id -> "verify_mismatch: ..." of the files that are wrong, and a line for the summary.
    """
    chosen = random.Random(job.stage.seed).sample(written, min(count, len(written)))
    mine = [(source.item.id, *_verify(job, source)) for source in chosen[job.stage.ranks.rank :: job.stage.ranks.world]]
    results = [result for part in gather(job.stage.ranks, mine) for result in part]
    equal, total = sum(result[2] for result in results), sum(result[3] for result in results)
    share = f"{equal / total:.4%} of {total} codes equal" if total else "nothing to compare"
    wrong = {key: f"verify_mismatch: {reason}" for key, reason, _, _ in results if reason}
    return wrong, {"verified": f"{inflected('{} token [file|files]', len(results))}, {len(wrong)} wrong, {share}"}


def _verify(job: Job, source: Input) -> tuple[str | None, int, int]:
    """Return what is wrong with a token file, and how many of its codes equal a fresh encoding, of how many."""
    clip = load(source, job.codec.info)
    if clip.wav is None:
        return f"the audio cannot be read any more: {clip.error}", 0, 0
    try:
        file = token_files.read_tokens(job.target(source.item.id), job.lm)
        wav, lengths = job.codec.decode(file.codes, seeds=[0])
    except (OSError, ValueError) as error:
        return str(error), 0, 0
    num_samples = clip.wav.shape[-1]
    fresh = single(job.codec.encode(clip.wav[None], torch.tensor([num_samples])), 0).codebooks
    shapes = [tuple(book.shape) for book in fresh]
    if shapes != [tuple(book.shape) for book in file.codes.codebooks]:
        return f"codes of shapes {[tuple(b.shape) for b in file.codes.codebooks]}, needs {shapes}", 0, 0
    equal = sum(int((a == b).sum()) for a, b in zip(fresh, file.codes.codebooks, strict=True))
    total = sum(book.numel() for book in fresh)
    if equal < _MIN_EQUAL * total:
        return f"{equal} of {total} codes equal a fresh encoding", equal, total
    if int(lengths[0]) != num_samples or not bool(torch.isfinite(wav).all()):
        return f"decodes to {int(lengths[0])} samples, needs {num_samples} finite ones", equal, total
    return None, equal, total
