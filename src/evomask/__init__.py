"""evomask: evolved hierarchical masking for self-supervised learning (Feng and Zhang, TPAMI).

`evomask.masking` is the method alone; `pretrain` and `resume` are the commands of the same names, for notebooks.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evomask.recipes.launch import pretrain, resume

__all__ = ["pretrain", "resume"]


def __getattr__(name: str) -> Any:
    # Looked up when asked for: `import evomask.masking` needs nothing but torch.
    if name in __all__:
        from evomask.recipes import launch

        return getattr(launch, name)
    if name == "__version__":
        return version("evomask")
    raise AttributeError(f"module 'evomask' has no attribute {name!r}")
