"""The name of a replay whose storage and sampler are on a device, for those that still ask for the class."""

from nexus.data.protocols import Storage
from nexus.data.replay import Replay

__all__ = ["DeviceReplay"]


class DeviceReplay(Replay):
    """A replay on a device; it adds nothing."""

    @property
    def _rows(self) -> Storage:
        return self.storage
