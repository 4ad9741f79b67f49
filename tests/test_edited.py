"""Runs whose `run.json` somebody changed by hand: they are what they were, and it is said what was changed."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch

import nexus
from nexus.cli.main import main
from nexus.core.errors import RunError
from nexus.core.installation import nexus_command
from nexus.listener import Listener
from nexus.training import curves
from nexus.training.config import TrainConfig
from nexus.training.edited import edits_of, read_run_or_copy
from nexus.training.files import write_json
from nexus.training.run_folder import read_run
from tests.chaos import SETTINGS, Silent, interrupt, interrupted


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("edited") / "run"
    nexus.train("CartPole-v1", run_dir=run, **(SETTINGS | {"target_return": None}))
    return run


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def edit(run: Path, old: str, new: str) -> None:
    """As an editor does."""
    text = (run / "run.json").read_text()
    assert text.count(old) >= 1
    (run / "run.json").write_text(text.replace(old, new))


class Heard(Listener):
    def __init__(self) -> None:
        self.said: list[str] = []

    def on_notice(self, text: str) -> None:
        self.said.append(text)


RATE = '"learning_rate": 0.001', '"learning_rate": 0.1'
SAYS = "was changed by hand: learning_rate is 0.1 in the file, 0.001 in the run; reading the run from checkpoint 600"


def same(one: nexus.DQNAgent, other: nexus.DQNAgent) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in mine | theirs)


def test_it_is_read_as_its_newest_checkpoint_has_it(copy: Path, trained: Path) -> None:
    edit(copy, *RATE)
    heard = Heard()
    agent = nexus.load_agent(copy, listener=heard)
    assert heard.said == [f"{copy / 'run.json'} {SAYS}"]
    assert agent.settings.learning_rate == 0.001
    assert same(agent, nexus.load_agent(trained))
    assert agent.epsilon == nexus.load_agent(trained).epsilon
    assert nexus.evaluate(copy, episodes=3, listener=heard) == nexus.evaluate(trained, episodes=3)
    assert len(heard.said) == 2
    with pytest.warns(RuntimeWarning, match="was changed by hand"):
        nexus.load_agent(copy)


def test_an_interrupted_run_has_the_weights_of_its_newest_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = SETTINGS | {"target_return": None, "seed": 2}
    interrupted(lambda: nexus.train("CartPole-v1", run_dir=run, listener=Silent(250, interrupt), **settings))
    right = nexus.load_agent(run)
    edit(run, *RATE)
    assert same(nexus.load_agent(run, listener=Heard()), right)
    edit(run, '"status": "interrupted"', '"status": "finished"')
    assert same(nexus.load_agent(run, listener=Heard()), right)


def test_commands_note_it_and_go_on(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("imageio_ffmpeg")
    edit(copy, *RATE)
    for words in (
        ["evaluate", str(copy), "--episodes", "2", "--json"],
        ["watch", str(copy), "--episodes", "1", "--video", str(tmp_path / "out.mp4")],
        ["plot", str(copy), "--out", str(tmp_path / "curves.png")],
    ):
        capsys.readouterr()
        assert main(words) == 0
        said = capsys.readouterr()
        assert (said.err + said.out).count(f"Note: {copy / 'run.json'} {SAYS}") == 1
    assert main(["verify", str(copy)]) == 2
    assert "differs from its checksum" in capsys.readouterr().err


def test_a_picture_is_the_same_as_without_the_change(copy: Path, trained: Path) -> None:
    edit(copy, *RATE)
    ours, theirs = (curves.read_runs([str(run)])[0] for run in (copy, trained))
    assert (ours.settings, ours.scores, ours.finished) == (theirs.settings, theirs.scores, True)
    assert {**ours.end, "seconds": 0.0} == {**theirs.end, "seconds": 0.0}


@pytest.mark.parametrize(
    ("edits", "says", "flags"),
    [
        ([RATE], "learning_rate is 0.1 in the file, 0.001 in the run", "--learning-rate 0.1"),
        ([('"double": true', '"double": false')], "double is False in the file, True in the run", "--no-double"),
        (
            [('"max_grad_norm": 10.0', '"max_grad_norm": null')],
            "max_grad_norm is None in the file",
            "--max-grad-norm none",
        ),
        (
            [('"eval_every": "150 steps"', '"eval_every": "9 steps"')],
            "eval_every is '9 steps'",
            "--eval-every '9 steps'",
        ),
        ([('"env": "CartPole-v1"', '"env": "Acrobot-v1"')], "env is 'Acrobot-v1' in the file", "--env Acrobot-v1"),
        (
            [('"gamma": 0.995', '"gama": 0.9')],
            "gamma is missing in the file, 0.995 in the run, gama is 0.9 in the file",
            "--gama 0.9",
        ),
        ([('"state_bounds"', '"state_bonds"')], "agent.state_bounds is missing in the file, [[", ""),
        (
            [('"seed": 0', '"seed": 1'), ('"tau": 0.02', '"tau": 1'), ('"n_step": 5', '"n_step": 1'), RATE],
            ", and 1 more. ",
            "--tau 1",
        ),
    ],
)
def test_to_go_on_is_refused_with_what_was_changed_and_how_to_train_with_it(
    edits: list[tuple[str, str]], says: str, flags: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for old, new in edits:
        edit(copy, old, new)
    with pytest.raises(RunError) as refused:
        nexus.resume(copy, total_steps=700)
    said = str(refused.value)
    assert said.startswith(f"{copy / 'run.json'} was changed by hand: ")
    assert says in said
    again = f"train again: {nexus_command('train', '--config', copy)}"
    if "agent." not in says:
        again = f"start another run with its weights: {nexus_command('train', '--from', copy)}"
    assert f"A run resumes with its original settings: undo the change, or {again}" in said
    assert flags in said
    assert len(said.splitlines()) == 1
    assert len(said) < 900
    capsys.readouterr()
    assert main(["resume", str(copy), "--total-steps", "700"]) == 2
    assert capsys.readouterr().err == f"nexus: error: {said}\n"


def test_to_undo_it_is_enough(copy: Path) -> None:
    edit(copy, *RATE)
    edit(copy, *RATE[::-1])
    nexus.resume(copy, total_steps=700, listener=Heard())


def test_a_change_of_no_setting_is_noted_and_not_gone_on_from(copy: Path) -> None:
    edit(copy, '"seconds"', '"secs"')
    heard = Heard()
    nexus.load_agent(copy, listener=heard)
    assert "differs from its checksum, but in no setting; reading the run from checkpoint 600" in heard.said[0]
    with pytest.raises(RunError, match=r"is damaged: it differs from its checksum$"):
        nexus.resume(copy, total_steps=700)


def drop_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")


def damage_checkpoints(run: Path) -> None:
    for path in run.glob("checkpoints/*/state.json"):
        path.write_text(path.read_text().replace("periodic", "periodical"))


def cut(run: Path) -> None:
    (run / "run.json").write_text((run / "run.json").read_text()[:-40])


def newer(run: Path) -> None:
    edit(run, '"format": 4', '"format": 99')


def older(run: Path) -> None:
    edit(run, '"format": 4', '"format": 2')


@pytest.mark.parametrize("damage", [drop_checkpoints, damage_checkpoints, cut, newer, older])
def test_without_a_copy_or_a_file_to_compare_it_is_damage(damage: Any, copy: Path) -> None:
    edit(copy, *RATE)
    damage(copy)
    assert edits_of(copy) == (None, {})
    for act in (nexus.load_agent, nexus.evaluate, nexus.resume):
        with pytest.raises(RunError, match=r"run\.json"):
            act(copy)


def test_the_newest_checkpoint_that_can_be_read_counts(copy: Path) -> None:
    edit(copy, *RATE)
    newest, second, *_ = sorted(map(int, (path.name for path in (copy / "checkpoints").iterdir())), reverse=True)
    (copy / "checkpoints" / str(newest) / "state.json").write_text("{}")
    found, changes = edits_of(copy)
    assert found is not None
    assert (found.steps, list(changes)) == (second, ["learning_rate"])


def test_what_a_checkpoint_says_of_its_run_can_not_change_the_rest(copy: Path) -> None:
    for path in copy.glob("checkpoints/*/state.json"):
        values = json.loads(path.read_text())
        write_json(path, {**values, "run": {**values["run"], "format": "x", "status": [], "progress": 3}})
    edit(copy, *RATE)
    read = read_run_or_copy(copy, str)
    assert (read["format"], read["status"], read["progress"]["steps"]) == (4, "finished", 600)
    nexus.load_agent(copy, listener=Heard())


def test_a_run_that_is_whole_is_read_as_it_is(trained: Path) -> None:
    said: list[str] = []
    assert read_run_or_copy(trained, said.append) == read_run(trained)
    assert said == []


def test_a_module_of_its_own_is_found_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edited_envs.py").write_text(
        "import gymnasium as gym\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
        "gym.register('EditedPole-v0', entry_point=CartPoleEnv, max_episode_steps=50)\n"
    )
    words = ["-n", "300", "--learning-starts", "64", "--eval-episodes", "2"]
    assert main(["train", "edited_envs:EditedPole-v0", *words, "--run-dir", "run"]) == 0
    edit(Path("run"), *RATE)
    monkeypatch.delitem(sys.modules, "edited_envs")
    monkeypatch.delitem(gym.registry, "EditedPole-v0")
    assert main(["evaluate", "run", "--episodes", "2"]) == 0


OF_FORMAT_3 = sorted((Path(__file__).parent / "runs_of_format_3").iterdir())


@pytest.mark.parametrize("old", OF_FORMAT_3, ids=lambda path: path.name)
def test_names_that_settings_had_in_an_older_checkpoint_are_no_changes(old: Path, tmp_path: Path) -> None:
    """As where a run of format 3 was taken further, killed before its next checkpoint, and changed by hand."""
    run = Path(shutil.copytree(old, tmp_path / "run"))
    values = read_run(run)
    values["config"] = TrainConfig.from_mapping(values["config"]).to_mapping()
    values["agent"] = {name: value for name, value in values["agent"].items() if name not in values["config"]}
    write_json(run / "run.json", {**values, "format": 4})
    edit(run, '"seconds"', '"secs"')
    found, changes = edits_of(run)
    assert found is not None
    assert changes == {}
    edit(run, '"gradient_steps": ', '"gradient_steps": 9')
    edit(run, '"rollout_steps": ', '"rollout_steps": 9')
    _, changes = edits_of(run)
    assert set(changes) == {"gradient_steps", "rollout_steps"}
    assert changes["gradient_steps"][1] == {"pqn": 16}.get(values["algorithm"], 2)


# Folders that are no runs, among those that a shell gives.


def test_what_is_no_run_is_left_out_of_a_picture_of_several(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "runs/a")
    Path("runs/notes").mkdir()
    Path("runs/notes.txt").write_text("mine")
    young = Path(shutil.copytree(trained, "runs/young"))
    (young / "episodes.csv").write_text("step,episode,return,length,seconds\n")
    for name in ("metrics.jsonl", "evaluation.json"):
        (young / name).unlink()
    given = sorted(map(str, Path("runs").iterdir()))
    capsys.readouterr()
    assert main(["plot", *given]) == 0
    said = capsys.readouterr().out
    assert "Note: runs/notes is skipped: it is not a run, since it has no run.json\n" in said
    assert "Note: runs/notes.txt is skipped: it is not a run, since it has no run.json\n" in said
    assert (
        "Note: runs/young has nothing to draw yet: no episode has ended, and there was no evaluation: skipped" in said
    )
    assert "Learning curves of 1 run(s) of CartPole-v1: curves.png\n" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["runs/notes"], "runs/notes is not a run folder: it has no run.json"),
        (["runs/notes", "runs/other"], "nothing to draw: none of these is a run with an episode or an evaluation"),
        (["runs/a", "runs/b"], "no run at runs/b: there is no such folder"),
        (["runs/a", "runs/damaged"], "is damaged"),
    ],
)
def test_nothing_else_is_left_out(
    words: list[str],
    says: str,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "runs/a")
    shutil.copytree(trained, "runs/damaged")
    Path("runs/damaged/metrics.jsonl").write_text('{"eval/mean_reward": 1}\n')
    for name in ("notes", "other"):
        Path("runs", name).mkdir()
    assert main(["plot", *words]) == 2
    assert says in capsys.readouterr().err
