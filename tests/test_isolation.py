"""The suite's own promises: nothing that a user has set is seen, nothing is reached, and only marks skip tests."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from tests.conftest import skip_reason
from tests.isolation import FOR_THE_SUITE, NoNetworkError, isolate

HOSTILE = {
    "HOME": "/nowhere",
    "XDG_CACHE_HOME": "/nowhere",
    "OV3D_DTYPE": "int8",
    "OV3D_TRACEBACK": "1",
    "OV3D_SPCONV": "0",
    "HF_HOME": "/nowhere",
    "HF_ENDPOINT": "http://localhost:1",
    "HTTPS_PROXY": "http://localhost:1",
    "all_proxy": "http://localhost:1",
    "LANG": "de_DE.ISO-8859-1",
    "LC_NUMERIC": "de_DE",
    "TZ": "Pacific/Kiritimati",
    "FORCE_COLOR": "1",
    "GITHUB_ACTIONS": "true",
}


def test_what_the_user_has_set_is_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {**HOSTILE, **dict.fromkeys(FOR_THE_SUITE, "kept")}.items():
        monkeypatch.setenv(name, value)
    try:
        with pytest.MonkeyPatch.context() as patch:
            isolate(patch, tmp_path, auto_dtype="bfloat16")
            assert [name for name, value in HOSTILE.items() if os.environ.get(name) == value] == []
            assert [os.environ[name] for name in FOR_THE_SUITE] == ["kept"] * len(FOR_THE_SUITE)
            assert Path.home() == tmp_path
            assert os.environ["OV3D_DTYPE"] == "bfloat16"
            assert time.localtime(0).tm_hour == 0
        assert {name: os.environ[name] for name in HOSTILE} == HOSTILE
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_nothing_can_be_reached(family: socket.AddressFamily) -> None:
    with socket.socket(family) as tcp, socket.socket(family, socket.SOCK_DGRAM) as udp:
        for reach in (tcp.connect, tcp.connect_ex, lambda address: udp.sendto(b"x", address)):
            with pytest.raises(NoNetworkError):
                reach(("localhost", 9))
    for look_up in (socket.create_connection, lambda address: socket.getaddrinfo(*address)):
        with pytest.raises(NoNetworkError):
            look_up(("localhost", 9))


def test_processes_of_one_machine_still_talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the whole path of a temporary folder may be too long for an address
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("here")
        server.listen()
        client.connect("here")


@pytest.mark.parametrize("mark", ["gpu", "weights", "shared_data", "offline_weights"], ids="of-{}".format)
def test_a_parameter_with_the_name_of_a_mark_skips_nothing(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    """Pytest's keywords hold both. The machine of this test lacks everything."""
    monkeypatch.setattr("tests.conftest._LACKING", {mark: lambda _: "not here"})
    item = pytest.Function.from_parent(request.node.parent, name="test_x", callobj=lambda: None, keywords={mark: True})
    assert mark in item.keywords
    assert skip_reason(item) == ""
    item.add_marker(getattr(pytest.mark, mark))
    assert skip_reason(item) == "not here"
