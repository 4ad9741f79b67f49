"""How nexus is installed, so that every command it suggests to a user works as printed."""

import os
import shlex
import shutil
import sys
import sysconfig
import tomllib
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from subprocess import list2cmdline

__all__ = ["DISTRIBUTION", "install_command", "nexus_command", "not_installed", "tensorboard_command"]

DISTRIBUTION = "nexus-dqn"  # the import and the command are nexus, but that name belongs to another project on PyPI
ENTRY_POINT = "nexus.cli.main:main"
ROOT = Path(__file__).resolve().parents[2]  # of the source checkout, or the folder of installed packages


def not_installed(package: str, extra: str) -> str:
    """Return the message that a package of an extra is missing, with the command that installs it."""
    return f"{package} is not installed; get it with: {install_command(extra)}"


def install_command(extra: str) -> str:
    """Return the command that adds one of the extras of `pyproject.toml` to this installation."""
    # Double quotes work in every shell; without quotes zsh treats the brackets as a pattern.
    if not is_source(ROOT):
        return f'{pip_install()} "{DISTRIBUTION}[{extra}]"'
    pins = ROOT / "constraints.txt"
    pinned = f" -c {quoted(short_path(pins))}" if pins.is_file() else ""
    return f'{pip_install()} -e "{short_path(ROOT)}[{extra}]"{pinned}'


def nexus_command(verb: str, *words: str | os.PathLike[str]) -> str:
    """Return a nexus command line ready to paste."""
    ours = any(entry.value == ENTRY_POINT for entry in entry_points(group="console_scripts", name="nexus"))
    program = (script("nexus") if ours else None) or f"{python()} -m nexus"
    return " ".join([program, verb, *(quoted(os.fspath(word)) for word in words)])


def tensorboard_command(folder: str | os.PathLike[str]) -> str:
    """Return a command line that shows the logs below a folder in TensorBoard."""
    return f"{script('tensorboard') or f'{python()} -m tensorboard.main'} --logdir {quoted(os.fspath(folder))}"


def is_source(root: Path) -> bool:
    """True if a folder is a checkout of nexus that pip can install from."""
    try:
        about = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(about.get("project", {}).get("name") == DISTRIBUTION)


def has_pip() -> bool:
    """True if this interpreter has pip."""
    # Not importlib.util.find_spec: it also runs setuptools' import hook, which warns once distutils is loaded.
    return PathFinder.find_spec("pip") is not None


def pip_install() -> str:
    """Return the command that installs into this environment: its pip, or uv if it has none."""
    if not has_pip() and shutil.which("uv"):
        return f"uv pip install --python {quoted(sys.executable)}"
    return f"{script('pip') or f'{python()} -m pip'} install"


def python() -> str:
    """Return the command that starts this interpreter."""
    return called(Path(sys.executable))


def script(name: str) -> str | None:
    """Return the command that runs a script of this environment, or None if it has no such script."""
    there = shutil.which(name, path=sysconfig.get_path("scripts"))
    return None if there is None else called(Path(there))


def called(program: Path) -> str:
    """Return a program's name if that is enough to start it, else its path."""
    first = shutil.which(program.name)
    on_path = first is not None and Path(first).parent.resolve() == program.parent.resolve()
    return program.name if on_path else quoted(short_path(program))


def short_path(path: Path) -> str:
    """Return a path relative to the current folder if it is inside."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def quoted(word: str) -> str:
    """Return a word quoted for the shell."""
    return shlex.quote(word) if os.name == "posix" else list2cmdline([word])
