"""Bootstrapped DQN: many heads, each a sample of what Q might be, and one of them acts for a whole episode.

Osband et al. 2016, https://arxiv.org/abs/1602.04621; with random priors Osband, Aslanides & Cassirer 2018,
https://arxiv.org/abs/1806.03335. `docs/bootstrapped_dqn.md` lists every deviation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nexus.core import Batch, Outcome, QOutput
from nexus.core.errors import RunError
from nexus.core.state import State, restore_generator, value_from
from nexus.core.types import Array, Ints
from nexus.models.layers import MLPTorso, hold_frozen
from nexus.models.rl.dqn.dqn import GREEDY, Bootstrap, DQNNetwork, NextAction, huber, td_target, value_metrics
from nexus.ops.action_values import values_of_actions
from nexus.ops.hashing import hashed

__all__ = [
    "BlockLinear",
    "BlockNorm",
    "BootstrappedLoss",
    "HeadPerEpisode",
    "HeadWithPrior",
    "HeldRows",
    "TorsoWithPrior",
    "as_prior",
    "mean_of_heads",
    "stacked",
]

# --- networks ---


class BlockLinear(nn.Module):
    """K linear layers that share nothing: each has a block of the inputs and a block of the outputs.

    Args:
        layers: the K layers, all of one size; their weights are copied.
        heads_last: order the outputs as `[O, K]`, as a head does, rather than as blocks `[K, O]`.
    """

    def __init__(self, layers: Sequence[nn.Linear], heads_last: bool = False) -> None:
        super().__init__()
        self.blocks = len(layers)
        self.in_features, self.out_features = (self.blocks * size for size in reversed(layers[0].weight.shape))
        self.heads_last = heads_last
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]))  # [K, I, O]
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]).unsqueeze(1))  # [K, 1, O]

    def forward(self, features: Tensor) -> Tensor:
        """`[..., K * I] -> [..., K * O]`, or `[..., O * K]` with the heads last."""
        blocks = features.reshape(-1, self.blocks, self.weight.shape[1]).transpose(0, 1)  # [K, B, I]
        out = torch.baddbmm(self.bias, blocks, self.weight)  # [K, B, O]
        out = out.permute(1, 2, 0) if self.heads_last else out.transpose(0, 1)
        return out.reshape(*features.shape[:-1], -1)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, blocks={self.blocks}"


class BlockNorm(nn.Module):
    """K layer norms, each for its block of the features.

    Args:
        layers: the K layers, all of one size; their weights are copied.
    """

    def __init__(self, layers: Sequence[nn.LayerNorm]) -> None:
        super().__init__()
        self.eps = layers[0].eps
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))  # [K, H]
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))  # [K, H]

    def forward(self, features: Tensor) -> Tensor:
        """`[..., K * H] -> [..., K * H]`."""
        blocks = features.view(*features.shape[:-1], *self.weight.shape)  # [..., K, H]
        normal = F.layer_norm(blocks, self.weight.shape[1:], eps=self.eps)
        return torch.addcmul(self.bias, normal, self.weight).flatten(-2)


def stacked(torsos: Sequence[MLPTorso]) -> MLPTorso:
    """Return K torsos as one, `[..., *obs] -> [..., K * D]`, which read a state alike and share no weight.

    Args:
        torsos: alike but for their weights; the first one is used up.
    """
    whole = torsos[0]
    layers: list[nn.Module] = []
    for alike in zip(*[torso.layers for torso in torsos], strict=True):
        match alike[0]:
            case nn.Linear() if not layers:  # all read the same state, so that one product does
                layers.append(side_by_side(cast(Sequence[nn.Linear], alike)))
            case nn.Linear():
                layers.append(BlockLinear(cast(Sequence[nn.Linear], alike)))
            case nn.LayerNorm():
                layers.append(BlockNorm(cast(Sequence[nn.LayerNorm], alike)))
            case _:
                layers.append(alike[0])
    whole.layers = nn.Sequential(*layers)
    return whole


def side_by_side(layers: Sequence[nn.Linear]) -> nn.Linear:
    """Return layers with the same inputs as one layer, with their outputs one after another."""
    outputs, inputs = layers[0].weight.shape
    whole = nn.Linear(inputs, len(layers) * outputs)
    with torch.no_grad():
        whole.weight.copy_(torch.cat([layer.weight for layer in layers]))
        whole.bias.copy_(torch.cat([layer.bias for layer in layers]))
    return whole


def as_prior(torso: nn.Module, head: nn.Module) -> nn.Module:
    """Return a network `[..., *obs] -> [..., A, K]` with random weights that are never learned.

    Weights are drawn from a normal distribution cut off at two deviations of 1 / √inputs, biases are 0: bsuite's
    initialisation, about which its scale of 3 was chosen. torch's default is √3 times smaller in every layer.
    """
    prior = nn.Sequential(torso, head)
    for module in prior.modules():
        if isinstance(module, BlockLinear):
            randomize(module.weight, module.weight.shape[1], module.bias)
        elif isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            randomize(module.weight, module.weight[0].numel(), module.bias)
    hold_frozen(prior.requires_grad_(False))
    return prior


def randomize(weight: Tensor, inputs: int, bias: Tensor | None) -> None:
    """Draw weights of a layer with so many inputs, in place, and set the bias to 0."""
    deviation = 1 / sqrt(inputs)
    nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation)
    if bias is not None:
        nn.init.zeros_(bias)


class TorsoWithPrior(nn.Module):
    """A torso followed by a prior: the features, and what the prior adds to each action and head.

    Args:
        torso: `[..., *obs] -> [..., D]`.
        prior: `[..., *obs] -> [..., A, K]`, without parameters.
        scale: β, the factor of the prior.
    """

    def __init__(self, torso: nn.Module, prior: nn.Module, scale: float) -> None:
        super().__init__()
        self.prior = prior  # first, so that what runs last is learned
        self.torso = torso
        self.scale = scale

    def forward(self, states: Tensor) -> Tensor:
        """`[..., *obs] -> [..., A * K + D]`."""
        added = self.scale * self.prior(states)
        return torch.cat([added.flatten(-2), self.torso(states)], -1)


class HeadWithPrior(nn.Module):
    """The sum of a head and the prior that a `TorsoWithPrior` put in front of the features.

    Args:
        head: `[..., D] -> [..., A, K]`.
        action_dim: `A`.
        heads: `K`.
    """

    def __init__(self, head: nn.Module, action_dim: int, heads: int) -> None:
        super().__init__()
        self.head = head
        self.shape = (action_dim, heads)

    def forward(self, features: Tensor) -> Tensor:
        """`[..., A * K + D] -> [..., A, K]`."""
        size = self.shape[0] * self.shape[1]
        added = features[..., :size].reshape(*features.shape[:-1], *self.shape)
        values: Tensor = self.head(features[..., size:]) + added
        return values


def mean_of_heads(values: Tensor) -> QOutput:
    """`[B, A, K] -> [B, A]`: outside training the agent acts on the mean of its heads."""
    return QOutput(q_values=values.mean(-1), distribution=values)


# --- acting ---


class HeadPerEpisode:
    """The Q-values of one head for a whole episode, drawn where the episode begins, for each environment separately.

    A head that believes in a distant reward is followed all the way there, which noise at each step never does. Where
    no episode was said to begin, each call draws heads of its own.

    Args:
        heads: `K`.
        rng: source of the heads, of this part alone.
    """

    def __init__(self, heads: int, rng: np.random.Generator) -> None:
        self.heads = heads
        self.rng = rng
        self.chosen: Ints = np.zeros(0, np.int64)  # [E], the head that acts in each environment

    def begin(self, begins: Array) -> None:
        """Draw a head where `[E]` an episode begins."""
        if len(self.chosen) != len(begins):  # the first episodes
            self.chosen, begins = np.zeros(len(begins), np.int64), np.ones(len(begins), bool)
        self.chosen[begins] = self.draw(int(begins.sum()))

    def __call__(self, output: QOutput) -> Tensor:
        """`[E, A]`, of the head that acts in each environment."""
        values = output.distribution  # [E, A, K]
        chosen = self.chosen if len(self.chosen) == len(values) else self.draw(len(values))
        index = torch.from_numpy(chosen).to(values.device).view(-1, 1, 1).expand(-1, values.shape[1], 1)
        return values.gather(2, index).squeeze(2)

    def draw(self, count: int) -> Ints:
        """Return so many heads, all equally likely."""
        return self.rng.integers(self.heads, size=count)

    def get_state(self) -> State:
        """Return the acting heads `[E]`, and the generator."""
        return {"heads": self.chosen.copy(), "rng": self.rng.bit_generator.state}

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing, or there is no such head.
        """
        chosen = value_from(state, "heads", np.ndarray)
        if chosen.ndim != 1 or chosen.dtype != np.int64 or not ((chosen >= 0) & (chosen < self.heads)).all():
            raise RunError(f"acting heads {chosen.tolist()}: needs numbers from 0 to {self.heads - 1}")
        restore_generator(self.rng, state, "rng")
        self.chosen = chosen.copy()


# --- learning ---


class HeldRows(nn.Module):
    """Which heads learn from a transition, and the noise on its reward: the same as long as the replay holds it.

    Both follow from the row of the replay and a key, so nothing has to be stored with a transition. The transitions
    that follow one another in a row share them.

    Args:
        heads: `K`.
        probability: that a head learns from a transition.
        noise: deviation of the noise on rewards.
        rng: source of the key.
    """

    key: Tensor  # [] int64

    def __init__(self, heads: int, probability: float, noise: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.heads, self.probability, self.noise = heads, probability, noise
        self.register_buffer("key", torch.from_numpy(rng.integers(2**32, size=())))

    def learns(self, indices: Tensor) -> Tensor:
        """`[B] -> [B, K]` float32, 1 where a head learns from a row and 0 elsewhere."""
        return torch.lt(hashed(indices, self.heads, self.key), self.probability).float()

    def noisy(self, targets: Tensor, indices: Tensor) -> Tensor:
        """Return targets `[B, K]` with the noise of their rows `[B]`."""
        if not self.noise:
            return targets
        noise: Tensor = torch.special.ndtri(hashed(indices, self.heads, self.key + 1))
        return targets + self.noise * noise


@dataclass(frozen=True)
class Separately:
    """A network whose K heads answer separately: its output for B states has B * K rows, those of a state together.

    A head at a state is then what a network at a state is to any other loss, and the choice of the next action and the
    bootstrap need not know of heads.
    """

    network: DQNNetwork

    def output(self, states: Tensor) -> QOutput:
        """`[B, *obs]` to Q-values `[B * K, A]`."""
        q_values = self.network.output(states).distribution.transpose(1, 2).flatten(0, 1)
        return QOutput(q_values, q_values.unsqueeze(-1))


def for_heads(batch: Batch, heads: int) -> dict[str, Tensor]:
    """Return a batch in which all but the states comes once for each of K heads: `[B, ...] -> [B * K, ...]`."""
    return {
        name: values
        if name in ("states", "next_states")
        else values.unsqueeze(1).expand(-1, heads, *values.shape[1:]).flatten(0, 1)
        for name, values in batch.items()
    }


@dataclass(frozen=True)
class BootstrappedLoss:
    """The mean error of the heads, each against a target of its own: y_k = r + d · Q_k(s', a'_k; θ⁻).

    Args:
        of_error: loss from predictions and targets, `huber` or `squared`.
        bootstrap: a different reward and a different value of s' in y, for each head.
        rows: which heads learn from which transition; None for all from each.
    """

    of_error: Callable[[Tensor, Tensor], Tensor] = huber
    bootstrap: Bootstrap = GREEDY
    rows: HeldRows | None = None

    def __call__(
        self, q_network: DQNNetwork, target_network: DQNNetwork, next_action: NextAction, batch: Batch
    ) -> Outcome:
        """Return loss `[B]`, priorities `[B]`, and metrics.

        The loss of a head that does not learn from a transition is 0, and counts in the mean, as in bsuite. The
        priority is the mean |y_k - Q_k(s, a)| of the heads that learn. Without `indices` all learn, and without noise.
        """
        output = q_network.output(batch["states"])
        predictions = values_of_actions(output.distribution, batch["actions"])  # [B, K]
        with torch.no_grad():
            heads = predictions.shape[1]
            each = for_heads(batch, heads)
            online, target = (cast(DQNNetwork, Separately(network)) for network in (q_network, target_network))
            next_output = target.output(batch["next_states"])  # [B * K, A]
            next_values = self.bootstrap.next_values(online, next_action, each, next_output, next_output.q_values)
            rewards = self.bootstrap.rewards(target, each)  # [B * K]
            targets = td_target(rewards, each["discounts"], next_values).view(-1, heads)  # [B, K]
            learns = torch.ones_like(targets)
            if self.rows is not None and "indices" in batch:
                targets = self.rows.noisy(targets, batch["indices"])
                learns = self.rows.learns(batch["indices"])
            td_errors = (targets - predictions).abs() * learns
            priorities = td_errors.sum(1) / learns.sum(1).clamp(min=1)
            spread = predictions.std(1, correction=0)  # [B], how much the heads disagree
        loss = (self.of_error(predictions, targets) * learns).mean(1)
        metrics = value_metrics(output.q_values, targets.mean(1))
        return Outcome(loss, priorities, {**metrics, "head_spread": spread})
