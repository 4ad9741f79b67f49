"""Small environments with one known difficulty each, registered with Gymnasium as `nexus/DeepSea-v0` and so on.

    import gymnasium as gym, nexus.problems
    env = gym.make("nexus/DeepSea-v0", size=20)

All but bit flipping follow the definitions of bsuite (Osband et al. 2020, https://arxiv.org/abs/1908.03568), with
Gymnasium's interface and seeds. Bit flipping is that of Andrychowicz et al. 2017 (https://arxiv.org/abs/1707.01495).
`docs/problems.md` lists what each is for, and its best and its random return.
"""

import gymnasium as gym

from nexus.problems.bandit import Bandit
from nexus.problems.bit_flipping import BitFlipping
from nexus.problems.catch import Catch
from nexus.problems.deep_sea import DeepSea
from nexus.problems.discounting_chain import DiscountingChain
from nexus.problems.tables import Numbered
from nexus.problems.umbrella_chain import UmbrellaChain

__all__ = ["Bandit", "BitFlipping", "Catch", "DeepSea", "DiscountingChain", "Numbered", "UmbrellaChain"]

for kind in (Bandit, BitFlipping, Catch, DeepSea, DiscountingChain, UmbrellaChain):
    # A text, not the class: the spec of an environment is then plain data.
    gym.register(f"nexus/{kind.__name__}-v0", entry_point=f"{kind.__module__}:{kind.__name__}")
