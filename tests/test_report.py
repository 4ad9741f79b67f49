"""`nexus report`: the numbers of a run's files in one HTML page that is safe, small and whole, whatever they hold."""

import base64
import hashlib
import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nexus
from nexus.cli.main import main
from nexus.cli.train import TrainCommand, read_as
from nexus.core.errors import ConfigError, RunError
from nexus.reporting.charts import ChartOnPage, Line, most_points
from nexus.reporting.downsampling import points_to_draw
from nexus.reporting.page import with_code
from nexus.reporting.reading import read_contents
from nexus.training.config import TrainConfig
from nexus.training.files import write_json
from tests.training import short_run

ROOT = Path(__file__).resolve().parent.parent
OLD = sorted(path for version in (2, 3) for path in (ROOT / "tests" / f"runs_of_format_{version}").iterdir())
HEADER = "step,episode,return,length,seconds\n"
RETURNS = "100,1,10,100,10\n200,2,20,100,20\n300,3,30.5,100,30\n"
LOSSES = [
    {"step": 100, "train/loss": 0.5, "train/q_max": 1.5, "train/q_mean": 1.0, "time/fps": 900.25, "mine/odd": 7},
    {"step": 200, "train/loss": 0.1234567890123456, "train/q_max": 2.5, "train/q_mean": 1.25, "time/fps": 901},
    {"step": 300, "train/loss": 4000, "train/q_max": 3.5, "train/q_mean": 1.5, "time/fps": 902},
]
SCORES = {100: 50.0, 200: 60.0, 300: 70.0}
HOSTILE = "<script>alert(1)</script>\"'&\u2028\u2029</style><!--"
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write the folder of a run that ended after 300 steps and 3 episodes."""

    def run(
        name: str,
        *,
        env: str = "CartPole-v1",
        episodes: str | None = HEADER + RETURNS,
        lines: str | None = None,
        scores: Mapping[int, float] = SCORES,
        status: str = "finished",
        rules: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
        **config: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        settings = {"eval_episodes": 100, "seed": 1, "total_steps": 300, "learning_starts": 50, **config}
        progress = {"steps": 300, "episodes": 3, "updates": 40}
        about = {"env": env, "env_is_id": True, "algorithm": "dqn", "preset": "plain", "config": settings}
        about |= {"progress": progress, "versions": {"python": "3.11.0", "torch": "2.6"}, **(more or {})}
        write_json(folder / "run.json", {"format": 4, "status": status, "seconds": 30.0, **about})
        if episodes is not None:
            (folder / "episodes.csv").write_text(episodes)
        evaluations = [
            {"step": step, "eval/mean_reward": mean, "eval/std_reward": 10.0} for step, mean in scores.items()
        ]
        if lines is None:
            lines = "".join(json.dumps(line) + "\n" for line in [*LOSSES, *evaluations])
        (folder / "metrics.jsonl").write_text(lines)
        if status == "finished" and scores:
            protocol = {"env": env, "episodes": 4, "epsilon": 0.0, "seed": 5, "max_episode_steps": 100_000}
            protocol |= {"frame_skip": 1, "frame_stack": 1, "rules": rules}
            final = {"mean": 70.0, "std": 8.0, "low": 65.0, "high": 80.0, "episodes": 4, "mean_length": 70.0}
            write_json(
                folder / "evaluation.json",
                {"steps": 300, **final, "returns": [60.0, 70.0, 70.0, 80.0], "protocol": protocol},
            )
        return folder

    return run


class Page(HTMLParser):
    """A page as a browser reads it: its tags, its text, and the content of its scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self._within = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = tag
        self.text = "" if tag == "body" else f"{self.text} "
        if tag in self.inline:
            self.inline[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""
        self.text += " "

    def handle_data(self, data: str) -> None:
        if self._within in self.inline:
            self.inline[self._within][-1] += data
        else:
            self.text += data

    @property
    def data(self) -> dict[str, Any]:
        """What the page draws."""
        found: dict[str, Any] = json.loads(self.inline["script"][0])
        return found

    @property
    def words(self) -> str:
        """The text with single spaces."""
        return " ".join(self.text.split())

    def chart(self, title: str) -> dict[str, dict[str, Any]]:
        """The lines of a chart by their labels."""
        (chart,) = (chart for chart in self.data["charts"] if chart["title"] == title)
        return {line["label"]: line for line in chart["lines"]}


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., Page]:
    """Write a report and read it."""

    def read(*runs: Any, **how: Any) -> Page:
        return Page(nexus.report(list(runs), tmp_path / "page.html", **how).read_text("utf-8"))

    return read


ReadPage = Callable[..., Page]

# The numbers.


def test_the_numbers_are_those_of_the_files(make: Make, page: ReadPage) -> None:
    found = page(make("a"))
    evaluations = found.chart("Return")["evaluations"]
    assert (evaluations["x"], evaluations["y"]) == ([100, 200, 300], [50, 60, 70])
    # 1.96 standard errors of 10 / sqrt(100), and for the last what evaluation.json says.
    assert evaluations["low"] == pytest.approx([48.04, 58.04, 65])
    assert evaluations["high"] == pytest.approx([51.96, 61.96, 80])
    episodes = found.chart("Return")["episodes"]
    assert (episodes["x"], episodes["y"]) == ([100, 200, 300], [10, 20, 30.5])
    assert found.chart("Return")["mean of 20 episodes"]["y"] == pytest.approx([10, 15, 60.5 / 3])
    assert found.chart("Loss")["loss"]["y"] == [0.5, 0.1234567890123456, 4000]
    assert found.chart("Q-values")["maximum"]["y"] == [1.5, 2.5, 3.5]
    assert found.chart("Q-values")["mean"]["y"] == [1, 1.25, 1.5]
    assert found.chart("Steps per second")["steps per second"]["y"] == [900.25, 901, 902]
    assert (found.chart("mine/odd")["value"]["x"], found.chart("mine/odd")["value"]["y"]) == ([100], [7])


def test_it_says_what_was_trained_and_how_it_scored(make: Make, page: ReadPage) -> None:
    said = page(make("a", gamma=0.5)).words
    assert said.startswith("CartPole-v1, dqn status finished steps 300 of 300 seed 1 episodes 3 updates 40 time 30 s")
    assert "70.0 (95 % interval 65.0 to 80.0)" in said
    assert "protocol greedy, 4 full episodes, unclipped rewards, seed 5" in said
    assert "best 70.0 at step 300" in said
    assert "gamma 0.5 0.99" in said
    assert "torch 2.6" in said
    sections = [given["id"] for tag, given in page(make("b")).tags if tag == "section"]
    assert sections == ["score", "findings", "curves", "film", "replay", "settings", "repeat"]


def test_without_a_final_evaluation_the_last_one_is_the_score(make: Make, page: ReadPage) -> None:
    said = page(make("a", status="running")).words
    assert "status running, or killed" in said
    assert "70.0 (95 % interval 68.0 to 72.0)" in said
    assert "the last evaluation during training, at step 300: the final weights have none" in said
    assert "This run has not been evaluated." in page(make("b", scores={}, status="running")).words


def test_a_run_in_progress_is_as_far_as_its_logs(make: Make, page: ReadPage) -> None:
    more = {"progress": {"steps": 0, "episodes": 0, "updates": 0}, "seconds": 0.0}
    lines = '{"step": 350, "train/n_updates": 75, "train/loss": 1.0}\n'
    said = page(make("a", status="running", more=more, lines=lines, total_steps=1_000)).words
    assert "steps 350 of 1,000 seed 1 episodes 3 updates 75 time 30 s" in said


def test_the_numbers_of_a_real_run_are_those_of_its_files(tmp_path: Path, page: ReadPage) -> None:
    result = short_run(
        "CartPole-v1", tmp_path, total_steps=2_000, eval_every="500 steps", eval_episodes=4, log_every="50 steps"
    )
    found = page(result)
    logged = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    names = {
        "train/loss": ("Loss", "loss"),
        "train/q_max": ("Q-values", "maximum"),
        "train/q_mean": ("Q-values", "mean"),
        "rollout/exploration_rate": ("Exploration", "ε"),
        "train/learning_rate": ("Learning rate", "learning rate"),
        "time/fps": ("Steps per second", "steps per second"),
        "doctor/predicted_start": ("Value of first states", "predicted"),
        "doctor/realised_start": ("Value of first states", "realised"),
    }
    others = {name for line in logged for name in line if not name.startswith("eval/m") and name != "step"} - {
        *names,
        "eval/std_reward",
    }
    assert len(others) > 20
    names |= {name: (name, "value") for name in others}
    names["eval/mean_ep_length"] = ("eval/mean_ep_length", "value")
    for name, (title, label) in names.items():
        line = found.chart(title)[label]
        expected = [(entry["step"], entry[name]) for entry in logged if name in entry]
        assert list(zip(line["x"], line["y"], strict=True)) == expected, name
        assert expected, name
    assert result.evaluation is not None
    final = found.chart("Return")["evaluations"]
    ends = [final[name][-1] for name in ("y", "low", "high")]
    assert ends == [result.evaluation.mean, result.evaluation.low, result.evaluation.high]
    assert str(result.evaluation.protocol) in found.words
    diagnosis = nexus.diagnose(result)
    assert all(symptom.text in found.words and symptom.cure in found.words for symptom in diagnosis.symptoms)
    assert all(why in found.words for why in diagnosis.unjudged.values())


def test_the_root_cause_comes_first_and_its_consequences_are_folded(make: Make, page: ReadPage) -> None:
    found = page(make("a", learning_rate=0.5, total_steps=30_000, epsilon_min=0.5))
    diagnosis = nexus.diagnose(make("b", learning_rate=0.5, total_steps=30_000, epsilon_min=0.5))
    assert diagnosis.root is not None
    assert len(diagnosis.symptoms) > 1
    first = found.html.index(diagnosis.root.threshold)
    assert found.html.index('<div class="root ') < first < found.html.index("<summary>", first)
    for symptom in diagnosis.symptoms[1:]:
        assert found.html.index(f"{len(diagnosis.symptoms) - 1} more: ") < found.html.index(symptom.check, first)


def test_a_diverged_run_says_so_and_leaves_gaps(make: Make, page: ReadPage) -> None:
    lines = (
        '{"step": 100, "train/loss": 1.0}\n{"step": 200, "train/loss": Infinity}\n{"step": 300, "train/loss": NaN}\n'
    )
    why = "the loss is inf at step 200"
    found = page(make("a", status="diverged", lines=lines, scores={}, more={"divergence": why}))
    assert found.chart("Loss")["loss"]["y"] == [1, None, None]
    assert "2 of the logged values are not finite: they leave a gap." in found.words
    assert f"divergence {why}" in found.words
    assert "critical: diverged" in found.words


# Several runs.


def test_several_runs_share_a_table_and_charts(make: Make, page: ReadPage) -> None:
    runs = [make("a"), make("b", seed=2, gamma=0.5), make("c", env="Acrobot-v1")]
    found = page(*runs, runs[0])
    assert found.data["runs"] == 3
    assert found.words.startswith("3 runs of CartPole-v1, Acrobot-v1")
    rows = re.findall(r"<tr><th scope=\"row\"><span.*?</tr>", found.html)
    cells = [re.sub(r"<[^>]+>", "|", row) for row in rows]
    texts = [[text for text in row.split("|") if text.strip()] for row in cells]
    assert texts[0][:4] == ["a", "70.0", "65.0 to 80.0", "4"]
    assert texts[0][-2:] == ["1", "0.99"]
    assert texts[1][-2:] == ["2", "0.5"]
    assert texts[2][0] == "c"
    losses = [chart["lines"] for chart in found.data["charts"] if chart["title"] == "Loss"]
    assert [[line["label"] for line in lines] for lines in losses] == [["a", "b"], ["c"]]
    assert [[line["run"] for line in lines] for lines in losses] == [[0, 1], [2]]
    assert found.words.count("To repeat it") == 3


def test_equal_names_are_told_apart_by_their_folders(make: Make, page: ReadPage) -> None:
    found = page(make("x/run"), make("y/run", seed=2))
    assert set(found.chart("Loss")) == {"x/run", "y/run"}


def test_runs_under_different_protocols_are_refused(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = [{"name": name, "noop_max": 30} for name in ("nature", "machado")]
    runs = [make(str(number), rules=each) for number, each in enumerate(rules)]
    assert main(["report", *map(str, runs), "--out", str(tmp_path / "r.html")]) == 2
    said = capsys.readouterr().err
    assert "was evaluated under nature" in said
    assert "scores under different protocols can't be compared" in said
    assert not (tmp_path / "r.html").exists()


# Text from a run.


@pytest.mark.parametrize(
    "name", ["<script>alert(1)<", "naïve run (2)", "..x", '"><img src=x onerror=alert(1)>', "a\u2028b"]
)
def test_a_hostile_folder_is_only_text(name: str, make: Make, page: ReadPage) -> None:
    alone, both = page(make(name)), page(make(f"other/{name}", seed=2), make("plain"))
    for found in (alone, both):
        assert [tag for tag, _ in found.tags].count("script") == 4
        assert not any(tag == "img" or "onerror" in attributes for tag, attributes in found.tags)
    assert set(both.chart("Loss")) == {name, "plain"}
    assert " ".join(name.split()) in both.words


def test_all_text_from_a_run_is_escaped(make: Make, page: ReadPage) -> None:
    more = {"versions": {HOSTILE: HOSTILE}, "algorithm": HOSTILE, "divergence": HOSTILE, "preset": HOSTILE}
    lines = json.dumps({"step": 1, HOSTILE: 2.0}) + "\n" + json.dumps({"step": 2, "x": HOSTILE}) + "\n"
    run = make("a", env=HOSTILE, lines=lines, env_kwargs={HOSTILE: HOSTILE}, more=more, status=HOSTILE)
    for found in (page(run), page(run, make("b", env=HOSTILE))):
        assert [tag for tag, _ in found.tags].count("script") == 4
        assert [tag for tag, _ in found.tags].count("style") == 2
        assert "<script>alert" not in found.html
        assert "\u2028" not in found.inline["script"][0]
        assert HOSTILE in {chart["title"] for chart in found.data["charts"]}
        assert " ".join(HOSTILE.split()) in found.words
    (title,) = re.findall("<title>(.*?)</title>", page(run).html, re.DOTALL)
    assert "<" not in title


def test_it_loads_nothing_and_runs_only_its_scripts(make: Make, page: ReadPage) -> None:
    found = page(make("a"), make("b", seed=2))
    for tag, attributes in found.tags:
        assert "src" not in attributes, tag
        assert not any(name.startswith("on") or name == "style" for name in attributes), tag
        assert tag not in ("link", "iframe", "object", "embed", "base", "img")
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"url\(|@import", "".join(found.inline["style"]))
    assert not re.search(r"\bfetch\(|XMLHttpRequest|\bimport\(|WebSocket|sendBeacon", "".join(found.inline["script"]))
    (policy,) = (given["content"] for tag, given in found.tags if given.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    rules = {name: sources for name, *sources in (rule.split() for rule in policy.split("; "))}

    def digests(contents: list[str]) -> list[str]:
        return [f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in contents]

    assert rules == {
        "default-src": ["'none'"],
        "script-src": digests(found.inline["script"][1:]),
        "style-src": digests(found.inline["style"]),
        "img-src": ["data:"],
    }


# Few points.


def test_few_points_are_all_drawn() -> None:
    assert points_to_draw(np.arange(6.0), 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert points_to_draw(np.empty(0), 6).tolist() == []


def test_each_bucket_keeps_its_lowest_and_its_highest_value() -> None:
    #                          two buckets of four between the ends
    values = np.array([0.0, *(1.0, 9.0, -5.0, 2.0), *(3.0, 3.5, 3.2, 8.0), 0.0])
    assert points_to_draw(values, 6).tolist() == [0, 2, 3, 5, 8, 9]
    assert points_to_draw(values, 7).tolist() == [0, 2, 3, 5, 8, 9]


def test_a_gap_stays_beside_the_peaks() -> None:
    values = np.array([0.0, *(1.0, 9.0, np.nan, -5.0), *(3.0, 4.0, 5.0, 4.5), 0.0])
    assert points_to_draw(values, 8).tolist() == [0, 2, 3, 4, 5, 7, 9]
    assert points_to_draw(np.full(100, np.nan), 20).tolist()[::18] == [0]


def test_no_peak_is_lost_among_a_million() -> None:
    values = np.zeros(1_000_000)
    values[[123_456, 765_432]] = 5.0, -3.0
    places = points_to_draw(values, 1_000)
    assert len(places) <= 1_000
    assert {0, 123_456, 765_432, 999_999} <= set(places.tolist())


def test_a_line_has_at_most_a_thousand_points_and_fewer_among_many() -> None:
    chart = ChartOnPage("x", lines=[Line(0, "y", "line", np.arange(3.0), np.arange(3.0))] * 10)
    assert most_points([chart], 60_000) == 1_000
    assert most_points([chart] * 10, 60_000) == 600
    assert most_points([chart] * 1_000, 60_000) == 20
    assert most_points([], 60_000) == 1_000


def test_a_long_run_stays_small(make: Make, page: ReadPage) -> None:
    rng = np.random.default_rng(0)
    names = ["train/loss", "train/q_max", "time/fps", *(f"mine/{number}" for number in range(20))]
    lines = "".join(
        json.dumps({"step": step, **dict(zip(names, row, strict=True))}) + "\n"
        for step, row in enumerate(rng.random((5_000, len(names))).tolist(), 1)
    )
    episodes = "".join(f"{step},{step},{value!r},1,0\n" for step, value in enumerate(rng.random(50_000).tolist(), 1))
    found = page(make("a", lines=lines, episodes=HEADER + episodes))
    assert len(found.html) < 2_000_000
    for chart in found.data["charts"]:
        assert all(len(line["x"]) <= 1_000 for line in chart["lines"]), chart["title"]
    drawn = found.chart("Return")["episodes"]
    assert drawn["logged"] == 50_000
    assert len(drawn["x"]) > 900
    assert found.chart("mine/3")["value"]["y"][0] == json.loads(lines.split("\n", 1)[0])["mine/3"]


def test_many_runs_stay_small(make: Make, page: ReadPage) -> None:
    rng = np.random.default_rng(0)
    names = ["train/loss", "train/q_max", "train/q_mean", "time/fps", *(f"mine/{number:02}" for number in range(90))]
    first = make("0", status="interrupted", lines="")
    runs = [first, *(Path(shutil.copytree(first, first.parent / str(number))) for number in range(1, 12))]
    for run in runs:
        rows = rng.random((150, len(names))).tolist()
        lines = ({"step": step, **dict(zip(names, row, strict=True))} for step, row in enumerate(rows, 1))
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = page(*runs)
    assert len(found.html) < 5_000_000
    assert {len(line["x"]) for line in found.chart("mine/01").values()} == {20}
    # 20,000 points for the others are 1,000 lines of 20, and 83 charts of 12 lines are 996.
    assert "83 other logged numbers" in found.words
    assert "7 more have no room here" in found.words
    assert "mine/82" in found.words
    assert "mine/83" not in found.words


# Older, damaged and unfinished runs.


@pytest.mark.parametrize("run", OLD, ids=lambda run: f"{run.parent.name[-1]}-{run.name}")
def test_a_run_of_an_older_format_gets_a_page(run: Path, page: ReadPage) -> None:
    found = page(run)
    about = json.loads((run / "run.json").read_text())
    assert found.words.startswith(f"{about['env']}, {about['algorithm']} status")
    titles = {chart["title"] for chart in found.data["charts"]}
    assert {"Return", "Exploration", "Learning rate", "Steps per second"} <= titles
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = [(line["step"], line["time/fps"]) for line in logged if "time/fps" in line]
    drawn = found.chart("Steps per second")["steps per second"]
    assert list(zip(drawn["x"], drawn["y"], strict=True)) == rates
    assert len(re.findall("settings at their defaults", found.words)) == 1
    assert "checks are fine" in found.words


def test_the_command_trains_with_the_same_settings(make: Make, page: ReadPage) -> None:
    kwargs = {"is_slippery": False, "map_name": "8x8", "size": 3}
    wrappers = ["gymnasium.wrappers:NormalizeReward", "gymnasium.wrappers:ClipReward"]
    own = {
        "env_kwargs": kwargs,
        "wrappers": wrappers,
        "learning_rate": 0.1,
        "double": True,
        "v_min": -3.0,
        "max_grad_norm": None,
    }
    runs = [*OLD, make("a", env="FrozenLake-v1", **own), make("b", algorithm="rainbow", more={"preset": None})]
    for run in runs:
        found = page(run)
        (command,) = re.findall(r"<code>(nexus train .*?)</code>", found.html, re.DOTALL)
        words = shlex.split(command.replace("&#39;", "'").replace("&#34;", '"').replace("&amp;", "&"))
        assert "--config" not in words
        settings = read_as(TrainCommand, words[2:], "nexus train")
        config = read_contents(run, "x").config
        assert config is not None
        assert (settings.env, settings.config) == (json.loads((run / "run.json").read_text())["env"], config), run


def test_settings_that_no_flags_can_give_are_repeated_from_the_folder(make: Make, page: ReadPage) -> None:
    run = make("a b", more={"preset": "of another version"})
    assert f"nexus train --config '{run}'" in page(run).words
    function = make("c", env="my_env", more={"env_is_id": False})
    assert "nexus train" not in page(function).words.replace("to nexus.train", "")
    assert "The environment was the Python function my_env" in page(function).words


def test_a_run_that_started_from_another_says_so(make: Make, page: ReadPage) -> None:
    start = {"run": "runs/first", "env": "CartPole-v1", "steps": 500, "keep": ["replay"], "score": 12.0}
    said = page(make("a", more={"from": start})).words
    assert "The run started with the weights, replay of runs/first: CartPole-v1, step 500, which scored 12.0" in said


def test_damaged_lines_are_named_and_the_rest_is_drawn(make: Make, page: ReadPage) -> None:
    good = '{"step": 100, "train/loss": 1.0}\n'
    bad = [
        "{\n",
        "[1]\n",
        '{"train/loss": 2}\n',
        '{"step": 3, "train/loss": "x"}\n',
        '{"step": 1e999}\n',
        "1" * 5_000 + "\n",
    ]
    for line in bad:
        run = make(f"a{bad.index(line)}", lines=good + line + good.replace("100", "200"), scores={}, status="running")
        found = page(run)
        assert f"{run / 'metrics.jsonl'} is damaged: line 2 needs a step and numbers" in found.words
        assert found.chart("Loss")["loss"]["x"] == [100, 200]
    run = make("b", episodes=HEADER + "100,1,10,100,10\n200,2,x,100,20\n300,3,30,100,30\n")
    assert "line 3 needs 5 numbers" in page(run).words
    assert page(run).chart("Return")["episodes"]["y"] == [10, 30]
    many = make("c", lines="x\n" * 50, scores={}, status="running")
    assert "and 47 more like these" in page(many).words  # of 50 lines, an empty log and the doctor, less the five named


def test_a_line_that_is_being_written_is_left_out(make: Make, page: ReadPage) -> None:
    run = make("a", status="running")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 400, "train/lo')
    with (run / "episodes.csv").open("a") as file:
        file.write("400,4,1")
    found = page(run)
    assert found.chart("Loss")["loss"]["x"] == [100, 200, 300]
    assert found.chart("Return")["episodes"]["x"] == [100, 200, 300]
    for name in ("metrics.jsonl", "episodes.csv"):
        assert f"the last line of {name} is incomplete and left out" in found.words


@pytest.mark.parametrize("content", ["", None, HEADER])
def test_a_run_that_has_logged_nothing_gets_a_page(content: str | None, make: Make, page: ReadPage) -> None:
    run = make("a", status="running", episodes=content, lines="", scores={})
    if content is None:
        (run / "metrics.jsonl").unlink()
    found = page(run)
    assert found.data["charts"] == []
    assert "Nothing to draw: no episode has ended, and nothing was logged." in found.words
    assert "has nothing to draw yet" in found.words
    assert "This run has not been evaluated." in found.words
    assert "nexus train CartPole-v1" in found.words


def test_logs_and_evaluations_that_are_damaged_are_named(make: Make, page: ReadPage) -> None:
    run = make("a")
    (run / "metrics.jsonl").write_bytes(b"\xff\xfe\n")
    content = (run / "evaluation.json").read_text()
    (run / "evaluation.json").write_text(content.replace("70.0", "90.0"))
    (run / "episodes.csv").write_text("a,b\n1,2\n")
    said = page(run).words
    assert f"{run / 'metrics.jsonl'} is damaged: it is not text" in said
    assert f"{run / 'evaluation.json'} is damaged: it differs from its checksum" in said
    assert f"{run / 'episodes.csv'} is damaged: needs the columns" in said
    assert "90.0" not in said
    assert "The doctor could not read this run" in said


def test_settings_of_another_version_are_shown_as_they_are(make: Make, page: ReadPage) -> None:
    said = page(make("a", of_the_future=5)).words
    assert "has a config that can't be used" in said
    assert "of_the_future 5 –" in said
    assert "nexus train --config" in said


def test_an_edited_run_is_read_from_its_checkpoint(tmp_path: Path, page: ReadPage) -> None:
    run = Path(shutil.copytree(ROOT / "tests" / "runs_of_format_3" / "finished", tmp_path / "run"))
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace('"gamma": 0.995', '"gamma": 0.5', 1))
    said = page(run).words
    assert "was changed by hand: gamma is 0.5 in the file, 0.995 in the run" in said
    assert "gamma 0.995 0.99" in said


# Where it is written.


def test_the_command_line_prints_where_the_page_is(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no-run").mkdir()
    out = tmp_path / "r.html"
    assert main(["report", str(make("a")), str(tmp_path / "no-run"), "--out", str(out)]) == 0
    note = f"Note: {tmp_path / 'no-run'} is skipped: it is not a run, since it has no run.json"
    assert capsys.readouterr().out == f"{note}\nReport: {out}\n"
    assert Page(out.read_text("utf-8")).chart("Loss")["loss"]["x"] == [100, 200, 300]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "no-run", "r.html"]


def test_a_report_is_overwritten_and_nothing_else(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = str(make("a")), tmp_path / "r.html"
    out.write_text("<html>mine</html>")
    assert main(["report", run, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said == f"nexus: error: {out} exists and is not a report: name another file, or overwrite it with --force\n"
    assert out.read_text() == "<html>mine</html>"
    assert main(["report", run, "--out", str(out), "--force"]) == 0
    before = out.read_text("utf-8")
    (Path(run) / "episodes.csv").write_text(HEADER)
    assert main(["report", run, "--out", str(out)]) == 0
    assert out.read_text("utf-8") != before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name at least one run, as in: nexus report runs/*"),
        (["missing"], "no run at missing: there is no such folder"),
        (["foreign"], "foreign is not a run folder: it has no run.json"),
        (["foreign", "foreign2"], "nothing to report: none of these folders is a run"),
        (["run", "--out", "r.txt"], "out = 'r.txt': needs a file name that ends in .html or .htm"),
        (["run", "--out", "no/r.html"], "can't write no/r.html: there is no folder no"),
        (["run", "--out", "foreign.html"], "can't write foreign.html: it is a folder"),
        (["run", "--ot", "r.html"], "unknown option --ot; did you mean --out?"),
        (["broken"], "can't read broken/run.json: "),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    said: str,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("foreign", "foreign2", "foreign.html"):
        (tmp_path / name).mkdir()
    make("run")
    (make("broken") / "run.json").write_text('{"format": 4')
    assert main(["report", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"nexus: error: {said}")
    assert error.count("\n") == 1
    assert list(tmp_path.glob("r*.html")) == []


def test_a_folder_that_can_not_be_written_to_is_named(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make("a")

    def full(self: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError, match=r"can't write .*r\.html: No space left on device"):
        nexus.report(run, tmp_path / "r.html")


def test_python_takes_paths_results_and_one_of_them(make: Make, tmp_path: Path) -> None:
    run = make("a")
    assert nexus.report(run, tmp_path / "one.html") == tmp_path / "one.html"
    assert nexus.report([str(run)], str(tmp_path / "two.html")).read_bytes() == (tmp_path / "one.html").read_bytes()
    with pytest.raises(ConfigError, match="name at least one run"):
        nexus.report([], tmp_path / "three.html")


def test_more_runs_than_can_be_told_apart_are_refused(make: Make, tmp_path: Path) -> None:
    first = make("0")
    runs = [first]
    for number in range(1, 101):
        (tmp_path / str(number)).mkdir()
        runs.append(tmp_path / str(number))
        shutil.copy(first / "run.json", runs[-1])
    with pytest.raises(ConfigError, match="101 runs: a report has room for 100"):
        nexus.report(runs, tmp_path / "r.html")


def test_what_a_page_is_made_of_is_shipped() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["nexus"]
    shipped = {path for pattern in patterns for path in (ROOT / "nexus").glob(pattern)}
    parts = {
        path for path in (ROOT / "nexus" / "reporting").rglob("*") if path.is_file() and "pycache" not in str(path)
    }
    assert {path.name for path in parts if path.suffix != ".py"} == {
        *(
            "compared.html",
            "page.html",
            "replay.html",
            "report.css",
            "report.js",
            "film.js",
            "uPlot.iife.min.js",
            "uPlot.min.css",
            "LICENSE",
        ),
    }
    assert {path for path in parts if path.suffix != ".py"} <= shipped
    assert "nexus/reporting/vendor/uplot/LICENSE" in project["project"]["license-files"]
    assert "jinja2" in project["project"]["dependencies"]


def test_defaults_are_those_of_this_version(make: Make, page: ReadPage) -> None:
    found = page(make("a", **TrainConfig().to_mapping() | {"total_steps": 300, "learning_starts": 50}))
    changed = re.findall(r"<tr><th scope=\"row\">(\w+)</th><td>[^<]*</td><td>[^<]*</td></tr>", found.html)
    assert changed == ["total_steps", "learning_starts"]


def test_what_stands_between_backticks_is_code_and_still_escaped() -> None:
    assert str(with_code("return `a < b`, not <b>")) == "return <code>a &lt; b</code>, not &lt;b&gt;"
    assert str(with_code("plain")) == "plain"
