"""How soon a torso can locate objects in Pong: plain and standardized images of several sizes.

    pip install -e ".[atari]" -c constraints.txt
    python -m benchmarks.seeing

No reward and no bootstrap: from four frames of random play a torso and one linear layer learn, with the squared error,
where the ball and the paddles are and how fast the ball is, as in the console's memory. The table reports the
error on the last fifth of the play, relative to the deviation: a constant prediction has 1. Frames are downscaled
by averaging areas.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.page import table_section
from benchmarks.record import median, record
from nexus.core import AgentConfig
from nexus.models.torsos import make_torso

BALL_X, BALL_Y, PADDLE, OPPONENT = 49, 54, 51, 50  # addresses in the console's memory
WHAT = ("ball x", "ball y", "own paddle", "opponent", "ball's speed, x", "ball's speed, y")
SKIP, BATCH = 4, 32
CASES: list[tuple[int, dict[str, Any]]] = [
    (84, {"torso": "nature_cnn"}),
    (84, {"torso": "nature_cnn", "standardize_images": True}),
    (84, {"torso": "nips_cnn"}),
    (84, {"torso": "nips_cnn", "standardize_images": True}),
    (44, {"torso": "nips_cnn"}),
    (44, {"torso": "nips_cnn", "standardize_images": True}),
]


def play(steps: int, sizes: set[int]) -> tuple[dict[int, Tensor], Tensor]:
    """Return frames of random play `[T, S, S]` by size, and the console's memory `[T, 128]`."""
    import ale_py
    from ale_py import roms

    game = ale_py.ALEInterface()
    game.setInt("random_seed", 1)
    game.setFloat("repeat_action_probability", 0.0)
    rom = roms.get_rom_path("pong")
    assert rom is not None
    game.loadROM(rom)
    rng, actions = np.random.default_rng(0), game.getMinimalActionSet()
    frames: dict[int, list[Tensor]] = {size: [] for size in sizes}
    memory = []
    for _ in range(steps):
        if game.game_over():
            game.reset_game()
        action = actions[rng.integers(len(actions))]
        shown = []
        for _ in range(SKIP):
            game.act(action)
            shown.append(game.getScreenGrayscale())
        screen = torch.from_numpy(np.maximum(*shown[-2:]))[None, None].float()
        for size, kept in frames.items():
            kept.append(F.interpolate(screen, size=(size, size), mode="area")[0, 0].round().byte())
        memory.append(torch.from_numpy(game.getRAM().astype(np.float32)))
    return {size: torch.stack(kept) for size, kept in frames.items()}, torch.stack(memory)


def targets_of(memory: Tensor) -> tuple[Tensor, Tensor]:
    """Return the steps at which the ball has been in play for two, and targets `[T, 6]` with deviation 1 over them."""
    places = memory[:, [BALL_X, BALL_Y, PADDLE, OPPONENT]]
    speed = places.diff(dim=0, prepend=places[:1])[:, :2]
    shown = (places[:, :2] > 0).all(1)  # between rallies there is no ball
    in_play = shown & shown.roll(1)
    in_play[:SKIP] = False  # a stack needs four frames
    steps = in_play.nonzero().flatten()
    targets = torch.cat([places, speed], 1)
    return steps, (targets - targets[steps].mean(0)) / targets[steps].std(0)


def errors(frames: Tensor, steps: Tensor, targets: Tensor, updates: int, seed: int, **settings: Any) -> list[float]:
    """Train one torso and return the error of each target, relative to its deviation."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    torso, features = make_torso(AgentConfig(precision="float32", **settings), (4, *frames.shape[1:]))
    network = nn.Sequential(torso, nn.Linear(features, len(WHAT)))
    optimizer = torch.optim.Adam(network.parameters(), lr=2.5e-4)
    last = len(steps) * 4 // 5

    def stacks(at: Tensor) -> Tensor:
        return torch.stack([frames[at - back] for back in (3, 2, 1, 0)], 1)

    for _ in range(updates):
        at = steps[rng.integers(last, size=BATCH)]
        loss = F.mse_loss(network(stacks(at)), targets[at])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        parts = [network(stacks(at)) - targets[at] for at in torch.split(steps[last:], 256)]
    found: list[float] = torch.cat(parts).square().mean(0).sqrt().tolist()
    return found


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    return table_section(
        "seeing",
        "What a torso sees",
        "Pong, no reward: a torso and a linear layer learn to read the positions of ball and paddles and the "
        "ball's speed from four frames of random play. Error on held-out play relative to the standard deviation "
        "(1 is a constant prediction) after {updates:,} updates of 32, learning rate 0.00025, medians of {seeds} "
        "seeds from 0 on.",
        ["torso", "pixels", "images", "ball x", "ball y", "own paddle", "opponent", "speed x", "speed y", "CPU s"],
    )


def main() -> None:
    """Train every case on every seed and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=1_000)
    parser.add_argument("--steps", type=int, default=9_000, help="steps of random play")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    frames, memory = play(options.steps, {size for size, _ in CASES})
    steps, targets = targets_of(memory)
    rows = []
    for size, settings in CASES:
        started = time.process_time()
        found = [
            errors(frames[size], steps, targets, options.updates, seed, **settings) for seed in range(options.seeds)
        ]
        rows.append(
            {
                "torso": settings["torso"],
                "pixels": f"{size} x {size}",
                "images": "standardized" if "standardize_images" in settings else "0 to 1",
                **{what: round(median(values), 2) for what, values in zip(WHAT, zip(*found, strict=True), strict=True)},
                "processor s": round((time.process_time() - started) / options.seeds, 1),
            }
        )
        print(rows[-1], flush=True)
    record("seeing", rows, updates=options.updates, steps=len(steps), seeds=options.seeds)


if __name__ == "__main__":
    main()
