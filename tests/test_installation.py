"""Commands that nexus tells a user to type: they must work where and however it is installed."""

import re
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import EntryPoint, metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nexus.core import installation
from nexus.core.installation import DISTRIBUTION, install_command, nexus_command, not_installed, tensorboard_command

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sysconfig.get_path("scripts")


def test_the_distribution_has_the_name_that_hints_ask_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["name"] == DISTRIBUTION == metadata(DISTRIBUTION)["Name"]
    wanted = [wish for extra in project["optional-dependencies"].values() for wish in extra if "nexus" in wish]
    assert wanted
    assert all(wish.startswith(f"{DISTRIBUTION}[") for wish in wanted)


def test_a_checkout_is_installed_from_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert install_command("plot").endswith(f'install -e "{ROOT}[plot]" -c {ROOT / "constraints.txt"}')
    monkeypatch.chdir(ROOT)
    assert install_command("plot").endswith('install -e ".[plot]" -c constraints.txt')
    assert not_installed("zstandard", "atari").startswith("zstandard is not installed; get it with: ")


@pytest.mark.parametrize("project", [None, "name = 1", '[project]\nname = "theirs"', "\xff"])
def test_what_is_no_checkout_is_installed_by_name(
    project: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if project is not None:  # of somebody who copied nexus into a project of theirs
        (tmp_path / "pyproject.toml").write_bytes(project.encode("latin-1"))
    monkeypatch.setattr(installation, "ROOT", tmp_path)
    assert install_command("video").endswith('install "nexus-dqn[video]"')


def test_pip_is_the_one_of_this_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    program = install_command("plot").split(" install")[0]
    said = subprocess.run([*program.split(), "--version"], cwd=Path.cwd(), capture_output=True, text=True, check=True)
    assert str(Path(sysconfig.get_path("purelib"), "pip")) in said.stdout


def test_a_loaded_distutils_does_not_make_a_hint_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distutils", ModuleType("distutils"))  # setuptools' import hook warns of it
    assert " install " in install_command("plot")


def test_without_pip_uv_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "has_pip", lambda: False)
    assert " pip install " not in install_command("plot").replace("-m pip install", "")
    monkeypatch.setattr("shutil.which", lambda name, path=None: f"/usr/bin/{name}")
    assert install_command("plot").startswith(f"uv pip install --python {sys.executable} ")


def test_nexus_is_called_by_its_name_only_where_that_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Path("runs", "with space")
    monkeypatch.setenv("PATH", SCRIPTS)
    assert nexus_command("watch", run) == "nexus watch 'runs/with space'"
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(tmp_path)
    assert nexus_command("watch") == f"{SCRIPTS}/nexus watch"
    assert tensorboard_command("runs") == f"{SCRIPTS}/tensorboard --logdir runs"
    monkeypatch.chdir(Path(SCRIPTS).parent.parent)
    assert nexus_command("watch") == f"{Path(SCRIPTS).relative_to(Path.cwd())}/nexus watch"


def test_a_nexus_of_another_project_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs(**_: Any) -> list[EntryPoint]:
        return [EntryPoint("nexus", "nexus:run", "console_scripts")]

    monkeypatch.setattr(installation, "entry_points", theirs)
    monkeypatch.setenv("PATH", SCRIPTS)
    assert nexus_command("plot", "runs/a") == f"{Path(sys.executable).name} -m nexus plot runs/a"
    monkeypatch.setenv("PATH", "/usr/bin")
    said = subprocess.run(f"{nexus_command('plot')} --help", shell=True, capture_output=True, text=True, check=True)
    assert "usage: nexus plot" in said.stdout


def test_nothing_asks_for_a_distribution_called_nexus() -> None:
    files = [path for folder in ("nexus", "benchmarks", "examples", "docs") for path in (ROOT / folder).rglob("*.*")]
    texts = {path: path.read_text("utf-8") for path in files if path.suffix in (".py", ".md")}
    assert len(texts) > 50
    assert [
        path for path, text in texts.items() if re.search(r"""install "?nexus\b(?!-dqn)|version\(.nexus.\)""", text)
    ] == []
