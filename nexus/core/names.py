"""Names of algorithms as people write them: `DDQN`, `double_dqn`, `C-51`."""

from collections.abc import Mapping
from typing import Any

from nexus.core.errors import ConfigError

__all__ = ["algorithm_name"]

# Name without case, dashes and blanks -> name used here.
CALLED: Mapping[str, str] = {
    "dqn": "dqn",
    "double": "double",
    "ddqn": "double",
    "doubledqn": "double",
    "dueling": "dueling",
    "duelingdqn": "dueling",
    "prioritized": "prioritized",
    "prioritizeddqn": "prioritized",
    "nstep": "n-step",
    "nstepdqn": "n-step",
    "noisy": "noisy",
    "noisydqn": "noisy",
    "noisynet": "noisy",
    "munchausen": "munchausen",
    "munchausendqn": "munchausen",
    "mdqn": "munchausen",
    "c51": "c51",
    "categorical": "c51",
    "categoricaldqn": "c51",
    "qrdqn": "qr-dqn",
    "iqn": "iqn",
    "pqn": "pqn",
    "rainbow": "rainbow",
    "rainbowdqn": "rainbow",
    "beyond": "beyond",
    "beyondtherainbow": "beyond",
    "btr": "beyond",
}
# Algorithm names that are combinations of parts here, and the flags that choose them.
PARTS: Mapping[str, str] = {
    "per": "--prioritized, with any algorithm",
    "prioritizedreplay": "--prioritized, with any algorithm",
    "prioritizedexperiencereplay": "--prioritized, with any algorithm",
    "d3qn": "--double --dueling",
    "duelingdoubledqn": "--double --dueling",
    "doubleduelingdqn": "--double --dueling",
    "miqn": "--algo iqn --munchausen",
}


def algorithm_name(name: Any) -> str:
    """Return the name used here for an algorithm; unknown names are returned unchanged.

    Raises:
        ConfigError: it is not text, or it is a combination of flags here; the message names them.
    """
    if not isinstance(name, str):
        raise ConfigError(f"algorithm = {name}: needs text")
    bare = "".join(filter(str.isalnum, name.casefold()))
    if bare in PARTS:
        raise ConfigError(f"algorithm {name!r} is a combination of flags here: {PARTS[bare]}")
    return CALLED.get(bare, name)
