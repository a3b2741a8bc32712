"""Calls every method of grpc_server.py and looks at the answers: grpc_client.py HOST:PORT"""

import queue
import sys

import grpc

channel = grpc.insecure_channel(sys.argv[1])
PATIENCE_SECS = 15


def path(method):
    return f"/lab.Talk/{method}"


def unary():
    call = channel.unary_unary(path("Echo"))
    answer, call = call.with_call(b"hello", timeout=PATIENCE_SECS, metadata=(("color", "blue"),))
    assert answer == b"hello", answer
    assert dict(call.initial_metadata())["seen-color"] == "blue", call.initial_metadata()
    trailers = dict(call.trailing_metadata())
    assert trailers["served-by"] == "python", trailers
    assert trailers["raw-bin"] == b"\x00\xff", trailers
    assert call.code() == grpc.StatusCode.OK
    # Larger than any window or buffer on the way would be by itself.
    large = bytes(3_000_000)
    assert channel.unary_unary(path("Echo"))(large, timeout=PATIENCE_SECS) == large


def client_streaming():
    numbers = (str(number).encode() for number in range(1000))
    answer = channel.stream_unary(path("Add"))(numbers, timeout=PATIENCE_SECS)
    assert answer == b"499500", answer


def server_streaming():
    call = channel.unary_stream(path("Count"))(b"1000", timeout=PATIENCE_SECS)
    assert [int(number) for number in call] == list(range(1000))
    assert dict(call.trailing_metadata())["counted"] == "1000"


def both_ways():
    # Each message is sent only after the answer to the one before it: nothing may be held back.
    said = queue.Queue()
    call = channel.stream_stream(path("Chat"))(iter(said.get, None), timeout=PATIENCE_SECS)
    for word in (b"one", b"two", b"three"):
        said.put(word)
        assert next(call) == word[::-1]
    said.put(None)
    assert list(call) == []
    assert call.code() == grpc.StatusCode.OK


def slow_reader():
    pieces = channel.unary_stream(path("Pour"))(b"2000", timeout=PATIENCE_SECS)
    assert sum(len(piece) for piece in pieces) == 2000 * 16384


def failure():
    try:
        channel.unary_unary(path("Fail"))(b"7", timeout=PATIENCE_SECS)
        raise AssertionError("it should have failed")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
        assert error.details() == "no order 7: schade, weg ✗", error.details()
        assert dict(error.trailing_metadata())["reason"] == "unknown-order"


def failure_after_messages():
    call = channel.unary_stream(path("FailLate"))(b"", timeout=PATIENCE_SECS)
    assert next(call) == b"first"
    try:
        next(call)
        raise AssertionError("it should have failed")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
        assert error.details() == "no more", error.details()


def unknown_method():
    try:
        channel.unary_unary(path("Nothing"))(b"", timeout=PATIENCE_SECS)
        raise AssertionError("it should have failed")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error


def deadline():
    left = float(channel.unary_unary(path("Remaining"))(b"", timeout=5))
    # What is passed on is rounded up.
    assert 0 < left < 5.5, left
    try:
        channel.unary_unary(path("Sleep"))(b"", timeout=0.5)
        raise AssertionError("it should have taken too long")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error


def cancelled():
    call = channel.unary_unary(path("Sleep")).future(b"", timeout=PATIENCE_SECS)
    call.cancel()
    assert call.cancelled()


for check in (
    unary,
    client_streaming,
    server_streaming,
    both_ways,
    slow_reader,
    failure,
    failure_after_messages,
    unknown_method,
    deadline,
    cancelled,
):
    check()
    print(check.__name__, flush=True)
