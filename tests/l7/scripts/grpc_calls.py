"""A gRPC server, and a client that makes every kind of call: grpc_calls.py serve|call|unavailable PORT."""

import sys
import threading
import time
from concurrent import futures

import grpc

LIMITS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]
CANCELLED = threading.Event()
OPEN = threading.Event()


def unary(request, context):
    told = dict(context.invocation_metadata()).get("x-told", "")
    context.send_initial_metadata((("x-early", told),))
    context.set_trailing_metadata((("x-late", told), ("x-late-bin", b"\x00\xff")))
    return request


def many(request, _context):
    for number in range(int(request)):
        yield str(number).encode()


def total(requests, _context):
    return str(sum(len(request) for request in requests)).encode()


def echo(requests, _context):
    yield from requests


def fail(_request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: 100 % \u00e4")


def wait(_request, context):
    context.add_callback(CANCELLED.set)
    OPEN.set()
    while context.is_active():
        time.sleep(0.01)
    return b""


def wait_stream(_request, context):
    context.add_callback(CANCELLED.set)
    yield b"open"
    while context.is_active():
        time.sleep(0.01)


def was_cancelled(_request, _context):
    done = CANCELLED.wait(5)
    CANCELLED.clear()
    OPEN.clear()
    return str(done).encode()


def is_open(_request, _context):
    return str(OPEN.wait(5)).encode()


def serve(port):
    server = grpc.server(futures.ThreadPoolExecutor(16), options=LIMITS)
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Many": grpc.unary_stream_rpc_method_handler(many),
        "Total": grpc.stream_unary_rpc_method_handler(total),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Wait": grpc.unary_unary_rpc_method_handler(wait),
        "WaitStream": grpc.unary_stream_rpc_method_handler(wait_stream),
        "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
        "IsOpen": grpc.unary_unary_rpc_method_handler(is_open),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Calls", handlers),))
    assert server.add_insecure_port(f"127.0.0.1:{port}") == port
    server.start()
    server.wait_for_termination()


def status_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded")


def cancelled(channel):
    return channel.unary_unary("/test.Calls/WasCancelled")(b"", timeout=10) == b"True"


def call(port):
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=LIMITS)
    one = channel.unary_unary("/test.Calls/Unary")
    assert one(b"hello", timeout=10) == b"hello"
    print("unary")
    answer, over = one.with_call(b"", timeout=10, metadata=(("x-told", "yes"),))
    assert answer == b"" and dict(over.initial_metadata())["x-early"] == "yes"
    trailers = dict(over.trailing_metadata())
    assert trailers["x-late"] == "yes" and trailers["x-late-bin"] == b"\x00\xff", trailers
    print("metadata")
    large = b"x" * (16 << 20)
    assert one(large, timeout=30) == large
    print("large")
    several = channel.unary_stream("/test.Calls/Many")
    assert [int(part) for part in several(b"1000", timeout=20)] == list(range(1000))
    print("server stream")
    count = channel.stream_unary("/test.Calls/Total")
    assert count((b"x" * 1000 for _ in range(1000)), timeout=20) == b"1000000"
    print("client stream")
    asked = []

    def turns():
        for number in range(100):
            # The next one only after the answer to the one before.
            while len(asked) < number:
                time.sleep(0.0005)
            yield str(number).encode()

    for part in channel.stream_stream("/test.Calls/Echo")(turns(), timeout=20):
        asked.append(part)
    assert asked == [str(number).encode() for number in range(100)]
    print("bidirectional")
    error = status_of(lambda: channel.unary_unary("/test.Calls/Fail")(b"", timeout=10))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION and error.details() == "not now: 100 % \u00e4"
    print("error")
    begun = time.monotonic()
    error = status_of(lambda: channel.unary_unary("/test.Calls/Wait")(b"", timeout=0.5))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and time.monotonic() - begun < 3, error
    assert cancelled(channel)
    print("deadline")
    pending = channel.unary_unary("/test.Calls/Wait").future(b"")
    assert channel.unary_unary("/test.Calls/IsOpen")(b"", timeout=10) == b"True"
    pending.cancel()
    assert cancelled(channel)
    print("cancelled")
    stream = channel.unary_stream("/test.Calls/WaitStream")(b"")
    assert next(stream) == b"open"
    stream.cancel()
    assert cancelled(channel)
    print("cancelled stream")
    calls = [one.future(str(number).encode(), timeout=20) for number in range(300)]
    assert [int(pending.result()) for pending in calls] == list(range(300))
    print("many")
    error = status_of(lambda: channel.unary_unary("/test.Calls/None")(b"", timeout=10))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    print("unimplemented")


def unavailable(port):
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    error = status_of(lambda: channel.unary_unary("/test.Calls/Unary")(b"", timeout=10))
    print(error.code().name)


{"serve": serve, "call": call, "unavailable": unavailable}[sys.argv[1]](int(sys.argv[2]))
