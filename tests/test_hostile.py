"""Damaged and hostile run folders: one clear error or the right state, nothing executed, nothing large allocated."""

import json
import os
import re
import shutil
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nexus.api import evaluate, load_agent, resume, train
from nexus.cli.main import main
from nexus.core.errors import NexusError, RunError
from nexus.core.state import State
from nexus.runner import Run
from nexus.training import files
from nexus.training.config import TrainConfig
from nexus.training.files import read_json, write_json, write_tensors
from nexus.training.verify import verify
from tests.chaos import FRAMES, SETTINGS, Silent, interrupt, interrupted

ROOT = Path(__file__).resolve().parent.parent
MEGABYTE = 1 << 20
TINY: dict[str, Any] = SETTINGS | {"hidden_dim": 8, "prioritized": True, "eval_every": "100 steps"}
SECRET = b"not yours\n" * 1000


def begun(folder: Path, env: str, settings: dict[str, Any]) -> Path:
    """A run with two checkpoints, broken after step 250."""
    config = TrainConfig.from_mapping({name: value for name, value in settings.items() if name != "env"})
    interrupted(lambda: train(env, config=config, run_dir=folder / "run", listener=Silent(250, interrupt)))
    restored(folder / "run")  # the first in a process imports much, which is no reading
    return folder / "run"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with vectors for states."""
    return begun(tmp_path_factory.mktemp("pristine"), "CartPole-v1", TINY)


@pytest.fixture(scope="module")
def framed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with a replay of compressed frames."""
    return begun(tmp_path_factory.mktemp("framed"), FRAMES["env"], FRAMES)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with a replay of raw frames."""
    return begun(tmp_path_factory.mktemp("raw"), FRAMES["env"], FRAMES | {"replay_store": "raw"})


@pytest.fixture
def copy(pristine: Path, tmp_path: Path) -> Path:
    """A copy of that run, to damage."""
    return Path(shutil.copytree(pristine, tmp_path / "run"))


def restored(run: Path) -> tuple[int, State]:
    """Go on with a run as `resume` does, up to its first step; return where that is, and everything it has."""
    found: list[tuple[int, State]] = []

    def stop(self: Run) -> Any:
        columns = {
            f"{series.name}.{name}": values
            for series in self.parts.series()
            for name, values in series.get(series.first, series.last).items()
        }
        found.append((self.parts.counters.steps, {**self.get_state(), **columns}))
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "run", stop)
        with pytest.raises(KeyboardInterrupt):
            resume(run, listener=Silent())
    return found[0]


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def newest(run: Path) -> Path:
    return max((run / "checkpoints").iterdir(), key=lambda path: int(path.name))


def all_states(run: Path) -> Any:
    """What each checkpoint of a run holds, and its weights; reads a copy that lacks the newer ones."""
    weights = {name: value.numpy() for name, value in load_agent(run).state_dict().items()}
    states = {}
    with tempfile.TemporaryDirectory() as folder:
        other = Path(shutil.copytree(run, Path(folder, "run")))
        while list((other / "checkpoints").iterdir()):
            steps, states[steps] = restored(other)
            shutil.rmtree(newest(other))
    return weights, states


# Damage: flipped, cut, swapped, deleted.


def flip(path: Path, at: float, other: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[int(at * len(content)) % len(content)] ^= 1 << int(at * 8e6) % 8
    path.write_bytes(content)


def cut(path: Path, at: float, other: Path) -> None:
    path.write_bytes(path.read_bytes()[: int(at * path.stat().st_size)])


def swap(path: Path, at: float, other: Path) -> None:
    mine, its = path.read_bytes(), other.read_bytes()
    path.write_bytes(its)
    other.write_bytes(mine)


def delete(path: Path, at: float, other: Path) -> None:
    path.unlink()


def blank(path: Path, at: float, other: Path) -> None:
    content = bytearray(path.read_bytes())
    start = int(at * len(content))
    content[start : start + 16] = bytes(len(content[start : start + 16]))
    path.write_bytes(content)


def double(path: Path, at: float, other: Path) -> None:
    content = path.read_bytes()
    start = int(at * len(content))
    path.write_bytes(content[:start] + content[start : start + 32] + content[start:])


DAMAGE = st.tuples(
    st.integers(0, 1),
    st.sampled_from([flip, cut, swap, delete, blank, double]),
    st.integers(0, 10**6),
    st.floats(0, 0.999999),
    st.integers(0, 10**6),
)


class Whole:
    """Runs to damage, and what each holds. Hypothesis prints it: arrays would hide what failed."""

    def __init__(self, *runs: Path) -> None:
        self.runs = [(run, all_states(run)) for run in runs]


@pytest.fixture(scope="module")
def right(pristine: Path, framed: Path) -> Whole:
    return Whole(pristine, framed)


def tried(right: Whole, damage: tuple[int, Callable[..., None], int, float, int]) -> None:
    run_number, act, which, at, other = damage
    whole, (weights, states) = right.runs[run_number]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(whole, Path(folder, "run")))
        there = sorted(path for path in run.rglob("*") if path.is_file())
        lines: list[str] = []
        act(there[which % len(there)], at, there[other % len(there)])
        try:
            agent = load_agent(run)
            assert same({name: value.numpy() for name, value in agent.state_dict().items()}, weights)
        except NexusError as error:
            lines += [str(error)]
        try:
            verify(run)
        except NexusError as error:
            lines += [str(error)]
        try:
            steps, state = restored(run)
            assert same(state, states[steps])
        except NexusError as error:
            lines += [str(error)]
        assert all(len(line.splitlines()) == 1 for line in lines)


QUICKLY = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@QUICKLY
@given(DAMAGE)
def test_a_damaged_run_is_an_error_or_the_right_state(right: Whole, damage: Any) -> None:
    tried(right, damage)


@pytest.mark.slow
@settings(QUICKLY, max_examples=2_000)
@given(DAMAGE)
@example((0, flip, 0, 0.0, 0))
def test_two_thousand_damaged_runs_are_an_error_or_the_right_state(right: Whole, damage: Any) -> None:
    tried(right, damage)


@pytest.mark.parametrize("which", ["pristine", "framed"])
def test_every_file_but_those_of_tensorboard_is_checked(
    which: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    copy = Path(shutil.copytree(request.getfixturevalue(which), tmp_path / "run"))
    checked = [path for path in sorted(copy.rglob("*")) if path.is_file() and path.name != ".lock"]
    for path in checked:
        if path.parent.name == "tensorboard":
            continue
        before = path.read_bytes()
        path.write_bytes(before[:40] + bytes([before[40] ^ 1]) + before[41:])
        try:
            assert not verify(copy).whole, path
        except RunError:
            assert path.name == "run.json"
        path.write_bytes(before)
    assert verify(copy).whole
    assert len(verify(copy).checkpoints) == 3  # two that came with their period, and the last


def test_verify_says_what_is_damaged_and_what_is_left(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, older, last = sorted(int(path.name) for path in (copy / "checkpoints").iterdir())
    assert main(["verify", str(copy)]) == 0
    assert f"step {last}" in capsys.readouterr().out
    flip(newest(copy) / "state.safetensors", 0.9, copy)
    assert main(["verify", str(copy)]) == 2
    said = capsys.readouterr()
    assert f"checkpoint {last}" in said.err
    assert f"step {older}" in said.out


# Hostile: whoever wrote it knows of the checksums.


class Bomb:
    """A pickle that touches a file when it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def bytes(self) -> bytes:
        return b"cposix\nsystem\n(S'touch " + str(self.target).encode() + b"'\ntR."


def change_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(path.read_text())
    change(values)
    write_json(path, values)


def in_run(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda run: change_json(run / "run.json", change)


def in_state(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change `state.json` of every checkpoint."""

    def act(run: Path) -> None:
        for path in (run / "checkpoints").glob("*/state.json"):
            change_json(path, change)

    return act


def in_arrays(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change the arrays of every checkpoint."""

    def act(run: Path) -> None:
        for path in (run / "checkpoints").glob("*/state.safetensors"):
            arrays = dict(safetensors.numpy.load_file(path))
            change(arrays)
            change_json(path.with_name("state.json"), set_in("arrays", to=vars(write_tensors(path, arrays))))

    return act


def in_weights(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def act(run: Path) -> None:
        arrays = dict(safetensors.numpy.load_file(run / "agent.safetensors"))
        change(arrays)
        write_tensors(run / "agent.safetensors", arrays)

    return act


def in_chunks(change: Callable[[dict[str, Any]], Any], of: str = "rows") -> Callable[[Path], None]:
    """Change the chunks of rows, or of frames."""

    def act(run: Path) -> None:
        marks = {}
        for path in (run / "replay").glob("frames-*" if of == "frames" else "0*"):
            arrays = dict(safetensors.numpy.load_file(path))
            change(arrays)
            marks[of, int(path.name.removeprefix("frames-")[:12])] = vars(write_tensors(path, arrays))
        assert marks
        in_state(
            lambda values: [
                entry.update(marks.get((entry["series"], entry["first"]), {})) for entry in values["replay"]
            ]
        )(run)

    return act


def in_frames(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change a column of the chunks of frames."""
    return in_chunks(lambda arrays: arrays.update({name: change(arrays[name])}), "frames")


def in_numbers(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change which frames the states of rows end with."""
    return in_chunks(lambda arrays: arrays.update(states=change(arrays["states"])))


def packed(content: bytes, with_size: bool = True) -> Callable[[dict[str, Any]], None]:
    """Put this in place of the first group, compressed."""

    def change(arrays: dict[str, Any]) -> None:
        group = zstandard.ZstdCompressor(level=3, write_content_size=with_size).compress(content)
        rest = arrays["packed"][int(arrays["sizes"][0]) :]
        arrays["sizes"] = np.array([len(group), *arrays["sizes"][1:]])
        arrays["packed"] = np.concatenate([np.frombuffer(group, np.uint8), rest])

    return change


def entries(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change what `state.json` says of the chunks of frames."""
    return in_state(lambda values: [change(entry) for entry in values["replay"] if entry["series"] == "frames"])


def sparse(name: str) -> Callable[[Path], None]:
    """A file of 50 GB that takes no room."""

    def act(run: Path) -> None:
        for path in run.glob(name):
            os.truncate(path, 50 * 1000 * MEGABYTE)

    return act


def header(name: str) -> Callable[[Path], None]:
    """A header that promises more than there is."""

    def act(run: Path) -> None:
        text = b'{"__metadata__":{"sha256":"' + files.ZEROS + b'"},"x":{"dtype":"F32","shape":[1000000000000],'
        text += b'"data_offsets":[0,4000000000000]}}'
        for path in run.glob(name):
            files.write_sealed(path, len(text).to_bytes(8, "little") + text, at_end=False)
            if path.name == "state.safetensors":
                change_json(path.with_name("state.json"), set_in("arrays", to=read_mark(path)))

    return act


def read_mark(path: Path) -> dict[str, Any]:
    digits = re.search(rb'"sha256":"([0-9a-f]{64})"', path.read_bytes())
    assert digits is not None
    return {"bytes": path.stat().st_size, "sha256": digits[1].decode()}


def link(name: str) -> Callable[[Path], None]:
    """A file or folder of the run is a link to one outside."""

    def act(run: Path) -> None:
        outside = run.parent / "outside"
        shutil.move(run / name, outside)
        (run / name).symlink_to(outside)

    return act


def set_in(*keys: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = to

    return change


def nan(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda arrays: arrays.update({name: np.full_like(arrays[name], np.nan)})


def text(name: str, content: str) -> Callable[[Path], None]:
    def act(run: Path) -> None:
        for path in run.glob(name):
            path.write_text(content)

    return act


WEIGHT = "q_network.head.linear.weight"
BOTH: dict[str, Callable[[Path], None]] = {
    "newer format": in_run(set_in("format", to=99)),
    "no format": in_run(set_in("format", to="new")),
    "no checksum": text("run.json", '{"format": 2}'),
    "deep json": text("run.json", "[" * 200_000),
    "long number": text("run.json", '{"format": ' + "9" * 10_000 + "}"),
    "huge network": in_run(set_in("config", "hidden_dim", to=10**8)),
    "many layers": in_run(set_in("config", "hidden_layers", to=10**9)),
    "huge state": in_run(set_in("agent", "state_dim", to=[10**6, 10**6])),
    "no number": in_run(set_in("config", "hidden_dim", to="8")),
    "agent of another kind": in_run(set_in("config", "algorithm", to=["dqn"])),
    "an agent that says it otherwise": in_run(set_in("agent", "hidden_dim", to=7)),
    "an agent with more": in_run(set_in("agent", "hidden_cats", to=7)),
    "no agent": in_run(set_in("agent", to=[1])),
}
LOADING: dict[str, Callable[[Path], None]] = {
    "wrong shape": in_weights(lambda arrays: arrays.update({WEIGHT: arrays[WEIGHT].T.copy()})),
    "wrong dtype": in_weights(lambda arrays: arrays.update({WEIGHT: arrays[WEIGHT].astype(np.float64)})),
    "more weights": in_weights(lambda arrays: arrays.update(evil=np.zeros(3))),
    "fewer weights": in_weights(lambda arrays: arrays.pop(WEIGHT)),
    "nan": in_weights(nan(WEIGHT)),
    "huge file": sparse("agent.safetensors"),
    "huge header": header("agent.safetensors"),
    "link": link("agent.safetensors"),
}
RESUMING: dict[str, Callable[[Path], None]] = {
    "newer setting": in_run(set_in("config", "warp_factor", to=9)),
    "no config": in_run(set_in("config", to=None)),
    "other network": in_run(set_in("config", "hidden_dim", to=10**8)),
    "huge replay": in_run(set_in("config", "replay_capacity", to=10**15)),
    "many environments": in_run(set_in("config", "num_envs", to=10**9)),
    "many frames": in_run(set_in("config", "frame_stack", to=10**9)),
    "unknown environment": in_run(set_in("env", to="NoSuch-v0")),
    "newer checkpoint": in_state(set_in("format", to=99)),
    "other steps": in_state(set_in("steps", to=7)),
    "steps that lie": in_state(set_in("values", "counters.steps", to=7)),
    "names that lead out": in_state(set_in("logs", "files", to={"../../x": {"bytes": 1, "sha256": ""}})),
    "no values": in_state(set_in("values", to=[])),
    "negative": in_state(set_in("values", "replay.added", to=-5)),
    "too many": in_state(set_in("values", "replay.added", to=10**18)),
    "no generator": in_state(set_in("values", "agent.exploration", to={"bit_generator": "MT19937"})),
    "strange generator": in_state(set_in("values", "replay.rng", "state", to={"state": "x", "inc": []})),
    "infinite": in_state(set_in("values", "replay.highest_priority", to=float("inf"))),
    "no evaluation": in_state(set_in("values", "evaluation", to={"mean": 1})),
    "missing chunk": in_state(lambda values: values["replay"].pop(0)),
    "endless chunk": in_state(lambda values: values["replay"][0].update(last=10**11)),
    "chunks from nowhere": in_state(set_in("replay", to=[{"first": "../x"}])),
    "wrong shape": in_arrays(lambda arrays: arrays.update({f"agent.{WEIGHT}": np.zeros((2, 9), np.float32)})),
    "nan": in_arrays(nan(f"agent.{WEIGHT}")),
    "nan moments": in_arrays(nan("agent.optimizer.exp_avg")),
    "nan priorities": in_arrays(nan("replay.leaves")),
    "negative priorities": in_arrays(lambda arrays: arrays.update({"replay.leaves": -arrays["replay.leaves"]})),
    "no torch generator": in_arrays(lambda arrays: arrays["agent.generators.noise"].fill(255)),
    "scalar returns": in_arrays(lambda arrays: arrays.update({"episodes.returns": np.array(1.0)})),
    "wide states": in_chunks(lambda arrays: arrays.update(states=np.zeros((len(arrays["actions"]), 9)))),
    "other column": in_chunks(lambda arrays: arrays.update(evil=arrays["actions"])),
    "no column": in_chunks(lambda arrays: arrays.pop("actions")),
    "short column": in_chunks(lambda arrays: arrays.update(actions=arrays["actions"][:-1])),
    "huge file": sparse("checkpoints/*/state.safetensors"),
    "huge chunk": sparse("replay/*"),
    "huge header": header("checkpoints/*/state.safetensors"),
    "linked log": link("metrics.jsonl"),
    "linked folder": link("checkpoints"),
    "linked replay": link("replay"),
    "linked run": link("run.json"),
    "linked board": link("tensorboard"),
}


GROUP_BYTES = 8 * 15  # of frames of 3 x 5
COMPRESSED: dict[str, Callable[[Path], None]] = {
    "far too many": in_state(set_in("values", "replay.frames.opened", to=10**15)),
    "more than a number holds": in_state(set_in("values", "replay.frames.opened", to=10**30)),
    "none": in_state(set_in("values", "replay.frames.opened", to=0)),
    "a part of one": in_state(set_in("values", "replay.frames.opened", to=1.5)),
    "missing": in_state(lambda values: values["values"].pop("replay.frames.opened")),
    "released before the first": in_state(set_in("values", "replay.frames.released", to=-1)),
    "released after the last": in_state(set_in("values", "replay.frames.released", to=10**6)),
    "all released": in_state(
        lambda v: v["values"].update({"replay.frames.released": v["values"]["replay.frames.opened"]})
    ),
    "reaching back behind the first": in_state(set_in("values", "replay.frames.lag", to=10**9)),
    "no frames": entries(lambda entry: entry.update(series="rows")),
    "of something else": entries(lambda entry: entry.update(series="evil")),
    "a name that leads out": entries(lambda entry: entry.update(series="../../x")),
    "no name": entries(lambda entry: entry.update(series=["frames"])),
    "one chunk too few": in_state(lambda values: values["replay"].pop(0)),
    "endless": entries(lambda entry: entry.update(last=10**11)),
    "ages that can't be": in_frames("ages", lambda ages: ages + (ages == ages.max())),
    "ages of another shape": in_frames("ages", lambda ages: ages[:, :4].copy()),
    "before the first": in_frames("previous", lambda previous: np.full_like(previous, -(2**63))),
    "after itself": in_frames("previous", lambda previous: np.full_like(previous, 2**62)),
    "following on what is gone": in_frames("previous", lambda previous: previous - 10**6),
    "sizes below 0": in_frames("sizes", np.negative),
    "sizes that overflow": in_frames("sizes", lambda sizes: np.full_like(sizes, 2**62)),
    "sizes of nothing": in_frames("sizes", np.zeros_like),
    "sizes of another dtype": in_frames("sizes", lambda sizes: sizes.astype(np.float64)),
    "sizes that do not add up": in_frames("sizes", lambda sizes: sizes + 1),
    "sizes swapped": in_frames("sizes", lambda sizes: sizes[::-1].copy()),
    "too few sizes": in_frames("sizes", lambda sizes: sizes[1:].copy()),
    "a single size": in_frames("sizes", lambda sizes: np.array(3)),
    "no zstandard": in_frames("packed", lambda found: np.random.default_rng(0).integers(0, 256, len(found), np.uint8)),
    "a group too large": in_chunks(packed(bytes(GROUP_BYTES + 1)), "frames"),
    "a group too small": in_chunks(packed(bytes(GROUP_BYTES - 1)), "frames"),
    "a group of unknown size": in_chunks(packed(bytes(GROUP_BYTES), with_size=False), "frames"),
    "a bomb": in_chunks(packed(bytes(4_000 * MEGABYTE // 16)), "frames"),
    "a column of rows": in_chunks(lambda arrays: arrays.pop("packed"), "frames"),
    "numbers below 0": in_numbers(lambda states: states - 10**6),
    "numbers too high": in_numbers(lambda states: states + 10**6),
    "numbers that overflow": in_numbers(lambda states: np.full_like(states, 2**63 - 1)),
    "numbers of another dtype": in_numbers(lambda states: states.astype(np.float32)),
    "numbers of another shape": in_numbers(lambda states: states[:, None]),
    "another capacity": in_run(set_in("config", "replay_capacity", to=30)),
    "another stack": in_run(set_in("config", "frame_stack", to=2)),
    "another store": in_run(set_in("config", "replay_store", to="raw")),
    "no store of frames": in_run(set_in("config", "replay_store", to="full")),
    "huge chunk": sparse("replay/frames-*"),
}
RAW: dict[str, Callable[[Path], None]] = {
    "larger frames": in_frames("frames", lambda frames: np.concatenate([frames, frames], 2)),
    "fewer": in_frames("frames", lambda frames: frames[1:].copy()),
    "another dtype": in_frames("frames", lambda frames: frames.astype(np.int64)),
    "flat": in_frames("frames", lambda frames: frames.reshape(-1)),
    "another store": in_run(set_in("config", "replay_store", to="compressed")),
}


def refused_cheaply(act: Callable[[], object]) -> str:
    """The one line of the error that an action ends with; it may not take much memory first."""
    tracemalloc.start()
    try:
        with pytest.raises(NexusError) as caught:
            act()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * MEGABYTE
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("name", [*BOTH, *LOADING])
def test_hostile_weights_are_refused(name: str, copy: Path) -> None:
    (BOTH | LOADING)[name](copy)
    refused_cheaply(lambda: load_agent(copy))


@pytest.mark.parametrize("name", [*BOTH, *RESUMING])
def test_a_hostile_run_is_not_resumed(name: str, copy: Path) -> None:
    (BOTH | RESUMING)[name](copy)
    outside = copy.parent / "outside"
    kept = outside.read_bytes() if outside.is_file() else None
    refused_cheaply(lambda: resume(copy, listener=Silent()))
    assert kept is None or outside.read_bytes() == kept


@pytest.mark.parametrize(
    ("which", "name"), [*(("framed", name) for name in COMPRESSED), *(("raw", name) for name in RAW)]
)
def test_hostile_frames_are_not_taken_on(which: str, name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    run = Path(shutil.copytree(request.getfixturevalue(which), tmp_path / "run"))
    (COMPRESSED if which == "framed" else RAW)[name](run)
    refused_cheaply(lambda: resume(run, listener=Silent()))


def test_pickles_are_never_read(copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "exploded"
    for path in (copy / "agent.safetensors", *copy.glob("checkpoints/*/*"), *copy.glob("replay/*")):
        path.write_bytes(Bomb(target).bytes())
    refused_cheaply(lambda: load_agent(copy))
    refused_cheaply(lambda: resume(copy, listener=Silent()))
    assert not verify(copy).whole
    (copy / "run.json").write_bytes(Bomb(target).bytes())
    refused_cheaply(lambda: load_agent(copy))
    refused_cheaply(lambda: verify(copy))
    assert not target.exists()


def test_a_run_does_not_bring_its_own_code(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "payload.py").write_text(f"open({str(tmp_path / 'exploded')!r}, 'w')\n")
    change_json(copy / "run.json", set_in("env", to="run.payload:CartPole-v1"))
    monkeypatch.syspath_prepend(tmp_path)  # whoever stands beside the run has this on the path
    for act in (lambda: resume(copy, listener=Silent()), lambda: evaluate(copy, episodes=1)):
        assert "a module in its folder" in refused_cheaply(act)
    assert not (tmp_path / "exploded").exists()


def test_an_older_run_without_checksums_is_read(copy: Path) -> None:
    newer = ("sha256", "weights")
    values = {name: value for name, value in read_json(copy / "run.json").items() if name not in newer}
    (copy / "run.json").write_text(json.dumps(values | {"format": 1}))
    arrays = safetensors.numpy.load_file(copy / "agent.safetensors")
    safetensors.numpy.save_file(arrays, copy / "agent.safetensors")
    load_agent(copy)


FORBIDDEN = re.compile(r"\b(c?pickle|cloudpickle|dill|joblib|shelve|marshal)\b|torch\.(load|save)\b|\b(eval|exec)\(")


def test_nothing_in_the_package_unpickles_or_executes_text() -> None:
    said = re.compile(r"[Nn]o pickle|without pickle|pickle anywhere")
    found = [
        f"{path}:{number}: {line.strip()}"
        for path in sorted((ROOT / "nexus").rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if FORBIDDEN.search(said.sub("", line))
    ]
    assert found == []
    assert FORBIDDEN.search("import pickle")
    assert FORBIDDEN.search("torch.load(path)")
    assert FORBIDDEN.search("x = eval(text)")
    assert not FORBIDDEN.search("network.eval_every(")


@pytest.mark.parametrize("damage", [flip, cut, delete])
def test_damaged_final_weights_do_not_keep_a_run_from_going_on(damage: Callable[..., None], copy: Path) -> None:
    damage(copy / "agent.safetensors", 0.5, copy)
    refused_cheaply(lambda: load_agent(copy))
    assert restored(copy)[0] == int(newest(copy).name) >= 200


def test_a_network_larger_than_its_weights_is_not_made(copy: Path) -> None:
    in_run(set_in("config", "hidden_dim", to=1_500))(copy)  # 9 MB, and no number above the size of a file
    assert "size differs" in refused_cheaply(lambda: load_agent(copy))


def test_a_linked_folder_is_not_emptied(copy: Path) -> None:
    link("tensorboard")(copy)
    there = sorted((copy.parent / "outside").iterdir())
    assert there
    refused_cheaply(lambda: resume(copy, listener=Silent()))
    assert sorted((copy.parent / "outside").iterdir()) == there
