"""Hidden states of Moshi for many episodes: 8 rows of continuous batching against loops over one episode at a time.

The obvious loop uses the moshi package: `mimi.encode` of both sides and `lm.forward_text`, whole episodes at once. All
give the same numbers: codes that differ (rounding ties of Mimi's quantiser) are counted, and so are frames whose states
differ by more than float16 rounding although the codes in the windows that they see don't. Tiny random weights on the
CPU; in turns, the best of some rounds counts.

.venv/bin/python benchmarks/moshi_features.py
.venv/bin/python benchmarks/moshi_features.py --full --device cuda --hours 4 --peak-tflops 790
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_TORCH_COMPILE", "1")

import numpy as np
import torch
import yaml

from voxlab.features.base import Recording
from voxlab.features.moshi import MoshiFeatures

CONF = Path(__file__).resolve().parents[1] / "conf" / "features"
HOP, FRAMES_PER_HOUR = 1920, 45_000
LAYERS, TOLERANCE = 2, 4e-3  # of moshi_tiny; float16 rounding of values up to 4
PREDECESSOR = 11.2  # seconds of one GPU per hour of audio, both sides encoded, in cold chunks of 210 s
Rows = dict[tuple[str, str], np.ndarray]  # key, features or codes


def make_features(name: str, device: str, **changes: Any) -> MoshiFeatures:
    settings = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    settings.pop("_target_")
    return MoshiFeatures(**(settings | changes)).to(device)


def make_episodes(frames: list[int]) -> list[Recording]:
    """Noise whose level changes every second, the longest first."""
    generator, episodes = torch.Generator().manual_seed(0), []
    for number, count in enumerate(sorted(frames, reverse=True)):
        level = torch.rand(count * HOP // 24_000 + 1, generator=generator).repeat_interleave(24_000)[: count * HOP]
        wav = 0.3 * level * torch.randn(1, count * HOP, generator=generator)
        episodes.append(Recording(str(number), count, lambda wav=wav: (None, wav)))
    return episodes


def run_ours(features: MoshiFeatures, episodes: list[Recording]) -> Rows:
    rows: dict[tuple[str, str], list[np.ndarray]] = {}
    for chunk in features.stream(episodes):
        rows.setdefault((chunk.key, chunk.name), []).append(chunk.values)
    return {key: np.concatenate(parts) for key, parts in rows.items()}


@torch.no_grad()
def run_package(features: MoshiFeatures, episodes: list[Recording]) -> Rows:
    """Run the moshi package the obvious way: its own encode and forward pass, episode by episode."""
    from moshi.models.lm_utils import _delay_sequence

    lm, mimi = features._lm.network, features._mimi
    rows, initial = {}, lm._get_initial_token()
    for episode in episodes:
        wav = episode.load()[1]
        agent, other = (mimi.encode(side[None])[0] for side in (torch.zeros_like(wav), wav))
        text = torch.full((1, agent.shape[1]), lm.text_padding_token_id)
        tokens = torch.cat([text, agent, other])
        delayed = _delay_sequence(lm.delays, tokens[None], initial)
        states, _ = lm.forward_text(torch.cat([initial, delayed], dim=2)[:, :, :-1])
        rows |= {(episode.key, "features"): states[0].half().numpy(), (episode.key, "codes"): tokens.T.numpy()}
    return rows


def compare_tiny(episodes: int, rounds: int) -> None:
    frames = [600 + 1400 * number // max(1, episodes - 1) for number in range(episodes)]
    recordings = make_episodes(frames)
    one, eight = (make_features("moshi_tiny", "cpu", batch_rows=rows) for rows in (1, 8))
    ways: dict[str, Callable[[], Rows]] = {
        "moshi package, one episode at a time": lambda: run_package(one, recordings),
        "voxlab, one row": lambda: run_ours(one, recordings),
        "voxlab, 8 rows": lambda: run_ours(eight, recordings),
    }
    best, results = dict.fromkeys(ways, float("inf")), {}
    for _ in range(rounds):
        for name, run in ways.items():
            started = time.perf_counter()
            results[name] = run()
            best[name] = min(best[name], time.perf_counter() - started)
    base = next(iter(ways))
    print(f"{episodes} episodes, {sum(frames)} frames, {torch.get_num_threads()} threads.\n")
    print("| | s per hour | speed | codes that differ | frames that differ |\n|---|---|---|---|---|")
    for name, seconds in best.items():
        codes, states = differences(results[name], results[base], one._lm.window)
        hour = seconds * FRAMES_PER_HOUR / sum(frames)
        print(f"| {name} | {hour:.1f} | {best[base] / seconds:.2f} | {codes} of {16 * sum(frames)} | {states} |")


def differences(ours: Rows, theirs: Rows, window: int) -> tuple[int, int]:
    """Count codes that differ, and frames that differ although the codes of the windows below them don't."""
    codes = states = 0
    for key in {key for key, _ in ours}:
        flipped = (ours[key, "codes"] != theirs[key, "codes"]).sum(1)
        touched = np.convolve(flipped, np.ones(1 + LAYERS * window))[: len(flipped)] > 0
        error = np.abs(ours[key, "features"].astype(np.float32) - theirs[key, "features"]).max(1)
        codes, states = codes + int(flipped.sum()), states + int(((error > TOLERANCE) & ~touched).sum())
    return codes, states


def measure_full(device: str, hours: float, rows: int, peak: float) -> None:
    """Time the published architecture with random weights, and hold it against the arithmetic it needs."""
    features = make_features("moshi", device, weights="random", batch_rows=rows)
    list(features.stream(make_episodes([250] * rows)))
    episodes = make_episodes([round(hours * FRAMES_PER_HOUR / rows)] * rows)
    started = time.perf_counter()
    run_ours(features, episodes)
    seconds = (time.perf_counter() - started) / hours
    network = features._lm.network
    weights = sum(parameter.numel() for parameter in network.transformer.parameters())
    layers, dim = len(network.transformer.layers), network.dim
    flops = FRAMES_PER_HOUR * (2 * weights + 4 * layers * dim * features._lm.window)
    floor = flops / (peak * 1e12)
    memory = torch.cuda.max_memory_allocated(device) / 1e9 if torch.device(device).type == "cuda" else 0.0
    print(f"{rows} rows, {hours:g} h: {seconds:.2f} s per hour of audio, {memory:.1f} GB at the peak")
    print(f"earlier project: {PREDECESSOR} s per hour: {PREDECESSOR / seconds:.1f} x")
    print(f"arithmetic of the language model: {flops / 1e15:.2f} PFLOP per hour, {floor:.2f} s at {peak:g} TFLOP/s")
    print(f"share of that limit: {floor / seconds:.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="published architecture, random bfloat16 weights")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--hours", type=float, default=4.0)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--peak-tflops", type=float, default=790.0)
    options = parser.parse_args()
    if options.full:
        measure_full(options.device, options.hours, options.rows, options.peak_tflops)
    else:
        compare_tiny(options.episodes, options.rounds)


if __name__ == "__main__":
    main()
