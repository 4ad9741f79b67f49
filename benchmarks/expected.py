"""Write nexus/planning/expected.json, the scores in `nexus plan`, from the records in docs/results/.

`python -m benchmarks.report` does so too. A record without `configs` is read with its study's current settings.
"""

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.learning import STUDIES, configs_of
from benchmarks.record import RESULTS
from nexus.api import make_config
from nexus.planning.expected import EXPECTED, Band, learning_settings, protocol_name
from nexus.training.config import TrainConfig
from nexus.training.presets import resolve_preset

__all__ = ["bands", "write_expected"]


def bands() -> list[Band]:
    """Return a band for each algorithm of each recorded study of a registered environment."""
    found = []
    for name, study in STUDIES.items():
        path = RESULTS / f"{name}.json"
        if path.exists() and isinstance(study["env"], str):  # a function's name does not identify an environment
            recorded = json.loads(path.read_text(encoding="utf-8"))
            configs = recorded.get("configs") or configs_of(name)
            found += [band(name, recorded, algorithm, values) for algorithm, values in configs.items()]
    return found


def band(name: str, recorded: dict[str, Any], algorithm: str, values: dict[str, Any]) -> Band:
    """Return the band of one algorithm of a record: the last evaluation of each seed."""
    study, config = STUDIES[name], TrainConfig.from_mapping(values)
    rows = [row for row in recorded["rows"] if row.get("algorithm", algorithm) == algorithm]
    scores = [row["evaluations"][-1][1] for row in rows]
    preset, _ = resolve_preset(study.get("preset"), study["env"])
    usual = learning_settings(make_config(study["env"], preset, algorithm=algorithm))
    own = learning_settings(config)
    return Band(
        study["env"],
        protocol_name(study["env"], config),
        preset,
        algorithm,
        {key: value for key, value in own.items() if value != usual[key]},
        config.total_steps,
        [row["seed"] for row in rows],
        round(float(np.mean(scores)), 1),
        round(float(np.median(scores)), 1),
        min(scores),
        max(scores),
        f"docs/results/{name}.json",
        recorded["date"],
    )


def write_expected() -> None:
    """Write the file, a line for each band."""
    lines = ",\n".join(json.dumps(asdict(found)) for found in bands())
    EXPECTED.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"wrote {EXPECTED}")


if __name__ == "__main__":
    write_expected()
