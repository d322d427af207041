"""A first signal is a wish, a second one an order."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from evomask.engine.signals import Stopped, StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_nothing_else_happens(number: signal.Signals) -> None:
    with StopSignals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), number)
        assert signals.received == number


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As a command that is started from a terminal; one in a shell's background ignores interrupts, and so do its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_is_obeyed_at_once() -> None:
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT


def test_the_handlers_of_before_are_back_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopSignals():
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before

    with pytest.raises(RuntimeError), StopSignals():
        raise RuntimeError("the handlers are put back also after an error")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_message_says_how_to_go_on() -> None:
    error = Stopped(signal.SIGTERM, 12, Path("runs/demo"))
    assert error.signum == 15
    assert str(error) == "stopped by SIGTERM after 12 steps, all saved: `evomask resume runs/demo` goes on"
