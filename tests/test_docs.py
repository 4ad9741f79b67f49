"""Every command and every Python line of the README and the pages below docs/ is run as printed, in an empty folder.

What would take long or needs something that is not there is in the tables below, and only there.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pytest

import nexus
from benchmarks import doctor_page, settings_page
from nexus.cli.algorithms import AlgorithmsCommand
from nexus.cli.check import CheckCommand
from nexus.cli.compare import CompareCommand
from nexus.cli.dashboard import DashboardCommand
from nexus.cli.describe import DescribeCommand
from nexus.cli.evaluate import EvaluateCommand
from nexus.cli.main import main
from nexus.cli.parsing import flags_of
from nexus.cli.pitfalls import PitfallsCommand
from nexus.cli.plan import PlanCommand
from nexus.cli.plot import PlotCommand
from nexus.cli.replay import ReplayCommand
from nexus.cli.report import ReportCommand
from nexus.cli.resume import ResumeCommand
from nexus.cli.setting_flags import FLAG_ALIASES
from nexus.cli.study import StudyCommand
from nexus.cli.train import TrainCommand
from nexus.cli.verify import VerifyCommand
from nexus.cli.watch import WatchCommand
from nexus.core.names import REGISTERED
from nexus.models.rl.dqn.rainbow import OWN
from tests.chaos import Silent, interrupt, interrupted

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)

# What stands for something else, and what is put there.
BLANKS: Sequence[tuple[str, str]] = (
    ("runs/NAME", "RUN"),
    ("RUN...", "RUN"),
    ("train ENV", "train CartPole-v1"),
    ("study ENV", "study CartPole-v1"),
    ("studies/NAME", "STUDY"),
    ("--seeds 12", "--seeds 2"),
    ("check ENV", "check CartPole-v1"),
    ("plan ENV", "plan CartPole-v1"),
    ("train GAME", "train pong"),
    ("--algo NAME", "--algo qr-dqn"),
    ("--preset ...", "--preset fast"),
    ("--total-steps N", "--total-steps 700"),
)
TRAINING = "--total-steps=1100 --eval-episodes=2 --target-return=none"
SCORED = "--eval-every=none --eval-episodes=1 --eval-max-steps=300"
GAME = f"--total-steps=1200 --learning-starts=200 --replay-capacity=2000 {SCORED}"
PQN = (
    f"--total-steps=4096 --actor-sync-every=none --num-envs=4 --replay-capacity=1024 {SCORED} "
    "--update-every='1024 steps' --target-update-every='1024 steps'"
)
# Beginnings of commands, and the flags that make them short; the longest beginning counts.
SHORT: Mapping[str, str] = {
    "nexus train": TRAINING,
    "nexus train CartPole-v1 --algo pqn": "--total-steps=2048 --eval-episodes=2 --target-return=none",
    "nexus train CartPole-v1 --algo rainbow --preset paper": f"{TRAINING} --learning-starts=200 --replay-capacity=2000",
    "nexus train MountainCar-v0": f"{TRAINING} --learning-starts=200",
    "nexus train --config": "--eval-episodes=2",
    "nexus train pong": PQN,
    "nexus train breakout": GAME,
    "nexus train seaquest": GAME,
    "nexus resume RUN --total-steps": "--total-steps=900",
    "nexus study": "--seeds=1 --jobs=2 --total-steps=300 --learning-starts=64 --eval-every=none --eval-episodes=1 "
    "--target-return=none --eval-max-steps=200",
    "nexus study --folder": "--jobs=2",  # with the settings that the study has
    "nexus check": "",
    "nexus plan": "--probe-seconds=0.5",
    "nexus plan pong": f"{PQN} --probe-seconds=2",
    "nexus evaluate": "--episodes=2",
    "nexus watch": "--episodes=1 --video=out.mp4",
    "nexus watch RUN --episode": "--video=out.mp4",
    "nexus dashboard": "--port=0",
    "nexus pitfalls": "--seeds=1 --steps=1000 --processes=1",
    **dict.fromkeys(
        (
            *("nexus resume", "nexus verify", "nexus doctor", "nexus describe", "nexus replay", "nexus report"),
            *("nexus plot", "nexus compare", "nexus algorithms"),
        ),
        "",
    ),
}
SLOW = ("pong", "breakout", "seaquest", "Acrobot", "LunarLander", "--vary")  # many seconds each
# Files that a command presupposes.
FILES: Mapping[str, Mapping[str, str]] = {
    "my_package": {
        "my_package/__init__.py": "",
        "my_package/envs.py": "import gymnasium as gym\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        'gym.register("MyEnv-v0", entry_point=CartPoleEnv, max_episode_steps=100)\n'
        "def Shaped(env): return gym.wrappers.TransformReward(env, lambda reward: reward - 0.5)\n",
    },
    "my_study.json": {
        "my_study.json": next(
            code for kind, code in FENCED.findall((ROOT / "docs" / "studies.md").read_text("utf-8")) if kind == "json"
        )
    },
    "stages.json": {
        "stages.json": next(
            code
            for kind, code in FENCED.findall((ROOT / "docs" / "curriculum.md").read_text("utf-8"))
            if kind == "json"
        )
    },
}
# The modules that pages show, by name; commands and other blocks use them.
MODULES: Mapping[str, str] = {
    name: code
    for page in PAGES
    for kind, code in FENCED.findall(page.read_text("utf-8"))
    for name in re.findall(r"\A# (\w+)\.py$", code, re.MULTILINE)
    if kind == "python"
}
MY_ENVS = MODULES["my_envs"]
# Commands that are not run here: what installs, and what runs this.
NOT_RUN = ("make train", "make test", "pip install")

# What a block of Python presupposes, by page and place.
BEFORE: Mapping[tuple[str, int], str] = {
    ("README.md", 1): (
        "import nexus\n"
        "result = nexus.train('CartPole-v1', total_steps=300, learning_starts=64, eval_episodes=2, target_return=None)"
    ),
    (
        "README.md",
        2,
    ): "import numpy as np\nstate = next_state = np.zeros(4)\naction, reward, terminated = 0, 1.0, False",
    ("action_masking.md", 3): (
        "import numpy as np, nexus\n"
        "agent = nexus.make_agent('dqn', state_dim=4, action_dim=2)\n"
        "state = next_state = np.zeros(4)\n"
        "info = {'action_mask': np.array([0, 1])}\n"
        "observations, masks = np.zeros((3, 4)), np.ones((3, 2))\n"
        "mask = next_mask = np.array([1, 0])\n"
        "reward, done = 1.0, False\n"
        "replay_buffer = nexus.ReplayBuffer(100)"
    ),
    ("runs.md", 0): (
        "import nexus\n"
        "settings = {'total_steps': 300, 'learning_starts': 64, 'eval_episodes': 2, 'target_return': None}\n"
        "run = nexus.train('CartPole-v1', **settings).run_dir"
    ),
    ("troubleshooting.md", 0): (
        "import nexus\n"
        "settings = {'total_steps': 300, 'learning_starts': 64, 'eval_episodes': 2, 'target_return': None}\n"
        "run = nexus.train('CartPole-v1', **settings).run_dir"
    ),
    ("your_environment.md", 1): MY_ENVS,
    ("your_environment.md", 2): MY_ENVS,
    ("prioritized_replay.md", 0): "import torch\nstep, total_steps, priorities = 5, 10, torch.ones(32)",
}
BRIEFLY = ", total_steps=1_100, eval_episodes=2, target_return=None)"
# What is too long, or stands for code of one's own.
REPLACED: Mapping[tuple[str, int], Sequence[tuple[str, str]]] = {
    ("README.md", 0): (
        ("seed=1)", "seed=1, total_steps=1_100, eval_episodes=2, target_return=None)"),
        ("total_steps=200_000", "total_steps=1_200"),
    ),
    ("README.md", 1): (
        ("episodes=1_000", "episodes=10"),
        ('("LunarLander-v3")', '("LunarLander-v3", probe_seconds=0.3)'),
    ),
    ("README.md", 2): (
        ("...  # play", "for _ in range(64):\n    replay_buffer.push(state, 0, 1.0, next_state, False)\n# play"),
    ),
    ("your_environment.md", 1): (
        ("from my_envs import Corridor\n", ""),
        ("total_steps=20_000", "total_steps=1_100, eval_episodes=2"),
    ),
    ("your_environment.md", 2): (("from my_envs import Corridor\n", ""),),
    ("curriculum.md", 1): (("total_steps=10_000)", "total_steps=1_100, eval_episodes=2)"),),
    ("studies.md", 0): (("total_steps=2_000", "total_steps=300, learning_starts=64, eval_episodes=2"),),
    ("own_parts.md", 1): (('algorithm="rainbow")', 'algorithm="rainbow"' + BRIEFLY),),
    ("own_parts.md", 3): (("dueling=True)", "dueling=True" + BRIEFLY),),
    ("own_parts.md", 5): (("schedule=warmup)", "schedule=warmup" + BRIEFLY),),
    ("own_parts.md", 9): (("15.0})", "15.0}" + BRIEFLY),),
    ("prioritized_replay.md", 0): (
        (
            "replay.anneal(",
            "import numpy as np\nfor _ in range(40):\n"
            "    replay.push(np.zeros(4, np.float32), 0, 1.0, np.zeros(4, np.float32), False)\nreplay.anneal(",
        ),
    ),
}
ALONE = (  # of a line that stands in the text
    (
        "(...,",
        '("CartPole-v1", total_steps=300, learning_starts=64, eval_every=None, target_return=None, eval_episodes=2,',
    ),
)


def fenced(language: str) -> list[tuple[Path, int, str]]:
    """All blocks of a language: the page, the block's place among those of its language there, and what it says."""
    return [
        (page, place, found)
        for page in PAGES
        for place, found in enumerate(
            code for kind, code in FENCED.findall(page.read_text("utf-8")) if kind == language
        )
    ]


def in_text() -> list[str]:
    """All code that stands between single backticks, without line breaks."""
    texts = [FENCED.sub("", page.read_text("utf-8")) for page in PAGES]
    return [" ".join(code.split()) for text in texts for code in re.findall(r"`([^`]+)`", text)]


def commands() -> list[str]:
    """All commands, blanks filled, each once."""
    lines = [line.partition("#")[0].strip() for _, _, block in fenced("bash") for line in block.splitlines()]
    lines += [code for code in in_text() if re.match(r"nexus \w+ .|nexus algorithms$", code)]
    for blank, filled in BLANKS:
        lines = [line.replace(blank, filled) for line in lines]
    return sorted(set(filter(None, lines)))


def ended_at_once(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def marked(command: str) -> Any:
    return pytest.param(command, marks=pytest.mark.slow) if any(name in command for name in SLOW) else command


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped in its middle, with a finished part behind it."""
    run = tmp_path_factory.mktemp("docs") / "run"
    settings: dict[str, Any] = {"total_steps": 600, "learning_starts": 64, "eval_episodes": 2, "hidden_dim": 8}
    settings |= {"eval_every": "200 steps", "target_return": None, "epsilon_steps": 300, "keep_episodes": True}
    interrupted(lambda: nexus.train("CartPole-v1", run_dir=run, listener=Silent(400, interrupt), **settings))
    return run


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    registered: list[tuple[dict[str, Any], dict[str, Any]]]
    registered = [(each, dict(each)) for each in (cast(Any, REGISTERED), OWN)]
    yield tmp_path
    for table, before in registered:
        table.clear()
        table.update(before)
    for name in MODULES:
        sys.modules.pop(name, None)


# A block that registers an environment and a command that imports it run in one process.
OVERRIDING = pytest.mark.filterwarnings("ignore:.*Overriding environment (Corridor|HeavyPole|Doors)-v0")
RUN_HERE = [command for command in commands() if not command.startswith(NOT_RUN)]


@OVERRIDING
@pytest.mark.parametrize("command", [marked(command) for command in RUN_HERE])
def test_a_command_works_as_printed(command: str, stopped: Path, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "RUN" in command:
        shutil.copytree(stopped, empty / "runs" / "mine")
    for name, files in {**FILES, **{f"{name}:": {f"{name}.py": code} for name, code in MODULES.items()}}.items():
        for path, text in files.items() if name in command else ():
            (empty / path).parent.mkdir(exist_ok=True)
            (empty / path).write_text(text)
    if "STUDY" in command:
        main(["study", "CartPole-v1", "--vary=n_step=1,3", "--folder=studies/mine", *shlex.split(SHORT["nexus study"])])
    if any(game in command for game in ("pong", "breakout", "seaquest")):
        pytest.importorskip("ale_py")
    if "minigrid" in command:
        pytest.importorskip("minigrid")
    if "watch" in command:
        pytest.importorskip("imageio_ffmpeg")
    if "dashboard" in command:  # it would serve until Ctrl-C
        monkeypatch.setattr(pytest.importorskip("uvicorn").Server, "run", ended_at_once)
    first = max((begin for begin in SHORT if command.startswith(begin)), key=len)
    program, *words = shlex.split(command.replace("RUN", "runs/mine").replace("STUDY", "studies/mine"))
    assert program == "nexus"
    own = {word for word in words if word.startswith("--")} - {"--total-steps"}  # of which the last one counts
    short = [word for word in shlex.split(SHORT[first]) if word.partition("=")[0] not in own]
    if "--help" in words:
        with pytest.raises(SystemExit, match=r"^0$"):
            main(words)
    else:
        assert main([*words, *short]) in ((0, 1) if words[0] == "doctor" else (0,))  # a short run has its faults


def test_each_table_is_of_what_is_printed() -> None:
    printed = commands()
    for begin in (*SHORT, *NOT_RUN):
        assert any(command.startswith(begin) for command in printed), begin
    for name in (*SLOW, *FILES):
        assert any(name in command for command in printed), name
    blocks = {(page.name, place) for page, place, _ in fenced("python")}
    assert BEFORE.keys() | REPLACED.keys() <= blocks
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    for blank, _ in BLANKS:
        assert blank in text, blank


@OVERRIDING
@pytest.mark.parametrize(("page", "place", "code"), fenced("python"), ids=lambda part: getattr(part, "name", None))
def test_a_block_of_python_works_as_printed(page: Path, place: int, code: str, empty: Path) -> None:
    for old, new in REPLACED.get((page.name, place), ()):
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    for name, text in MODULES.items():
        if re.search(rf"\b{name}\b", code):
            (empty / f"{name}.py").write_text(text)
    names: dict[str, Any] = {}
    exec(BEFORE.get((page.name, place), ""), names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nexus.listener.warn", lambda _: None)  # schedules of short runs
        exec(compile(code, f"{page.name}, block {place}", "exec"), names)


LINES = [code for code in in_text() if re.match(r"nexus\.\w+\(.*\)$", code)]


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_python_in_the_text_works(line: str, empty: Path) -> None:
    for old, new in ALONE:
        line = line.replace(old, new)
    exec(line, {"nexus": nexus, "one": nexus.Listener(), "other": nexus.Listener()})


def test_each_part_of_ones_own_takes_at_most_ten_lines() -> None:
    page = FENCED.findall((ROOT / "docs" / "own_parts.md").read_text("utf-8"))
    modules = [code for kind, code in page if kind == "python" and code.startswith("# my_")]
    lines = [[line for line in code.splitlines()[1:] if line.strip()] for code in modules]
    assert len(lines) == 5
    assert [len(each) for each in lines if len(each) > 10] == []


def test_lines_are_found() -> None:
    assert len(RUN_HERE) >= 20
    assert len(fenced("python")) >= 10
    assert len(LINES) >= 2
    indented = [line for page in PAGES for line in page.read_text("utf-8").splitlines() if line.startswith("    ")]
    assert [line for line in indented if re.match(r" +(nexus |import |from |agent = nexus|agent = DQN)", line)] == []


def test_every_flag_is_one() -> None:
    kinds: list[Any] = [
        TrainCommand,
        StudyCommand,
        CheckCommand,
        PlanCommand,
        ResumeCommand,
        DescribeCommand,
        ReplayCommand,
        EvaluateCommand,
        WatchCommand,
        PlotCommand,
        ReportCommand,
        CompareCommand,
        PitfallsCommand,
        DashboardCommand,
    ]
    known = {flag for kind in (*kinds, VerifyCommand, AlgorithmsCommand) for flag in flags_of(kind)} | {
        *FLAG_ALIASES,
        "--help",
    }
    known |= {f"--no-{flag[2:]}" for flag in known}
    codes = [code for code in in_text() if not code.startswith(("python -m benchmarks", "python -m pytest", "pip "))]
    codes += [command for command in commands() if command.startswith("nexus")]
    found = {flag for code in codes for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code)}
    assert len(found) > 40
    assert found - known == {"--asymmetry"}  # of an algorithm of one's own


BENCHMARKS = sorted({code for code in in_text() if code.startswith("python -m benchmarks.")})


@pytest.mark.parametrize("command", BENCHMARKS)
def test_a_benchmark_is_there_with_its_flags(command: str) -> None:
    module, *words = shlex.split(command)[2:]
    assert find_spec(module) is not None
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text("utf-8")
    assert all(word in source for word in words if word.startswith("--"))


@pytest.mark.parametrize("command", [command for command in commands() if command.startswith(NOT_RUN)])
def test_what_installs_names_what_there_is(command: str) -> None:
    if command.startswith("make"):
        done = subprocess.run(
            ["make", "-n", *command.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return
    words = shlex.split(command)
    assert words[words.index("-c") + 1] == "constraints.txt"
    assert (ROOT / "constraints.txt").exists()
    extra = re.fullmatch(r"\.(?:\[(\w+)\])?", words[words.index("-e") + 1])
    assert extra is not None
    assert extra[1] is None or f"\n{extra[1]} = [" in (ROOT / "pyproject.toml").read_text("utf-8")


def test_the_page_of_settings_is_the_one_that_its_script_writes() -> None:
    assert settings_page.PAGE.read_text("utf-8") == settings_page.page()
    assert "| `learning_rate` | `0.001` | " in settings_page.page()


def test_the_page_of_the_doctor_is_up_to_date() -> None:
    assert doctor_page.PAGE.read_text("utf-8") == doctor_page.page()
    assert "### target-network\n\n- computed: whether Q" in doctor_page.page()


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert {name for name in pages if f"]({name})" not in index} == set()
