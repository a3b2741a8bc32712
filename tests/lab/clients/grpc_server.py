"""A gRPC server with one method of each kind: grpc_server.py PORT

Messages are bytes as they are, so that nothing has to be generated.
"""

import sys
import time
from concurrent import futures

import grpc

# Longer than any deadline that the client sets.
ASLEEP_SECS = 20
PIECE = b"x" * 16384


def echo(request, context):
    known = dict(context.invocation_metadata())
    context.send_initial_metadata((("seen-color", known.get("color", "none")),))
    context.set_trailing_metadata((("served-by", "python"), ("raw-bin", b"\x00\xff")))
    return request


def remaining(_request, context):
    return str(context.time_remaining()).encode()


def add(requests, _context):
    return str(sum(int(request) for request in requests)).encode()


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()
    context.set_trailing_metadata((("counted", request.decode()),))


def chat(requests, _context):
    for request in requests:
        yield request[::-1]


def pour(request, _context):
    for _ in range(int(request)):
        yield PIECE


def fail(request, context):
    context.set_trailing_metadata((("reason", "unknown-order"),))
    context.abort(grpc.StatusCode.NOT_FOUND, f"no order {request.decode()}: schade, weg ✗")


def fail_late(_request, context):
    yield b"first"
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no more")


def sleep(_request, context):
    end = time.monotonic() + ASLEEP_SECS
    while context.is_active() and time.monotonic() < end:
        time.sleep(0.01)
    print("cancelled" if not context.is_active() else "slept", flush=True)
    return b""


UNARY, SERVER, CLIENT, BOTH = (
    grpc.unary_unary_rpc_method_handler,
    grpc.unary_stream_rpc_method_handler,
    grpc.stream_unary_rpc_method_handler,
    grpc.stream_stream_rpc_method_handler,
)
METHODS = {
    "Echo": UNARY(echo),
    "Remaining": UNARY(remaining),
    "Add": CLIENT(add),
    "Count": SERVER(count),
    "Chat": BOTH(chat),
    "Pour": SERVER(pour),
    "Fail": UNARY(fail),
    "FailLate": SERVER(fail_late),
    "Sleep": UNARY(sleep),
}


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lab.Talk", METHODS),))
    if not server.add_insecure_port(f"0.0.0.0:{sys.argv[1]}"):
        sys.exit("the port is taken")
    server.start()
    print("serving", flush=True)
    server.wait_for_termination()


main()
