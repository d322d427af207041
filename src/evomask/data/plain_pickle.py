"""Pickles of plain values. To open any other one would be to run whatever code it holds."""

import pickle
from pathlib import Path
from typing import Any, NoReturn


def read_plain_pickle(path: Path) -> Any:
    """What a pickle holds, where that is made of dictionaries, lists, tuples, strings, numbers, booleans and None alone.

    Raises:
        ValueError: there is no such file, it is no pickle or not a whole one, or it asks for a class or a function.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    with path.open("rb") as file:
        try:
            return _PlainUnpickler(file).load()
        except _NotPlain as error:
            raise ValueError(
                f"{path} holds more than plain values ({error}), and to open it could run any code: it is refused"
            ) from error
        except Exception as error:  # a file that is no pickle gives rise to anything from EOFError to MemoryError
            raise ValueError(f"{path} is no pickle, or not a whole one") from error


class _NotPlain(Exception):
    pass


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise _NotPlain(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _NotPlain("something kept elsewhere")
