"""Every host, by what its configuration calls itself. A further host is its own file and a line here."""

from evomask.models.mae import MAEConfig

HostConfig = MAEConfig

HOSTS: dict[str, type[HostConfig]] = {config.kind: config for config in (MAEConfig,)}
