"""Every host, by what its configuration calls itself. A further host is its own file and a word here."""

from typing import Any, get_args

from evomask.models.beit import BEiTConfig
from evomask.models.mae import MAEConfig
from evomask.models.simmim import SimMIMConfig, SwinSimMIMConfig

HostConfig = MAEConfig | SimMIMConfig | SwinSimMIMConfig | BEiTConfig

HOSTS: dict[str, type[HostConfig]] = {config.kind: config for config in get_args(HostConfig)}


def pinned(config: Any) -> Any:
    """A host's configuration as a run is to write it down, which trains on just that.

    A configuration that names files outside of the run has a method of this name, which adds their digests, and holds the files
    to those that are there already.

    Raises:
        ValueError: such files are missing, or others.
    """
    return config.pinned() if hasattr(config, "pinned") else config
