import os
import signal
import threading

import pytest

from ean_core.common.interrupts import held_interrupts


@pytest.fixture(autouse=True)
def usual():
    """Handle SIGINT as in a terminal, whatever started the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):  # the handler runs between two steps of the main thread
        pass


@pytest.fixture
def done():
    return []


def test_a_held_interrupt_comes_after_the_block(done):
    def block():
        with held_interrupts():
            done.append("first")
            ctrl_c()
            done.append("second")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == ["first", "second"]


def test_without_an_interrupt_nothing_is_raised():
    with held_interrupts():
        pass
    with pytest.raises(KeyboardInterrupt):
        ctrl_c()


def test_a_second_interrupt_ends_the_block_and_is_raised_once(done):
    def block():
        with held_interrupts():
            ctrl_c()
            done.append("first")
            ctrl_c()
            done.append("never")

    with pytest.raises(KeyboardInterrupt) as raised:
        block()
    assert done == ["first"]
    assert raised.value.__context__ is None


def test_nested_blocks_deliver_after_the_outer_one(done):
    def block():
        with held_interrupts():
            with held_interrupts():
                ctrl_c()
            done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == ["outer"]


@pytest.mark.parametrize("presses", [0, 1])
def test_an_error_of_the_block_is_kept(presses):
    def block():
        with held_interrupts():
            for _ in range(presses):
                ctrl_c()
            raise OSError("full")

    with pytest.raises((OSError, KeyboardInterrupt)) as raised:
        block()
    error = raised.value.__context__ if presses else raised.value
    assert isinstance(error, OSError)
    assert isinstance(raised.value, KeyboardInterrupt) == bool(presses)


def test_an_interrupt_raised_in_the_block_passes():
    with pytest.raises(KeyboardInterrupt), held_interrupts():
        raise KeyboardInterrupt


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_signal_without_a_handler_is_left_alone(handler):
    signal.signal(signal.SIGINT, handler)
    with held_interrupts():
        assert signal.getsignal(signal.SIGINT) == handler
    assert signal.signal(signal.SIGINT, signal.default_int_handler) == handler


def test_other_threads_install_no_handler():
    seen = []

    def work():
        with held_interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
