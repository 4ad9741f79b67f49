"""`nexus evaluate RUN`."""

import json
from dataclasses import dataclass
from typing import Annotated

import tyro

from nexus.cli.here import look_here
from nexus.cli.parsing import parse
from nexus.core.checked import Keywords
from nexus.core.errors import ConfigError
from nexus.core.figures import figures
from nexus.core.importable import ImportNames

__all__ = ["run"]


@dataclass(frozen=True)
class EvaluateCommand:
    """Play full episodes with a trained agent and report mean, spread and interval."""

    run: Annotated[str, tyro.conf.Positional]
    """A run's folder."""
    checkpoint: str | None = None
    """best, latest, or the steps of a checkpoint; none for the weights at the end of the run."""
    device: str | None = None
    """cpu, cuda, cuda:1 or mps; none for the training device, or the CPU if that is not available here."""
    env: str | None = None
    """A different environment from the run's."""
    env_kwargs: Keywords | None = None
    """Arguments of the environment, such as is_slippery=False; none for those of the training."""
    wrappers: ImportNames | None = None
    """Wrappers around the environment, as module:Wrapper,module:function; as in training if omitted."""
    episodes: int | None = None
    """Episodes to play; none for 100, or the number in an Atari game's protocol."""
    epsilon: float | None = None
    """Probability of a random action, independent of training; none for 0, or the protocol's ε."""
    seed: int = 0
    """Seed of the environments."""
    max_steps: int | None = None
    """Steps after which an episode is cut off; none for the training's setting."""
    json: bool = False
    """Print the result as JSON, with every return."""

    def __post_init__(self) -> None:
        if self.episodes is not None and self.episodes < 1:
            raise ConfigError(f"episodes = {self.episodes}: needs at least 1")
        if self.max_steps is not None and self.max_steps < 1:
            raise ConfigError(f"max_steps = {self.max_steps}: needs at least 1")
        if self.epsilon is not None and not 0 <= self.epsilon <= 1:
            raise ConfigError(f"epsilon = {self.epsilon}: needs a probability in [0, 1]")


def run(arguments: list[str]) -> int:
    """Evaluate and print."""
    command = parse(EvaluateCommand, arguments, "nexus evaluate")
    look_here(command.env, command.run, command.wrappers)
    from nexus.api import evaluate
    from nexus.cli.progress import EvaluationView

    with EvaluationView() as view:
        result = evaluate(
            command.run,
            command.env,
            command.episodes,
            epsilon=command.epsilon,
            seed=command.seed,
            max_steps=command.max_steps,
            env_kwargs=command.env_kwargs,
            wrappers=command.wrappers,
            checkpoint=command.checkpoint,
            device=command.device,
            listener=view,
        )
    if command.json:
        print(json.dumps(result.to_mapping()))
        return 0
    mean, std, low, high = figures(result.mean, result.std, result.low, result.high, least=2)
    print(f"mean return      {mean}")
    print(f"std              {std}")
    print(f"95 % interval    {low} to {high} (of the mean, bootstrap)")
    print(f"episodes         {result.episodes}, mean length {result.mean_length:.1f} steps{result.said_of_cuts}")
    print(f"protocol         {result.protocol}")
    return 0
