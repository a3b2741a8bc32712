"""A WebSocket server that sends everything back: websocket_server.py PORT"""

import sys

from websockets.sync.server import serve


def answer(connection):
    for message in connection:
        if message == "bye":
            connection.close(4001, "as you wish")
            return
        connection.send(message)


with serve(answer, "0.0.0.0", int(sys.argv[1]), subprotocols=["lab"], max_size=None) as server:
    print("serving", flush=True)
    server.serve_forever()
