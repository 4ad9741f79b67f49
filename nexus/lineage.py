"""The run that another one starts from: its weights and, on request, its replay, optimizer and exploration."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nexus.core.checked import config_text
from nexus.core.errors import ConfigError, nearest
from nexus.core.figures import figures
from nexus.core.seeding import seed_of
from nexus.core.state import State, part, restore_tensors
from nexus.envs.statistics import Statistics
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.learner_state import tensors
from nexus.parts import Parts, require_shapes_of
from nexus.training.checkpoint import Checkpoint
from nexus.training.config import TrainConfig
from nexus.training.evaluation import Evaluation
from nexus.training.files import Mark
from nexus.training.narrowed import narrowed, narrowed_series
from nexus.training.run_folder import weights_of

__all__ = ["KEEP", "Origin", "kept_names", "lineage_text"]

KEEP = ("replay", "optimizer", "epsilon")
# Settings that decide what a stored transition is, and where it is stored.
OF_REPLAY = (
    "algorithm",
    "gamma",
    "n_step",
    "num_envs",
    "replay_capacity",
    "replay_store",
    "prioritized",
    "reward_clip",
    "potential",
    "her",
    "bonus",
    "frame_skip",
    "frame_stack",
)
FOLLOWS = {"target_network": "q_network", "averaged_network": "q_network"}  # what a network that is missing copies


@dataclass(frozen=True)
class Origin:
    """A run whose weights another run starts with.

    Args:
        run: its folder.
        about: its `run.json`.
        config: its settings.
        agent: its agent, with the weights to start with.
        statistics: the running statistics its wrappers scaled by, if any.
        steps: the step that the weights are of.
        mark: the checksum of the file with the weights, if it is the run's own.
        evaluation: how these weights scored, if they were evaluated.
        checkpoint: where the replay, the optimizer and the unit of rewards come from; None if none is needed.
        keep: what is kept besides the weights, of `KEEP`.
    """

    run: Path
    about: Mapping[str, Any]
    config: TrainConfig
    agent: DQNAgent
    statistics: Statistics
    steps: int
    mark: Mark | None
    evaluation: Evaluation | None
    checkpoint: Checkpoint | None
    keep: tuple[str, ...]

    @property
    def lineage(self) -> dict[str, Any]:
        """What `run.json` records: the run, its own lineage included."""
        return {
            "run": str(self.run.resolve()),
            "env": self.about.get("env"),
            "algorithm": self.config.algorithm,
            "steps": self.steps,
            "weights": None if self.mark is None else asdict(self.mark),
            "score": None if self.evaluation is None else self.evaluation.mean,
            "evaluation_seed": None if self.evaluation is None else self.evaluation.protocol.seed,
            "keep": list(self.keep),
            "from": self.about.get("from"),
        }

    def hand_over(self, parts: Parts) -> None:
        """Fill the parts of a run before its first step.

        Raises:
            ConfigError: the weights or what is kept do not fit this run.
            RunError: a file is missing or damaged.
        """
        if parts.config.normalize_rewards != self.config.normalize_rewards:
            there = "in units of their deviation" if self.config.normalize_rewards else "as they are"
            raise ConfigError(
                f"normalize_rewards = {parts.config.normalize_rewards}: {self.run} learned from rewards {there}, "
                "so its values have another unit; leave the setting as it was"
            )
        self._hand_over_weights(parts)
        self._hand_over_statistics(parts)
        if self.checkpoint is None:
            return
        read = self.checkpoint.read_state(limit=self.checkpoint.arrays.bytes)
        seen = parts.agent.state_shape, parts.state_dtype
        returns = parts.agent.learner.returns
        if returns is not None:
            unit = part(part(read, "agent"), "returns")
            returns.set_state({**unit, "carried": np.zeros(0)})  # no return is under way yet
        if "optimizer" in self.keep:
            self._hand_over_moments(parts, part(read, "agent"))
        if "replay" in self.keep:
            self._require_same(parts.config, OF_REPLAY, "replay")
            parts.replay.set_state(part(narrowed(read, *seen), "replay"))
            for series in narrowed_series(parts.series(), read, *seen):
                self.checkpoint.restore_series(series)

    def _hand_over_weights(self, parts: Parts) -> None:
        ours, theirs = parts.agent, self.agent
        require_shapes_of(theirs, ours.states.composition, ours.action_dim, parts.name, f"{self.run} was trained on")
        there = theirs.networks
        networks = {name: there.get(name, there.get(FOLLOWS.get(name, ""))) for name in ours.networks}
        given = weights_of({name: network for name, network in networks.items() if network is not None})
        wanted = weights_of(ours.networks)
        for name, value in wanted.items():
            if name not in given or given[name].shape != value.shape:
                what = "there is none" if name not in given else f"it is {list(given[name].shape)}"
                raise ConfigError(
                    f"{self.run} has another network: {name} is {list(value.shape)} here, {what} there; use its "
                    f"settings ({self._differing(parts.config)})"
                )
            with torch.no_grad():
                value.copy_(given[name])
        odd = [name for name in given if name not in wanted]
        if odd:
            raise ConfigError(
                f"{self.run} has another network: {odd[0]} is only there; use its settings "
                f"({self._differing(parts.config)})"
            )

    def _hand_over_statistics(self, parts: Parts) -> None:
        """Start the wrappers with the statistics of the run, where they are of the same form."""
        own = {name: values.shape[1:] for name, values in parts.stream.statistics().items()}
        if own and own == {name: values.shape for name, values in self.statistics.items()}:
            count = parts.config.num_envs
            everywhere = {name: np.stack([values] * count) for name, values in self.statistics.items()}
            parts.stream.reset(seed_of(parts.config.seed, "environments"), everywhere)

    def _hand_over_moments(self, parts: Parts, state: State) -> None:
        self._require_same(parts.config, ("optimizer",), "optimizer")
        moments = {name: value for name, value in tensors(parts.agent.learner).items() if name.startswith("optimizer.")}
        restore_tensors(moments, state)

    def _require_same(self, config: TrainConfig, names: tuple[str, ...], kept: str) -> None:
        """Raise `ConfigError` if settings differ on which something that is kept depends."""
        for name in names:
            here, there = getattr(config, name), getattr(self.config, name)
            if here != there:
                raise ConfigError(
                    f"keep = {kept}: needs the same {name} as {self.run}, which has {config_text(there)}, "
                    f"got {config_text(here)}"
                )

    def _differing(self, config: TrainConfig) -> str:
        """Return text on the settings of the network that differ."""
        ours, theirs = config.to_mapping(), self.config.to_mapping()
        names = ("algorithm", "torso", "hidden_dim", "hidden_layers", "layer_norm", "dueling", "noisy", "atoms")
        said = [f"{name} is {config_text(theirs[name])} there, {config_text(ours[name])} here" for name in names]
        return ", ".join(text for text, name in zip(said, names, strict=True) if ours[name] != theirs[name])


def kept_names(given: Any) -> tuple[str, ...]:
    """Return what to keep besides the weights, given as one text with commas between, or as a list.

    Raises:
        ConfigError: something else than a name of `KEEP` is in it.
    """
    names = [name for name in map(str.strip, given.split(",")) if name] if isinstance(given, str) else given
    try:
        names = tuple(names)
    except TypeError:
        names = (names,)
    for name in names:
        if name not in KEEP:
            raise ConfigError(f"keep = {config_text(name)}: needs any of {', '.join(KEEP)}{nearest(str(name), KEEP)}")
    return tuple(name for name in KEEP if name in names)


def lineage_text(lineage: Any) -> str | None:
    """Return one line on where a run started, of its `run.json`; None if it has no such entry that can be read."""
    match lineage:
        case {"run": str(run), "env": str(env), "steps": int(steps), "keep": list(keep)}:
            score = lineage.get("score")
            scored = f", which scored {figures(score)[0]}" if isinstance(score, int | float) else ""
            kept = "".join(f", {name}" for name in keep)
            return f"the weights{kept} of {run}: {env}, step {steps:,}{scored}"
    return None
