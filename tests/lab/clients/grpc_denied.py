"""Makes a call that is not allowed, and prints what it is told: grpc_denied.py HOST:PORT"""

import sys

import grpc

try:
    grpc.insecure_channel(sys.argv[1]).unary_unary("/other.Service/Call")(b"", timeout=15)
except grpc.RpcError as error:
    print(error.code().name, error.details(), dict(error.trailing_metadata()))
