"""Tests speak to this machine only: loopback and unix sockets work, everything else fails at once.

The guard sits in this process. Processes that a test starts are outside of it.
"""

import asyncio
import socket
import warnings

import pytest
from pytest_socket import SocketConnectBlockedError

ELSEWHERE = "192.0.2.1"  # TEST-NET-1, RFC 5737: nobody's


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the guard also warns
        yield


def test_another_machine_is_out_of_reach():
    with pytest.raises(SocketConnectBlockedError):
        socket.create_connection((ELSEWHERE, 80), timeout=1)


def test_another_machine_is_out_of_reach_from_asyncio():
    async def connect():
        await asyncio.open_connection(ELSEWHERE, 80)

    with pytest.raises(SocketConnectBlockedError):
        asyncio.run(connect())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_works_from_asyncio(host):
    async def roundtrip():
        async def answer(reader, writer):
            writer.write(await reader.readline())
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(host, server.sockets[0].getsockname()[1])
            writer.write(b"hello\n")
            line = await reader.readline()
            writer.close()
            return line

    assert asyncio.run(roundtrip()) == b"hello\n"


def test_unix_sockets_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("s")
        server.listen()
        client.connect("s")
