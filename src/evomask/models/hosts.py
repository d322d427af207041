"""Every host, by what its configuration calls itself. A further host is its own file and a word here."""

from typing import get_args

from evomask.models.mae import MAEConfig
from evomask.models.simmim import SimMIMConfig, SwinSimMIMConfig

HostConfig = MAEConfig | SimMIMConfig | SwinSimMIMConfig

HOSTS: dict[str, type[HostConfig]] = {config.kind: config for config in get_args(HostConfig)}
