"""However a run ends, what it learned is kept, and it can be taken further from exactly there."""

import json
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nexus
from nexus.core.errors import EnvError, RunError, result_of
from nexus.envs.factory import EnvSource
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.rainbow import ALGORITHMS
from nexus.training import checkpoint_writer
from nexus.training.config import TrainConfig
from nexus.training.files import write_json, write_tensors
from nexus.training.run_folder import new_run_folder
from nexus.training.verify import verify
from tests.chaos import SETTINGS, Silent, differences, interrupted, match_reward, run_child
from tests.probes import MatchReward
from tests.rollouts import pace_of
from tests.training import weights

OLD = Path(__file__).parent / "runs_of_format_2"
OLDER = sorted(path for folder in (OLD, OLD.with_name("runs_of_format_3")) for path in folder.iterdir())
QUICK: dict[str, Any] = SETTINGS | {"total_steps": 300, "eval_every": "140 steps", "checkpoint_every": "120 steps"}


def settings_of(algorithm: str, **settings: Any) -> dict[str, Any]:
    own = {"atoms": 11, **ALGORITHMS[algorithm].settings, **pace_of(algorithm), "algorithm": algorithm}
    return QUICK | own | settings


def theta(agent: DQNAgent) -> bytes:
    return weights(agent.q_network).numpy().tobytes()


def about(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "run.json").read_text())
    return read


class Keeper(Silent):
    """Remembers the weights at the start, and raises something at a step."""

    def __init__(self, at_step: int | None = None, error: BaseException | None = None) -> None:
        super().__init__()
        self.raises = at_step, error

    def on_start(self, plan: Any) -> None:
        self.agent, self.first_step, self.began = plan.agent, plan.first_step, theta(plan.agent)

    def on_step(self, progress: Any, episodes: Any) -> None:
        at_step, error = self.raises
        if error is not None and at_step is not None and progress.counters.steps >= at_step:
            raise error


class Failing(MatchReward):
    """Fails once in a test, in the middle of an episode."""

    spent = False
    steps = 0

    def step(self, action: Any) -> Any:
        type(self).steps += 1
        if type(self).steps == 401 and not type(self).spent:
            type(self).spent = True
            raise OSError("the simulator is gone")
        return super().step(action)


def finished(run: Path, algorithm: str, patch: pytest.MonkeyPatch) -> EnvSource:
    nexus.train(match_reward, config=config_of(algorithm), run_dir=run, listener=Silent())
    return match_reward


def reached_target(run: Path, algorithm: str, patch: pytest.MonkeyPatch) -> EnvSource:
    config = config_of(algorithm, target_return=-1.0, checkpoint_every="100000 steps")
    result = nexus.train(match_reward, config=config, run_dir=run, listener=Silent())
    assert result.reached_target
    assert result.counters.steps < 160
    return match_reward


def by_ctrl_c(run: Path, algorithm: str, patch: pytest.MonkeyPatch) -> EnvSource:
    stop = Keeper(210, KeyboardInterrupt())
    interrupted(lambda: nexus.train(match_reward, config=config_of(algorithm), run_dir=run, listener=stop))
    return match_reward


def by_sigterm(run: Path, algorithm: str, patch: pytest.MonkeyPatch) -> EnvSource:
    stop = Silent(210, lambda: signal.raise_signal(signal.SIGTERM))
    result = interrupted(lambda: nexus.train(match_reward, config=config_of(algorithm), run_dir=run, listener=stop))
    assert result.stopped_by is signal.SIGTERM
    return match_reward


def by_its_environment(run: Path, algorithm: str, patch: pytest.MonkeyPatch) -> EnvSource:
    kind = type("Failing", (Failing,), {"steps": 0, "spent": False})
    with pytest.raises(EnvError, match="the simulator is gone"):
        nexus.train(kind, config=config_of(algorithm, eval_every=None, total_steps=500), run_dir=run, listener=Silent())
    return kind


def by_its_listener(run: Path, algorithm: str, patch: pytest.MonkeyPatch) -> EnvSource:
    with pytest.raises(ZeroDivisionError):
        nexus.train(
            match_reward,
            config=config_of(algorithm),
            run_dir=run,
            listener=Keeper(211, ZeroDivisionError("a bug of the user's")),
        )
    return match_reward


def on_a_full_disk(run: Path, algorithm: str, patch: pytest.MonkeyPatch) -> EnvSource:
    write = write_tensors

    def full(path: Path, arrays: Any) -> Any:
        if "240" in str(path) or ".24" in str(path):
            raise RunError(f"can't write {path}: No space left on device")
        return write(path, arrays)

    with patch.context() as once:
        once.setattr(checkpoint_writer, "write_tensors", full)
        with pytest.raises(RunError, match="No space left"):
            nexus.train(match_reward, config=config_of(algorithm), run_dir=run, listener=Silent())
    return match_reward


def by_a_kill(run: Path, algorithm: str, patch: pytest.MonkeyPatch) -> EnvSource:
    assert run_child(run, settings_of(algorithm) | {"env": match_reward}, ("step", 250)) == -signal.SIGKILL
    return match_reward


def config_of(algorithm: str, **settings: Any) -> TrainConfig:
    return TrainConfig.from_mapping(settings_of(algorithm, **settings))


Ending = Callable[[Path, str, pytest.MonkeyPatch], EnvSource]
EXACT: list[Ending] = [finished, reached_target, by_ctrl_c, by_sigterm, by_its_environment, by_its_listener]
TO_A_CHECKPOINT: list[Ending] = [on_a_full_disk, by_a_kill]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("ending", [*EXACT, *TO_A_CHECKPOINT], ids=lambda ending: ending.__name__)
def test_a_run_that_ended_goes_on_from_what_it_had_learned(
    ending: Ending, algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    env = ending(run, algorithm, monkeypatch)
    verdict = verify(run)
    assert verdict.whole, verdict.damage
    steps = about(run)["progress"]["steps"]
    if ending in EXACT:
        assert verdict.checkpoints[0] == steps  # the very step that it ended with
    else:
        assert verdict.checkpoints[0] in range(120, 250)
    evaluation = json.loads((run / "evaluation.json").read_text()) if (run / "evaluation.json").exists() else None
    assert (evaluation is not None) is (ending in (finished, reached_target))
    assert evaluation is None or evaluation["steps"] == steps
    kept = theta(nexus.load_agent(run))
    kept_rows = [row.rsplit(",", 1)[0] for row in (run / "episodes.csv").read_text().splitlines()]

    keeper, whole = Keeper(), shutil.copytree(run, tmp_path / "whole")
    result = nexus.resume(run, env=env, total_steps=600, listener=keeper)
    assert keeper.first_step == verdict.checkpoints[0]
    assert keeper.began == (kept if ending is not on_a_full_disk else theta(nexus.load_agent(whole, checkpoint=120)))
    assert theta(result.agent) != kept
    assert result.counters.steps in range(600, 600 + 2)
    rows = [row.rsplit(",", 1)[0] for row in (run / "episodes.csv").read_text().splitlines()]
    upto = (
        len(kept_rows) if ending in EXACT else sum(int(row.split(",")[0]) <= keeper.first_step for row in kept_rows[1:])
    )
    assert rows[:upto] == kept_rows[:upto]
    assert [int(row.split(",")[1]) for row in rows[1:]] == list(range(1, len(rows)))
    logged = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert logged == sorted(logged)
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["steps"] == about(run)["progress"]["steps"] == result.counters.steps
    assert theta(nexus.load_agent(run)) == theta(result.agent)
    assert verify(run).whole


def test_the_readmes_own_line_takes_a_run_further_that_reached_its_target(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"target_return": 5.0, "eval_every": "500 steps", "eval_episodes": 2}
    result = nexus.train("CartPole-v1", run_dir=tmp_path / "run", listener=Silent(), learning_starts=200, **settings)
    assert result.counters.steps == 504  # long before the first checkpoint is due
    learned, keeper = theta(result.agent), Keeper()
    further = nexus.resume(result.run_dir, total_steps=1_500, listener=keeper)
    assert (keeper.first_step, keeper.began) == (504, learned)
    assert further.counters.steps == 1_504
    assert any("even if it reaches its target of 5" in notice for notice in keeper.notices)


def test_going_further_says_which_schedules_jump(tmp_path: Path) -> None:
    settings = {"learning_rate": 0.01, "learning_rate_schedule": "linear", "prioritized": True, "num_envs": 1}
    settings |= {"importance_exponent": 0.4}
    nexus.train(match_reward, config=config_of("dqn", **settings), run_dir=tmp_path / "run", listener=Silent())
    keeper = Keeper()
    nexus.resume(tmp_path / "run", env=match_reward, total_steps=600, listener=keeper)
    (notice,) = keeper.notices
    assert "the learning rate goes from 0 to 0.005" in notice
    assert "β goes from 1 to 0.7" in notice
    assert "schedules that ended with step 300 now end with step 600" in notice
    constant = config_of("dqn", num_envs=1)
    nexus.train(match_reward, config=constant, run_dir=tmp_path / "constant", listener=Silent())
    silent = Keeper()
    nexus.resume(tmp_path / "constant", env=match_reward, total_steps=600, listener=silent)
    assert silent.notices == []


# Signals.


LOOP = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import nexus
for seed in range(3):
    print("seed", seed, "begins", flush=True)
    try:
        nexus.train("CartPole-v1", seed=seed, total_steps=1_000_000, target_return=None, eval_every=None,
                    hidden_dim=16, run_dir=f"{sys.argv[1]}/{seed}", listener=nexus.Listener())
    finally:
        print("seed", seed, "ends", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_a_loop_over_seeds_and_saves(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(LOOP), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while not list(tmp_path.glob("0/checkpoints/*/state.json")):
            assert process.poll() is None
        process.send_signal(number)
        out, said = process.communicate(timeout=60)
    assert out == "seed 0 ends\n"
    assert process.returncode == -signal.SIGINT  # as shells and their loops want it
    assert "stopped at step" in said.splitlines()[-1]
    assert "to continue" in said.splitlines()[-1]
    assert about(tmp_path / "0")["status"] == "interrupted"
    assert verify(tmp_path / "0").checkpoints[0] == about(tmp_path / "0")["progress"]["steps"]
    assert not (tmp_path / "1").exists()


def test_a_stop_is_a_keyboard_interrupt_with_the_result(tmp_path: Path) -> None:
    keeper = Keeper(100, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt) as stop:
        nexus.train(match_reward, config=config_of("dqn"), run_dir=tmp_path / "run", listener=keeper)
    assert type(stop.value) is KeyboardInterrupt  # or Python would not end a program as Ctrl-C does
    result = result_of(stop.value)
    assert result.counters.steps == result.resumes_from == 100


def test_a_signal_in_the_midst_of_a_step_waits_for_its_end(tmp_path: Path) -> None:
    class Signals(MatchReward):
        steps = 0

        def step(self, action: Any) -> Any:
            type(self).steps += 1
            if type(self).steps == 150:
                signal.raise_signal(signal.SIGINT)
            return super().step(action)

    nexus.train(match_reward, config=config_of("dqn", eval_every=None), run_dir=tmp_path / "whole", listener=Silent())
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        config = config_of("dqn", eval_every=None)
        interrupted(lambda: nexus.train(Signals, config=config, run_dir=tmp_path / "run", listener=Silent()))
    finally:
        signal.signal(signal.SIGINT, before)
    assert about(tmp_path / "run")["progress"]["steps"] == 150
    nexus.resume(tmp_path / "run", env=match_reward, listener=Silent())
    assert set(differences(tmp_path / "whole", tmp_path / "run")) <= {"evaluation.json", "env"}


# Evaluations change nothing.


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_evaluations_change_no_bit_of_training(algorithm: str, tmp_path: Path) -> None:
    runs = {}
    for every in (None, "50 steps", "7 steps"):
        config = config_of(algorithm, eval_every=every, total_steps=400)
        runs[every] = nexus.train(match_reward, config=config, run_dir=tmp_path / f"run {every}", listener=Silent())
    assert len({theta(result.agent) for result in runs.values()}) == 1
    assert len({json.dumps(about(result.run_dir)["progress"]) for result in runs.values()}) == 1
    assert runs[None].counters.updates > 20
    rows = [
        [row.rsplit(",", 1)[0] for row in (r.run_dir / "episodes.csv").read_text().splitlines()] for r in runs.values()
    ]
    assert rows[0] == rows[1] == rows[2]


@pytest.mark.parametrize("preset", ["nature", "fast"])
def test_evaluations_change_no_bit_of_training_on_a_game(preset: str, tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    small: dict[str, Any] = {"total_steps": 512, "learning_starts": 64, "eval_episodes": 1, "frame_size": 36}
    small |= {"num_envs": 4, "hidden_dim": 16, "checkpoint_every": None}
    small |= {"preset": preset, "listener": Silent()}
    small |= {"rollout_steps": 256} if preset == "fast" else {"update_every": "64 steps", "replay_capacity": 256}
    from nexus.envs.atari import PROTOCOLS

    rules = PROTOCOLS["nature"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROTOCOLS, "nature", type(rules)(**{**rules.to_mapping(), "eval_frames": 160}))
        results = [
            nexus.train("breakout", run_dir=tmp_path / str(every), eval_every=every, **small)
            for every in (None, "128 steps")
        ]
    assert results[0].counters.updates > 0
    assert theta(results[0].agent) == theta(results[1].agent)


# Many at once.


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    together = threading.Barrier(16)

    def make() -> Path:
        together.wait()
        return new_run_folder("CartPole-v1", 0)

    with ThreadPoolExecutor(16) as pool:
        folders = [future.result() for future in [pool.submit(make) for _ in range(16)]]
    assert len(set(folders)) == 16
    assert all(folder.is_dir() for folder in folders)


def test_runs_in_threads_of_one_process_come_to_their_own_bits(tmp_path: Path) -> None:
    def run(place: str, seed: int) -> bytes:
        config = config_of("rainbow", v_min=0.0, v_max=3.0, seed=seed, total_steps=200)
        return theta(
            nexus.train(match_reward, config=config, run_dir=tmp_path / place / str(seed), listener=Silent()).agent
        )

    alone = [run("alone", seed) for seed in range(8)]
    assert len(set(alone)) == 8
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda seed: run("together", seed), range(8))) == alone


# Runs of format 2, in which episodes ended at each checkpoint, and of format 3, which said an agent's settings twice.


@pytest.mark.parametrize("old", OLDER, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_older_run_is_loaded_verified_and_taken_further(old: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(old, tmp_path / "run"))
    verdict = verify(run)
    assert verdict.whole, verdict.damage
    agent = nexus.load_agent(run)
    assert np.isfinite(weights(agent.q_network).numpy()).all()
    assert nexus.evaluate(run, episodes=2).episodes == 2
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    if not verdict.checkpoints:
        with pytest.raises(RunError, match="would discard what it learned"):
            nexus.resume(run, total_steps=500, listener=Silent())
        after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
        assert after == before
        return
    assert theta(nexus.load_agent(run, checkpoint="latest")) != b""
    keeper = Keeper()
    result = nexus.resume(run, total_steps=500, listener=keeper)
    assert keeper.first_step == verdict.checkpoints[0]
    assert result.counters.steps >= 500
    assert verify(run).whole
    assert about(run)["format"] == 4
    assert set(about(run)["agent"]) <= {"state_dim", "action_dim", "state_bounds"}
    before_that = json.loads((old / "run.json").read_text())["config"]
    now = about(run)["config"]
    assert (now["gradient_steps"], now["trace_lambda"]) == (before_that["updates_each"], before_that["trace_decay"])
    if now["algorithm"] == "pqn":
        assert (now["rollout_steps"], now["update_every"]) == (before_that["replay_capacity"], None)
    else:
        assert now["update_every"] == before_that["update_every"]
    nexus.load_agent(run, checkpoint="best")


@pytest.mark.parametrize("old", [path for path in OLDER if "interrupted" in path.name], ids=lambda path: path.name)
def test_an_older_run_whose_agent_is_said_otherwise_is_damaged(old: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(old, tmp_path / "run"))
    values = about(run)
    values["agent"]["gamma"] = 0.5
    write_json(run / "run.json", values)
    for act in (nexus.load_agent, nexus.resume):
        with pytest.raises(RunError, match=r"run\.json: config and agent differ in gamma$"):
            act(run)


@pytest.mark.parametrize("name", ["rows-interrupted", "frames-interrupted"])
def test_an_older_run_goes_on_the_same_each_time(name: str, tmp_path: Path) -> None:
    ends = []
    for place in ("one", "other"):
        run = Path(shutil.copytree(OLD / name, tmp_path / place))
        ends.append(theta(nexus.resume(run, listener=Silent()).agent))
    assert ends[0] == ends[1]


def test_the_best_of_an_older_run_is_what_its_checkpoints_say(tmp_path: Path) -> None:
    run = Path(shutil.copytree(OLD / "finished", tmp_path / "run"))
    assert theta(nexus.load_agent(run, checkpoint="best")) == theta(nexus.load_agent(run, checkpoint=300))
