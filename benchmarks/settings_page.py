"""Write docs/settings.md: every setting with its flag, its default and its meaning, in the groups of the help.

python -m benchmarks.settings_page
"""

from dataclasses import fields
from pathlib import Path

from nexus.cli.setting_flags import text_of
from nexus.core.checked import config_text
from nexus.training.config import GROUPS, TrainConfig

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
INTRODUCTION = """# Settings

Every setting is a flag of `nexus train` and a keyword of `nexus.train`: `--learning-rate 0.0005` is
`learning_rate=0.0005`. A switch has a second flag that turns it off: `--no-double`. `none` is Python's `None`.
Periods are written with their unit, as in `"500 updates"`, `"1000 steps"` or `"10 episodes"`.

The defaults below hold where nothing else sets a value. Values are taken, later ones over earlier ones, from the
range of returns known for the environment, the preset for the environment, the algorithm, the preset for that
algorithm, and you. An environment that nothing was tuned for gets the preset `general` (double, layer norm, 3-step
returns, a learning rate that falls to a tenth, and schedules that scale with the length of the run); with `--preset
plain` the defaults below hold for any environment. `nexus train ENV --help` shows the values for an environment,
and every run keeps its own in `run.json`.

*This page is written by `python -m benchmarks.settings_page`.*
"""


def cell(text: str) -> str:
    """Return text for a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def page() -> str:
    """Return the text of the page."""
    usual, parts = TrainConfig().to_mapping(), [INTRODUCTION]
    for title, members in GROUPS.items():
        rows = ["| setting | default | meaning |", "|---|---|---|"]
        for group in members:
            for field in fields(group):
                name, value = field.name, config_text(usual[field.name])
                rows.append(f"| `{name}` | `{'none' if value == 'None' else value}` | {cell(text_of(group, name))} |")
        parts.append("\n".join([f"## {title[0].upper()}{title[1:]}", "", *rows]) + "\n")
    return "\n".join(parts)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
