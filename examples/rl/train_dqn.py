"""DQN on CartPole in one page: `python examples/rl/train_dqn.py`. `nexus train CartPole-v1` does the same faster."""

import gymnasium as gym

from nexus.data.replay_buffer import ReplayBuffer
from nexus.models.rl.dqn import DQNAgent

BATCH_SIZE = 64
TARGET_UPDATE_FREQUENCY = 10  # episodes
CONFIG = {
    "state_dim": 4,  # position, velocity, angle, angular velocity
    "action_dim": 2,  # left, right
    "learning_rate": 0.0003,
    "gamma": 0.99,
    # Without the trainer, an agent decays ε at each update, and here every step makes one. The factor is therefore far
    # closer to 1 than the usual 0.995 per episode: after 2,000 updates ε is 0.37, after 9,000 it is 0.01.
    "epsilon_decay": 0.9995,
}


def main(num_episodes: int = 300) -> list[float]:
    """Train for `num_episodes` episodes and return their returns."""
    env = gym.make("CartPole-v1")
    agent = DQNAgent(CONFIG)
    replay_buffer = ReplayBuffer(capacity=10_000)
    returns: list[float] = []

    for episode in range(num_episodes):
        # Seed only the first reset: seeding each one would start all episodes in the same state.
        state, _ = env.reset(seed=0 if episode == 0 else None)
        total_reward, terminated, truncated = 0.0, False, False

        while not (terminated or truncated):
            action = agent.select_action(state)
            next_state, reward, terminated, truncated, _ = env.step(action)

            # Store `terminated` only. At the time limit the pole is still up and the target bootstraps from the next
            # state; treating truncation as termination would teach that the state at step 500 is worth nothing.
            replay_buffer.push(state, action, float(reward), next_state, terminated)
            state, total_reward = next_state, total_reward + float(reward)

            if len(replay_buffer) >= BATCH_SIZE:
                agent.update(replay_buffer.sample(BATCH_SIZE))

        returns.append(total_reward)
        if episode % TARGET_UPDATE_FREQUENCY == 0:
            agent.update_target_network()
            mean = sum(returns[-100:]) / len(returns[-100:])
            print(f"episode {episode:4d}  mean return {mean:6.1f}  ε {agent.epsilon:.3f}")

    env.close()
    return returns


if __name__ == "__main__":
    main()
