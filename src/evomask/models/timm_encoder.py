"""The models of timm that encoders are, built as a configuration says."""

from typing import Any, Protocol

import timm

NOT_OF_WEIGHTS = ("architecture", "input_size", "fixed_input_size", "mean", "std", "num_classes", "first_conv", "classifier")
"""What of all that timm knows by a model's name holds for any weights: the rest is the origin and the licence of its own."""


class TimmConfig(Protocol):
    """What is known of an encoder before it is built."""

    @property
    def name(self) -> str:
        """Of the model in timm."""
        ...

    @property
    def drop_path(self) -> float:
        """Stochastic depth rate of the last block."""
        ...

    def timm_arguments(self) -> dict[str, Any]:
        """What `timm.create_model(name, ...)` is to be given besides."""
        ...


def build_timm(config: TimmConfig, kind: str, pattern: str, kinds: str) -> Any:
    """The model, with timm's own initial weights.

    Args:
        config: of the encoder.
        kind: what it is to be, for messages.
        pattern: by which timm lists its names.
        kinds: several of them.

    Raises:
        ValueError: timm has no such model, or cannot build it so.
    """
    if not timm.is_model(config.name):
        raise ValueError(f"timm knows no model {config.name!r}: timm.list_models({pattern!r}) lists the {kinds}")
    try:
        model: Any = timm.create_model(config.name, drop_path_rate=config.drop_path, **config.timm_arguments())
    except (TypeError, AssertionError, IndexError) as error:
        raise ValueError(f"timm's {config.name} cannot be built as a {kind} with these options: {error!r}") from error
    return without_origin(model)


def without_origin(model: Any) -> Any:
    """The same model of timm's, which no longer says that its weights are those that timm knows by its name."""
    model.pretrained_cfg = {name: model.pretrained_cfg[name] for name in NOT_OF_WEIGHTS} | {"tag": "evomask"}
    return model
