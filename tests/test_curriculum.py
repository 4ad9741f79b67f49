"""A curriculum: which stage each episode is from, when that changes, and that such a run resumes exactly."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any, SupportsInt

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import nexus
from nexus.api import make_config
from nexus.cli.main import main
from nexus.cli.plot import draw
from nexus.cli.progress import TrainView
from nexus.cli.train import read_command
from nexus.core.errors import ConfigError, EnvError, RunError
from nexus.core.seeding import generator
from nexus.core.types import Array
from nexus.dashboard.kept_logs import KeptLogs
from nexus.envs.curriculum import Curriculum, Ladder, StagedEnv, stage_specs
from nexus.envs.episodes import episode_seed
from nexus.envs.factory import EnvSpec, make_vector_env
from nexus.envs.stream import Step, TransitionStream
from nexus.envs.workers import close_env
from nexus.training.curves import read_episodes, read_runs
from nexus.training.files import write_json
from tests.chaos import SETTINGS, Silent, differences, interrupt, interrupted, run_child

ASYNC = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
ENV = "tests.test_curriculum:Rungs-v0"
NOTES: list[tuple[int, int | None, Any]] = []  # level, seed and options of each reset in this process
MADE: list[int] = []  # level of each environment made in this process
GO_ON, WIN, LOSE = 0, 1, 2


class Rungs(gym.Env[Array, SupportsInt]):
    """An episode that goes on, is won with a reward of 1, or is lost, as the action says; a state has its level."""

    observation_space = spaces.Box(0, 1e6, (3,), np.float64)
    action_space = spaces.Discrete(3)

    def __init__(self, level: int = 1, key: str = "is_success", wide: bool = False, masked: bool = False) -> None:
        self.level, self.key, self.masked, self.start = level, key, masked, 0
        if wide:
            self.observation_space = spaces.Box(0, 1e6, (4,), np.float64)
        MADE.append(level)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.start = (options or {}).get("start", 0)
        if self.start < 0:
            raise ValueError("no such start")
        NOTES.append((self.level, seed, options))
        self.drawn, self.at = int(self.np_random.integers(1_000)), 0
        return self.seen()

    def seen(self) -> tuple[Array, dict[str, Any]]:
        state = np.zeros(self.observation_space.shape or ())
        state[:3] = self.level + self.start, self.drawn, self.at
        return state, {"action_mask": np.ones(3, np.int8)} if self.masked else {}

    def step(self, action: SupportsInt) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.at += 1
        state, info = self.seen()
        ended = int(action) != GO_ON
        if ended and self.key:
            info[self.key] = int(action) == WIN
        return state, float(int(action) == WIN), ended, self.at == 20, info


gym.register("Rungs-v0", entry_point="tests.test_curriculum:Rungs")


def stages(*levels: int, **rule: Any) -> dict[str, Any]:
    """A curriculum of levels below the run's own."""
    listed: list[dict[str, Any]] = [{"kwargs": {"level": level}} for level in levels]
    return {"stages": [*listed, {}], "success": 1, "window": 2, "promote": 1.0, "demote": 0.5, "revisit": 0.0} | rule


def stream_of(
    values: dict[str, Any], num_envs: int = 2, mode: Any = "auto", seed: int = 7, **kwargs: Any
) -> TransitionStream:
    """Episodes of the environment at level 9 under a curriculum, begun."""
    spec, curriculum = EnvSpec(ENV, kwargs=tuple({"level": 9, **kwargs}.items())), Curriculum.read(values)
    ladder = Ladder(curriculum, num_envs, generator(seed, "curriculum"))
    env = make_vector_env(spec, num_envs, mode, partial(StagedEnv, stage_specs(curriculum, spec)))
    stream = TransitionStream(env, "Rungs", chooser=ladder)
    NOTES.clear()
    stream.reset(seed)
    return stream


def take(stream: TransitionStream, *actions: int) -> Step:
    return stream.step(np.array(actions))


def levels(stream: TransitionStream) -> list[int]:
    return [int(level) for level in stream.states[:, 0]]


# The rule.


def test_the_stage_and_the_seed_of_each_episode_are_those_worked_out_by_hand() -> None:
    """Two copies; episode number k of copy i has the seed number 2k + i."""
    stream = stream_of(stages(1, 2))
    news: list[str] = []
    for actions in ((WIN, WIN), (LOSE, LOSE), (WIN, LOSE), (WIN, WIN), (GO_ON, WIN), (WIN, WIN), (WIN, WIN)):
        step = take(stream, *actions)
        assert step.staged is not None
        news += step.staged.news
    numbered = [
        *[(1, 0), (1, 1)],  # the first stage, in which two of two are won
        *[(2, 2), (2, 3)],  # two of two are lost
        *[(1, 4), (1, 5)],  # one of two is won: the stage stays
        *[(1, 6), (1, 7)],  # two of two are won
        *[(2, 8), (2, 9)],  # copy 0 goes on, and copy 1 wins: the wins of stage 1 no longer count, so this is one
        (2, 11),  # both win: copy 0's is the second
        *[(9, 10), (9, 13)],  # both win, but no stage follows the last one
        *[(9, 12), (9, 15)],
    ]
    assert [(level, seed) for level, seed, _ in NOTES] == [(level, episode_seed(7, n)) for level, n in numbered]
    assert news == [
        "up to stage 2 of 3, level=2: 2 of the last 2 episodes of stage 1 succeeded",
        "back to stage 1 of 3, level=1: 0 of the last 2 episodes of stage 2 succeeded",
        "up to stage 2 of 3, level=2: 2 of the last 2 episodes of stage 1 succeeded",
        "up to stage 3 of 3: 2 of the last 2 episodes of stage 2 succeeded",
    ]


@ASYNC
@pytest.mark.parametrize("mode", ["auto", "sync", "async"])
def test_a_copy_changes_its_stage_at_its_own_next_episode(mode: str) -> None:
    stream = stream_of(stages(1), num_envs=3, mode=mode)
    try:
        seen = [levels(stream)]
        reports = []
        for actions in ((WIN, GO_ON, GO_ON), (WIN, GO_ON, GO_ON), (GO_ON, LOSE, GO_ON), (LOSE, GO_ON, WIN)):
            step = take(stream, *actions)
            seen.append(levels(stream))
            assert step.staged is not None
            reports.append((step.staged.stages.tolist(), step.staged.current, step.staged.success))
            assert [int(level) for level in step.states[:, 0]] == seen[-2]
    finally:
        close_env(stream.env)
    assert seen == [[1, 1, 1], [1, 1, 1], [9, 1, 1], [9, 9, 1], [9, 9, 9]]
    assert reports == [
        ([0, 0, 0], 0, 1.0),
        ([0, 0, 0], 1, None),
        ([1, 0, 0], 1, None),  # copy 1's loss was in an earlier stage, so it does not count
        ([1, 1, 0], 1, 0.0),  # nor does copy 2's win
    ]


@pytest.mark.parametrize("success", [1, "info"])
def test_an_episode_that_goes_on_for_too_long_is_no_success(success: Any) -> None:
    stream = stream_of(stages(1, window=1, success=success), num_envs=1)
    stream.longest = 5  # the environment itself would go on
    for _ in range(5):
        step = take(stream, GO_ON)
    assert step.truncated.tolist() == [True]
    assert step.staged is not None
    assert (step.staged.current, step.staged.success) == (0, 0.0)


def test_demotion_can_be_switched_off_and_the_first_stage_has_none_below() -> None:
    for demote, levels_after in ((0.5, [1, 9, 1, 1]), (None, [1, 9, 9, 9])):
        stream = stream_of(stages(1, window=1, demote=demote), num_envs=1)
        seen = levels(stream)
        for action in (WIN, LOSE, LOSE):
            take(stream, action)
            seen += levels(stream)
        assert seen == levels_after


def test_each_stage_can_have_its_own_success() -> None:
    values = stages(1, 2, window=1)
    values["stages"][1]["success"] = 2.0  # more than an episode earns
    stream = stream_of(values, num_envs=1)
    for _ in range(3):
        take(stream, WIN)
        assert levels(stream) in ([2], [1])
    values["stages"][0]["success"] = 0.0
    stream = stream_of(values, num_envs=1)
    take(stream, LOSE)
    assert levels(stream) == [2]


@pytest.mark.parametrize("key", ["is_success", "success"])
def test_success_can_be_what_the_info_says(key: str) -> None:
    values = stages(1, window=1, success="info")
    values["stages"][0]["kwargs"]["key"] = key
    stream = stream_of(values, key=key)
    take(stream, GO_ON, LOSE)
    assert levels(stream) == [1, 1]
    take(stream, GO_ON, WIN)
    assert levels(stream) == [1, 9]


def test_an_info_without_success_is_an_error_that_names_the_episode() -> None:
    values = stages(1, success="info")
    values["stages"][0]["kwargs"]["key"] = ""
    stream = stream_of(values)
    seed = episode_seed(7, 1)
    message = (
        f"Rungs: sub-environment 1 of 2, stage 1, seed {seed}, step 2: ended an episode without is_success or success "
        "in its info: needs true or false there"
    )
    take(stream, GO_ON, GO_ON)
    with pytest.raises(EnvError, match=message):
        take(stream, GO_ON, WIN)


def test_a_share_of_the_episodes_is_from_earlier_stages_and_does_not_count() -> None:
    curriculum = Curriculum.read(stages(1, 2, 3, window=10, revisit=0.25))
    ladder = Ladder(curriculum, 4, generator(0, "curriculum"))
    ladder.current = 2
    everywhere, drawn = np.ones(4, bool), []
    for _ in range(2_000):
        drawn += ladder.choose(everywhere).tolist()
    counts = np.bincount(drawn, minlength=4)
    assert counts[3] == 0
    # 8,000 coins: the deviation of a share of 1/8 is 0.0037.
    assert counts[:2] / 8_000 == pytest.approx([0.125, 0.125], abs=0.011)
    ladder.stages[:] = 0, 2, 1, 2
    won = np.array([1.0, 1.0, 1.0, 0.0])
    report = ladder.observe(won, everywhere, ~everywhere, {}, lambda index, text: EnvError(text))
    assert report.success == 0.5  # of the two of stage 2


def test_the_first_stage_has_none_to_revisit() -> None:
    ladder = Ladder(Curriculum.read(stages(1, revisit=0.9)), 8, generator(0, "curriculum"))
    assert [ladder.choose(np.ones(8, bool)).sum() for _ in range(50)] == [0] * 50


# Stages.


def test_stages_that_differ_in_their_options_share_an_environment() -> None:
    values = stages(window=1)
    values["stages"] = [{"options": {"start": 5, "at": [1]}}, {"options": {"start": 3}}, {"kwargs": {"level": 4}}, {}]
    stream = stream_of(values, num_envs=1)
    MADE.clear()
    assert levels(stream) == [14]
    for _ in range(3):
        take(stream, WIN)
    assert [(level, options) for level, _, options in NOTES] == [
        (9, {"start": 5, "at": [1]}),
        (9, {"start": 3}),
        (4, None),
        (9, None),
    ]
    assert MADE == [4]


def test_a_stage_has_the_runs_arguments_and_its_own_on_top() -> None:
    goal = EnvSpec(ENV, kwargs=(("level", 9), ("key", "success")))
    values = stages(1)
    values["stages"] = [{"env": "CartPole-v1"}, {"env": ENV, "kwargs": {"level": 2}}, {"env": ENV}]
    with pytest.raises(ConfigError, match="curriculum, stage 1: CartPole-v1 has observations"):
        stage_specs(Curriculum.read(values), goal)
    del values["stages"][0]
    assert [dict(stage.spec.kwargs) for stage in stage_specs(Curriculum.read(values), goal)] == [
        {"level": 2, "key": "success"},
        {"level": 9, "key": "success"},
    ]


def test_every_environment_made_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    monkeypatch.setattr(Rungs, "close", lambda self: closed.append(self.level))
    values = stages(1, 2, window=1)
    MADE.clear()
    stream = stream_of(values, num_envs=1)
    assert sorted(closed) == [
        1,
        2,
        9,
        9,
    ]  # after a trial of each stage; the last one is what the others are held against
    closed.clear()
    take(stream, WIN)
    close_env(stream.env)
    assert sorted(closed) == [1, 2]


def test_cart_pole_has_its_single_form_under_a_curriculum(tmp_path: Path) -> None:
    values = {"stages": [{"kwargs": {"max_episode_steps": 20}}, {}], "success": 20, "window": 4, "promote": 0.5}
    result = nexus.train(
        "CartPole-v1", curriculum=values, run_dir=tmp_path / "run", total_steps=600, learning_starts=50,
        eval_episodes=1, target_return=None, num_envs=4, verbose=False, listener=Silent(),
    )  # fmt: skip
    episodes = read_episodes(result.run_dir)
    assert set(episodes["stage"]) == {1.0, 2.0}
    assert max(episodes["length"][episodes["stage"] == 1]) == 20
    assert max(episodes["length"][episodes["stage"] == 2]) > 20


# Runs.

VALUES = stages(1, 2, window=5, promote=0.6, demote=0.4, revisit=0.3)
RUN: dict[str, Any] = SETTINGS | {
    "curriculum": VALUES,
    "total_steps": 400,
    "num_envs": 3,
    "epsilon_min": 1.0,  # every third action wins, so that the stage keeps changing
    "env_kwargs": {"level": 9},
    "checkpoint_every": "90 steps",
    "hidden_dim": 8,
}


def trained(folder: Path, listener: nexus.Listener | None = None, **settings: Any) -> nexus.TrainResult:
    config = make_config(ENV, **{**RUN, **settings})
    return nexus.train(ENV, config=config, run_dir=folder, listener=Silent() if listener is None else listener)


def stages_in(folder: Path) -> list[int]:
    return [int(stage) for stage in read_episodes(folder)["stage"]]


def moves_in(folder: Path) -> list[tuple[int, int]]:
    """Steps and stage of each change in the log."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        (line["step"], line["curriculum/stage"])
        for line in lines
        if "time/fps" not in line and "curriculum/stage" in line
    ]


@ASYNC
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_envs": 1, "n_step": 3},
        {"vectorization": "async"},
        {"vectorization": "sync", "frame_stack": 2},
        {"actor_sync_every": "24 steps"},
        {"curriculum": stages(1, 2, window=5, promote=0.6, success="info")},
    ],
    ids=str,
)
def test_a_resumed_run_is_the_run_that_was_never_stopped(settings: dict[str, Any], tmp_path: Path) -> None:
    trained(tmp_path / "whole", **settings)
    moves = moves_in(tmp_path / "whole")
    assert any(step < 200 for step, _ in moves)
    assert any(step > 230 for step, _ in moves)
    stop = Silent(200, interrupt)
    interrupted(lambda: trained(tmp_path / "broken", stop, **settings))
    nexus.resume(tmp_path / "broken", listener=Silent())
    assert differences(tmp_path / "whole", tmp_path / "broken") == []


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    settings = {"env": ENV, **make_config(ENV, **RUN).to_mapping()}
    assert run_child(tmp_path / "whole", settings) == 0
    assert run_child(tmp_path / "killed", settings, ("step", 130)) == -9
    assert run_child(tmp_path / "killed", settings, ("step", 290)) == -9
    assert run_child(tmp_path / "killed", settings) == 0
    assert differences(tmp_path / "whole", tmp_path / "killed") == []
    assert set(stages_in(tmp_path / "killed")) == {1, 2, 3}


def test_the_same_seed_gives_the_same_stages_and_another_one_others(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        trained(tmp_path / name, seed=seed)
    assert differences(tmp_path / "one", tmp_path / "again") == []
    assert stages_in(tmp_path / "one") != stages_in(tmp_path / "other")


class Listening(Silent):
    """Keeps the events of a run."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[int, str]] = []

    def on_event(self, steps: int, text: str) -> None:
        self.events.append((steps, text))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Listening]:
    """A finished run and what it said."""
    folder, listener = tmp_path_factory.mktemp("curriculum") / "run", Listening()
    trained(folder, listener)
    return folder, listener


def test_the_stage_is_in_the_episodes_the_scalars_and_the_events(run: tuple[Path, Listening]) -> None:
    folder, listener = run
    header, *rows = (folder / "episodes.csv").read_text().splitlines()
    assert header == "step,episode,return,length,stage,seconds"
    assert {len(row.split(",")) for row in rows} == {6}
    assert set(stages_in(folder)) == {1, 2, 3}
    moves = moves_in(folder)
    assert [steps for steps, _ in listener.events] == [steps for steps, _ in moves]
    assert [int(text.partition("stage ")[2][0]) for _, text in listener.events] == [stage for _, stage in moves]
    assert listener.notices == []
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines() if "fps" in line]
    assert lines[-1]["curriculum/stage"] == moves[-1][1]
    rates = [line["curriculum/success"] for line in lines if "curriculum/success" in line]  # none right after a change
    assert len(rates) > len(lines) / 2
    assert all(0 <= rate <= 1 for rate in rates)


def test_evaluations_are_of_the_last_stage(run: tuple[Path, Listening]) -> None:
    NOTES.clear()
    score = nexus.evaluate(run[0], episodes=3, listener=Silent())
    assert score.protocol.env_kwargs == {"level": 9}
    assert {level for level, _, _ in NOTES} == {9}


def test_an_evaluation_in_the_one_environment_that_there_is_plays_the_last_stage(tmp_path: Path) -> None:
    """Two of an environment of a user's own may be one too many, so it is shared with the training."""
    NOTES.clear()
    trained(tmp_path / "run", num_envs=1, eval_every="100 steps", eval_episodes=1, total_steps=250)
    by_seed: dict[int | None, set[int]] = {}
    for level, seed, _ in NOTES:
        by_seed.setdefault(seed, set()).add(level)
    from nexus.core.seeding import seed_of

    assert by_seed[episode_seed(seed_of(0, "evaluation"), 0)] == {9}
    assert {level for level, _, _ in NOTES} == {1, 2, 9}


def test_readers_know_the_column(run: tuple[Path, Listening], tmp_path: Path) -> None:
    folder = run[0]
    kept = KeptLogs(folder)
    while kept.read_on(1.0):
        pass
    said: list[object] = []
    columns = kept.episodes(said.append)
    whole = read_episodes(folder)
    assert columns["return"].tolist() == whole["return"].tolist()
    assert columns["seconds"].tolist() == whole["seconds"].tolist()
    assert said == []
    assert draw(read_runs([str(folder)]), "steps", 5).axes
    page = tmp_path / "report.html"
    assert main(["report", str(folder), "--out", str(page)]) == 0
    assert "curriculum/stage" in page.read_text("utf-8")
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    text = (copy / "episodes.csv").read_text().replace("length,stage,", "length,stages,", 1)
    (copy / "episodes.csv").write_text(text)
    with pytest.raises(RunError, match="needs the columns"):
        read_episodes(copy)


def test_a_run_without_a_curriculum_has_no_such_column(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", curriculum=None, total_steps=100).run_dir
    assert (folder / "episodes.csv").read_text().splitlines()[0] == "step,episode,return,length,seconds"
    assert "curriculum" not in (folder / "metrics.jsonl").read_text()


def test_a_person_sees_the_change_of_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with TrainView() as view:
        trained(tmp_path / "run", view)
    said = capsys.readouterr().out
    step, stage = moves_in(tmp_path / "run")[0]
    assert stage == 2
    assert f"step {step:,}: up to stage 2 of 3, level=2: " in said
    assert "3 stages; evaluations are of the last one" in said


def test_a_checkpoint_whose_stages_do_not_fit_is_damaged(tmp_path: Path) -> None:
    ladder = Ladder(Curriculum.read(stages(1, 2)), 2, generator(0, "curriculum"))
    ladder.choose(np.ones(2, bool))
    state = ladder.get_state()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"current": 3}, "current = 3: needs 0 to 2"),
        ({"stages": np.array([0, 5])}, "stages = 5: needs 0 to 2"),
        ({"stages": np.array([0])}, "stages is int64 of shape"),
        ({"outcomes": np.ones(3, bool)}, "outcomes is bool of shape"),
        ({"returns": np.array([np.nan, 0.0])}, "returns contains NaN"),
        ({"rng": {}}, "rng is not a state of a generator"),
    ]
    for change, message in wrong:
        with pytest.raises(RunError, match=message):
            ladder.set_state({**state, **change})


# Settings.


def test_a_file_a_config_file_and_python_give_the_same_curriculum(tmp_path: Path) -> None:
    own, whole = tmp_path / "stages.json", tmp_path / "settings.json"
    own.write_text(json.dumps(VALUES))
    whole.write_text(json.dumps({"env": ENV, "curriculum": VALUES}))
    assert read_command([ENV, "--curriculum", str(own)]).config == make_config(ENV, curriculum=VALUES)
    assert read_command(["--config", str(whole)]).config.curriculum == VALUES
    assert read_command(["--config", str(whole), "--curriculum", "none"]).config.curriculum is None
    assert make_config(ENV, curriculum=VALUES) == make_config(ENV, curriculum=json.loads(json.dumps(VALUES)))
    assert len({make_config(ENV, curriculum=VALUES), make_config(ENV)}) == 2


def listed(*stages: Any, **more: Any) -> dict[str, Any]:
    return {"stages": list(stages), "success": 1, **more}


GOAL: dict[str, Any] = {}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"success": 1}, "curriculum, stages: needs a list of at least 2 and at most 1,000, got none"),
    (listed(GOAL), "curriculum, stages: needs a list of at least 2 and at most 1,000, got 1"),
    ({"stages": "Rungs-v0"}, "curriculum, stages: needs a list of at least 2 and at most 1,000, got 'Rungs-v0'"),
    (listed(GOAL, GOAL, promot=1), "curriculum has an unknown key 'promot'; did you mean promote?"),
    (listed(GOAL, GOAL, x=1), "curriculum has an unknown key 'x': needs some of stages, success, promote, demote"),
    (listed({"kwarg": {}}, GOAL), "curriculum, stage 1 has an unknown key 'kwarg'; did you mean kwargs?"),
    (listed("Rungs-v0", GOAL), "curriculum, stage 1 is 'Rungs-v0': needs an object with env, kwargs, options, success"),
    (listed({"env": 3}, GOAL), "curriculum, stage 1: env = 3: needs text or none"),
    (listed({"kwargs": 3}, GOAL), "curriculum, stage 1: kwargs = 3: needs a mapping from names to values"),
    (listed({"success": "yes"}, GOAL), "curriculum, stage 1: success = 'yes': needs a number or one of info or none"),
    (listed(GOAL, GOAL, window=0), "curriculum: window = 0: needs 1 to 100,000 episodes"),
    (listed(GOAL, GOAL, window=1.5), "curriculum: window = 1.5: needs a whole number"),
    (listed(GOAL, GOAL, promote=1.1), "curriculum: promote = 1.1: needs a rate in (0, 1]"),
    (listed(GOAL, GOAL, demote=0.8), "curriculum: demote = 0.8: needs a rate below promote, or none"),
    (listed(GOAL, GOAL, revisit=1.0), "curriculum: revisit = 1.0: needs a share in [0, 1)"),
    ({"stages": [{"success": 1}, {}]}, "curriculum, stage 2: needs success, the least return of an episode"),
    # What only making the stages shows.
    (listed({"env": "Rung-v0"}, GOAL), "curriculum, stage 1: no environment 'Rung-v0'; did you mean Rungs-v0"),
    (
        listed({"kwargs": {"levl": 1}}, GOAL),
        "curriculum, stage 1: environment 'tests.test_curriculum:Rungs-v0' can't be",
    ),
    (listed({"kwargs": {"wide": True}}, GOAL), "curriculum, stage 1: tests.test_curriculum:Rungs-v0 has observations"),
    (listed({"env": "Acrobot-v1"}, GOAL), "curriculum, stage 1: Acrobot-v1 has observations Box("),
    (listed({"kwargs": {"masked": True}}, GOAL), "curriculum, stage 1: it has action masks and the last stage none"),
    (
        listed(GOAL, {"options": {"start": -1}}, GOAL),
        "curriculum, stage 2: reset with options {'start': -1} failed: no",
    ),
    (
        listed(GOAL, {"env": "Acrobot-v1"}),
        "is the run's environment, tests.test_curriculum:Rungs-v0, in which evaluations",
    ),
    (listed(GOAL, {"env": "Acrobot-v1"}), "needs {} there, or train on Acrobot-v1"),
    (listed(GOAL, {"kwargs": {"level": 2}}), "needs {} there, and its arguments as env_kwargs"),
    (listed(GOAL, {"options": {"start": 1}}), "evaluations are played: needs {} there"),
    (listed({"env": "pong"}, GOAL), "curriculum, stage 1: ALE/Pong-v5 is an Atari game, and ale-py steps all games"),
]


@pytest.mark.parametrize(("values", "message"), WRONG, ids=[message[:60] for _, message in WRONG])
def test_a_curriculum_that_makes_no_sense_is_refused_in_one_line(
    values: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "stages.json"
    file.write_text(json.dumps(values))
    run_dir = tmp_path / "run"
    assert main(["train", ENV, "--curriculum", str(file), "--run-dir", str(run_dir), "--total-steps", "2000"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not run_dir.exists()


def test_a_game_has_no_curriculum(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    values = listed({"env": "CartPole-v1"}, GOAL)
    with pytest.raises(ConfigError, match=r"stage 1: ALE/Pong-v5 is an Atari game.*leave the curriculum out"):
        nexus.train("pong", curriculum=values, run_dir=tmp_path / "run", listener=Silent())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't read {file}: No such file or directory"),
        ("{", "{file} is not JSON: "),
        ("[]", "{file} holds a list: needs an object"),
    ],
)
def test_a_file_that_holds_none_is_refused_in_one_line(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.json"
    if content is not None:
        file.write_text(content)
    assert main(["train", ENV, "--curriculum", str(file)]) == 2
    said, expected = ("".join(text.split()) for text in (capsys.readouterr().err, message.format(file=file)))
    assert expected in said  # without spaces: a long path is broken at the end of a line


def test_python_can_pass_a_mapping_only_of_plain_values() -> None:
    for wrong, message in (
        ("stages.json", "curriculum = 'stages.json': needs a mapping as in a JSON file or none"),
        (listed({"env": Rungs}, GOAL), "curriculum has env = type: needs numbers, text"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_config(ENV, curriculum=wrong)


def test_wrappers_with_statistics_of_one_stage_are_refused(tmp_path: Path) -> None:
    wrappers = ["gymnasium.wrappers:NormalizeObservation"]
    message = (
        "curriculum, stage 1: NormalizeObservation would keep statistics of each stage alone: use normalize_observ"
    )
    with pytest.raises(ConfigError, match=message):
        nexus.train(ENV, curriculum=VALUES, wrappers=wrappers, run_dir=tmp_path / "run", listener=Silent())


def made() -> gym.Env[Any, Any]:
    """An environment that is given as a function."""
    return Rungs(9)


def test_a_function_can_have_stages_by_options_and_none_by_arguments(tmp_path: Path) -> None:
    values = {"stages": [{"options": {"start": 2}}, {}], "success": 1, "window": 5, "promote": 0.6}
    settings: dict[str, Any] = RUN | {"curriculum": values, "env_kwargs": {}}
    folder = nexus.train(made, run_dir=tmp_path / "run", listener=Silent(), **settings).run_dir
    assert set(stages_in(folder)) == {1, 2}
    with pytest.raises(ConfigError, match=r"curriculum, stage 1: kwargs level: made is not made by gymnasium\.make"):
        nexus.train(made, run_dir=tmp_path / "b", listener=Silent(), **settings | {"curriculum": stages(1)})


def test_a_run_must_not_supply_the_code_of_a_stage(
    run: tuple[Path, Listening], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(run[0], tmp_path / "copy"))
    (copy / "evil_stages.py").write_text("raise SystemExit('ran')")
    about = json.loads((copy / "run.json").read_text())
    about["config"]["curriculum"]["stages"][0] = {"env": "evil_stages:Rungs-v0"}
    write_json(copy / "run.json", about)
    monkeypatch.syspath_prepend(str(copy))
    for ask in (
        lambda: nexus.resume(copy, total_steps=500, listener=Silent()),
        lambda: nexus.evaluate(copy, episodes=1, listener=Silent()),
        lambda: read_command(["--config", str(copy)]),
    ):
        with pytest.raises(RunError, match="names a module in its folder, evil_stages"):
            ask()


def test_the_stages_stay_behind_when_a_run_goes_on_elsewhere(run: tuple[Path, Listening], tmp_path: Path) -> None:
    def config_in(folder: Path) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((folder / "run.json").read_text())["config"]
        return config

    settings: dict[str, Any] = {"from_run": run[0], "listener": Silent(), "total_steps": 100, "eval_episodes": 1}
    same = nexus.train(run_dir=tmp_path / "same", **settings).run_dir
    assert config_in(same)["curriculum"] == VALUES
    assert stages_in(same)[0] == 1  # from the start
    other = nexus.train(made, run_dir=tmp_path / "other", **settings).run_dir
    assert config_in(other)["curriculum"] is None


# What it is for.


class Locks(gym.Env[Array, SupportsInt]):
    """A row of doors; the right one of two actions opens the next, the wrong one leads back to the first.

    The reward is 1 behind the last one. Random actions reach it in 2⁻ᴺ of the episodes of N steps.
    """

    observation_space = spaces.Box(0, 1, (16,), np.float32)
    action_space = spaces.Discrete(2)
    right = np.random.default_rng(3).integers(2, size=16)

    def __init__(self, length: int) -> None:
        self.length = length

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = self.taken = 0
        return self.seen(), {}

    def seen(self) -> Array:
        state = np.zeros(16, np.float32)
        state[self.at] = 1.0
        return state

    def step(self, action: SupportsInt) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.taken += 1
        self.at = self.at + 1 if int(action) == self.right[self.at] else 0
        solved = self.at == self.length
        return self.seen(), float(solved), solved, self.taken == self.length, {}


gym.register("Locks-v0", entry_point="tests.test_curriculum:Locks")


def score_of(seed: int, folder: Path, curriculum: dict[str, Any] | None) -> float:
    result = nexus.train(
        "tests.test_curriculum:Locks-v0", curriculum=curriculum, env_kwargs={"length": 12}, seed=seed, run_dir=folder,
        preset="plain", total_steps=6_000, learning_starts=100, epsilon_steps=300, epsilon_min=0.1, n_step=5, gamma=0.9,
        hidden_dim=32, batch_size=32, num_envs=4, update_every="2 steps", target_update_every="50 updates",
        learning_rate=0.005, replay_capacity=4_000, eval_episodes=1, log_every="8000 steps", checkpoint_every=None,
        doctor="off", listener=Silent(),
    )  # fmt: skip
    assert result.evaluation is not None
    return result.evaluation.mean


@pytest.mark.slow
def test_doors_are_opened_with_a_curriculum_and_not_without(tmp_path: Path) -> None:
    easier = [{"kwargs": {"length": length}} for length in (2, 4, 6, 8, 10)]
    values = {"stages": [*easier, {}], "success": 1, "window": 10, "promote": 0.6, "demote": None}
    with_it = [score_of(seed, tmp_path / f"with-{seed}", values) for seed in range(5)]
    without = [score_of(seed, tmp_path / f"without-{seed}", None) for seed in range(5)]
    assert sum(with_it) >= 4
    assert sum(without) <= 1  # random play gets through once in 4,096 episodes, and there are 500
