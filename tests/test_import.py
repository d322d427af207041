"""The method can be lifted out: it needs torch alone. The command line answers mistakes without loading models."""

import subprocess
import sys

import pytest

import evomask


def loaded_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after a statement."""
    code = f"import sys\n{statement}\nprint(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def test_the_method_needs_torch_alone() -> None:
    loaded = loaded_after("import evomask.masking")
    assert "torch" in loaded
    assert not loaded & {"timm", "torchvision", "tyro", "rich", "matplotlib", "tensorboard", "PIL", "scipy", "transformers"}


def test_the_method_imports_nothing_of_evomask_outside_itself() -> None:
    code = "import sys, evomask.masking; print(' '.join(name for name in sys.modules if name.startswith('evomask')))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name == "evomask" or name.startswith("evomask.masking") for name in found.stdout.split())


def test_the_command_line_is_there_before_torch_is() -> None:
    assert not loaded_after("import evomask.cli") & {"torch", "timm", "torchvision", "matplotlib"}


def test_the_package_offers_what_it_says() -> None:
    from evomask.recipes import launch

    assert evomask.pretrain is launch.pretrain
    assert evomask.resume is launch.resume
    assert evomask.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="module 'evomask' has no attribute 'pretrian'"):
        evomask.pretrian  # noqa: B018
