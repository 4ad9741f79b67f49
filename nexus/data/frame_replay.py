"""The name of a replay whose storage is `Frames`, for those that still ask for the class."""

from nexus.data.replay import Replay

__all__ = ["FrameReplay"]


class FrameReplay(Replay):
    """A replay of frames in main memory; it adds nothing."""
