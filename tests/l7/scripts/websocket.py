"""A WebSocket echo, and a client that tries it: websocket.py serve PORT | talk PORT."""

import asyncio
import sys

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

LIMIT = 16 << 20


async def echo(connection):
    path = connection.request.path
    if path == "/first":
        await connection.send("hello")
    if path == "/close":
        await connection.close(4001, "over")
        return
    async for message in connection:
        await connection.send(message)


def judge(connection, request):
    if request.path == "/refused":
        return connection.respond(403, "no\n")
    return None


async def run_server(port):
    async with serve(echo, "127.0.0.1", port, max_size=LIMIT, process_request=judge):
        await asyncio.Future()


async def talk(port):
    base = f"ws://127.0.0.1:{port}"
    async with connect(f"{base}/echo", max_size=LIMIT) as client:
        await client.send("hello \u00e4\u20ac")
        assert await client.recv() == "hello \u00e4\u20ac"
        print("text")
        large = bytes(range(256)) * (4 << 12)
        sent = asyncio.create_task(client.send(large))
        assert await client.recv() == large
        await sent
        print("binary")
        await client.send(["frag", "ment", "ed"])
        assert await client.recv() == "fragmented"
        print("fragments")
        for number in range(500):
            await client.send(str(number))
            assert await client.recv() == str(number)
        await (await client.ping())
        print("many")
    async with connect(f"{base}/first") as client:
        assert await client.recv() == "hello"
        print("server first")
    async with connect(f"{base}/close") as client:
        try:
            await client.recv()
        except websockets.ConnectionClosed as closed:
            print("close", closed.rcvd.code, closed.rcvd.reason)
    try:
        async with connect(f"{base}/refused"):
            print("accepted")
    except websockets.InvalidStatus as refused:
        print("refused", refused.response.status_code)


what, port = sys.argv[1], int(sys.argv[2])
asyncio.run(run_server(port) if what == "serve" else talk(port))
