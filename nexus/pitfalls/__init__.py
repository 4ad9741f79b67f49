"""The common pitfalls of deep Q-learning, each as two programs: one that has it and one that is cured.

evidence = demonstrate("overestimation")
print(*evidence.sentences)
"""

from nexus.pitfalls.catalogue import PITFALLS
from nexus.pitfalls.evidence import Evidence
from nexus.pitfalls.picture import save_picture
from nexus.pitfalls.pitfall import Pitfall
from nexus.pitfalls.running import demonstrate

__all__ = ["PITFALLS", "Evidence", "Pitfall", "demonstrate", "save_picture"]
