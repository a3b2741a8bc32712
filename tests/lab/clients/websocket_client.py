"""Talks with websocket_server.py, several at once: websocket_client.py ws://HOST:PORT/"""

import sys
from concurrent.futures import ThreadPoolExecutor

from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

TOGETHER = 20
PATIENCE_SECS = 15


def talk(number):
    with connect(sys.argv[1], subprotocols=["lab"], max_size=None) as connection:
        assert connection.subprotocol == "lab"
        for message in (f"text {number}", bytes([number]) * 70_000, "ünï"):
            connection.send(message)
            assert connection.recv(timeout=PATIENCE_SECS) == message
        # Fragments of one message, and a ping between messages.
        connection.send(["a", "b", "c"])
        assert connection.recv(timeout=PATIENCE_SECS) == "abc"
        assert connection.ping().wait(PATIENCE_SECS)
        large = bytes(2_000_000)
        connection.send(large)
        assert connection.recv(timeout=PATIENCE_SECS) == large
        connection.send("bye")
        try:
            connection.recv(timeout=PATIENCE_SECS)
            raise AssertionError("it should have been closed")
        except ConnectionClosedError as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "as you wish"), closed
    return number


with ThreadPoolExecutor(TOGETHER) as threads:
    # The first that failed is the one that is told of.
    assert list(threads.map(talk, range(TOGETHER))) == list(range(TOGETHER))
print(f"{TOGETHER} conversations")
