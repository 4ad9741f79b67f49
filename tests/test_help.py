"""The help of `nexus train` and `nexus plan`: settings in groups, their other names, and defaults that really hold."""

import re

import pytest

from nexus.cli.main import main
from nexus.cli.setting_flags import FLAG_ALIASES, descriptions

BOXES = [
    "options",
    "run options",
    "environment options",
    "learning options",
    "exploration options",
    "optimizer options",
    "network options",
    "replay options",
    "evaluation options",
    "checkpoints options",
    "device options",
    "Atari options",
    "prioritized replay options",
    "curriculum options",
    "hindsight options",
    "novelty options",
    "C51 and Rainbow options",
    "QR-DQN and IQN options",
    "Munchausen options",
    "Bootstrapped DQN options",
    "noisy nets options",
    "Boltzmann options",
    "PQN options",
]


def help_of(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([*words.split(), "--help"])
    assert not stopped.value.code
    return capsys.readouterr().out


def boxes(said: str) -> dict[str, str]:
    """Title of each box -> what stands in it, on one line. Where output is captured a box may be a title and a rule."""
    said = re.sub(r"^╭─ (.*?) ─+╮$", rf" \1 \n {'-' * 20} ", said, flags=re.MULTILINE)
    said = re.sub(r"^│|│$|^╰─+╯$", " ", said, flags=re.MULTILINE)
    _, *parts = re.split(r"^ (\S[^\n]*?) *\n -{20,} *\n", said, flags=re.MULTILINE)
    titles, bodies = parts[::2], parts[1::2]
    assert len(set(titles)) == len(titles)
    return {title: " ".join(body.split()) for title, body in zip(titles, bodies, strict=True)}


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_settings_are_in_groups_common_ones_first(capsys: pytest.CaptureFixture[str]) -> None:
    found = boxes(help_of("train", capsys))
    assert list(found) == BOXES
    flags = {
        title: re.findall(r"(?<!\S)--(?!no-)[a-z0-9-]+(?= [A-Z{\"]|, --no)", body) for title, body in found.items()
    }
    general = ["--algorithm", "--seed", "--total-steps", "--log-every", "--doctor", "--keep-episodes"]
    assert flags["run options"] == general
    assert flags["C51 and Rainbow options"] == ["--atoms", "--v-min", "--v-max"]
    assert flags["Munchausen options"] == [
        "--munchausen",
        "--munchausen-alpha",
        "--munchausen-temperature",
        "--munchausen-clip",
    ]
    assert flags["PQN options"] == ["--rollout-steps", "--trace-lambda"]
    assert flags["optimizer options"][:3] == ["--optimizer", "--learning-rate", "--max-grad-norm"]
    assert flags["exploration options"][-2:] == ["--epsilon-schedule", "--epsilon-steps"]
    assert (
        "--learning-rate FLOAT Step size of the optimizer. Also: --lr. (default: 0.001)" in found["optimizer options"]
    )


@pytest.mark.parametrize("verb", ["train", "plan", "train CartPole-v1 --algo rainbow"])
def test_it_fits_80_columns(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = help_of(verb, capsys).splitlines()
    assert len(lines) > 200
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("verb", ["train", "plan"])
def test_other_names_stand_beside_their_flag(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = re.split(r"(?= --[a-z0-9-]+ (?:[A-Z{]|\"N))", " ".join(boxes(help_of(verb, capsys)).values()))
    also = {
        row.split()[0]: named[1].split(", ")
        for row in rows
        if (named := re.search(r"Also: ((?:--?[\w-]+(?:, )?)+)\.", row))
    }
    assert also == {
        "--env": ["--env-id"],
        "--config-file": ["--config"],
        "--from-run": ["--from"],
        "--algorithm": ["--algo"],
        "--total-steps": ["-n", "--n-timesteps", "--total-timesteps"],
        "--gradient-steps": ["--updates-each"],
        "--learning-rate": ["--lr"],
        "--replay-capacity": ["--buffer-size"],
        "--trace-lambda": ["--trace-decay"],
    }
    assert {other: flag for flag, others in also.items() for other in others} == FLAG_ALIASES


@pytest.mark.parametrize(
    ("words", "title", "shown"),
    [
        ("CartPole-v1", "", "Named settings: .* or general. (default: tuned)"),
        ("CartPole-v1 --algo c51", "C51 and Rainbow ", "--v-max FLOAT .* none exceeds 100. (default: 500.0)"),
        ("--lr 0.5 --env-id CartPole-v1 --algorithm PQN", "learning ", "--gradient-steps INT .* (default: 64)"),
        ("pong", "Atari ", "--frame-size INT|none Pixels on a side of a frame; none for 84. (default: 44)"),
        ("CartPole-v1 --seed 7", "run ", "--seed INT Seed of every random generator. (default: 7)"),
        # Where the words can't be read the help shows the general defaults.
        ("CartPole-v1 --foo 3", "C51 and Rainbow ", "--v-max FLOAT .* (default: 10.0)"),
        ("CartPole-v1 --preset nonsense", "C51 and Rainbow ", "--v-max FLOAT .* (default: 10.0)"),
        ("--config missing.json", "C51 and Rainbow ", "--v-max FLOAT .* (default: 10.0)"),
    ],
)
def test_the_defaults_are_those_that_the_other_words_bring(
    words: str, title: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = boxes(help_of(f"train {words}", capsys))[f"{title}options"]
    assert re.search(".*".join(map(re.escape, shown.split(".*"))), said)


def test_what_a_setting_means_is_read_from_below_it() -> None:
    assert descriptions("nexus.core.settings")["C51Settings"] == {
        "atoms": "Atoms of the return's distribution.",
        "v_min": "The smallest return that the atoms represent.",
        "v_max": "The largest return; with rewards of up to 1 and γ = 0.99 none exceeds 100.",
    }


def test_without_sources_the_flags_are_shown_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(_: object) -> str:
        raise OSError("could not get source code")

    monkeypatch.setattr("inspect.getsource", gone)
    descriptions.cache_clear()
    assert "--atoms INT (default: 51)" in boxes(help_of("train", capsys))["C51 and Rainbow options"]
    descriptions.cache_clear()
