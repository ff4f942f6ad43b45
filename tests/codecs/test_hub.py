"""The hub that can't be reached is told of within seconds; one that is slow is waited for."""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from voxlab.codecs import hub, weights
from voxlab.errors import UserError


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the environment's word nor an earlier answer keeps the hub from being asked."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def url_of(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}"


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def answer(server: socket.socket, reply: bytes, delay: float = 0.0) -> None:
    """Serve every connection; no reply: it is cut."""

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                if reply and connection.recv(4096):  # nothing comes where only the connection was tried
                    time.sleep(delay)
                    connection.sendall(reply)

    threading.Thread(target=serve, daemon=True).start()


FOUND = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def test_a_name_without_address_fails_in_seconds_and_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        weights.resolve("owner/model", ["config.json", "model.safetensors"], codec="x")
    assert time.monotonic() - start < 5
    message = str(error.value)
    assert "local_files_only" not in message  # the words of the cache are no reason of the connection
    for part in (
        f"config.json not found for weights 'owner/model': it isn't in the cache ({tmp_path / 'hub'})",
        "hub.invalid can't be reached (",
        "hf download owner/model --local-dir model",
        "set codec.weights=model",
        "HF_HUB_OFFLINE=1",
    ):
        assert part in message
    assert len(message.splitlines()) <= 6


def test_swallowed_packets_fail_in_seconds(monkeypatch):
    monkeypatch.setattr(hub, "_PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as waiting:
        for _ in range(4):  # more than its queue holds: what comes then gets no answer
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        monkeypatch.setattr(constants, "ENDPOINT", url_of(full))
        start = time.monotonic()
        with pytest.raises(
            hub.UnreachableError, match=r"127\.0\.0\.1 can't be reached \(no connection within 0\.5 s\)"
        ):
            hub.check_reachable()
        assert time.monotonic() - start < 3


def test_a_connection_that_is_refused_or_cut_fails(monkeypatch, server):
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(hub.UnreachableError, match="refused"):
        hub.check_reachable()
    answer(server, b"")
    monkeypatch.setattr(constants, "ENDPOINT", url_of(server))
    with pytest.raises(hub.UnreachableError, match=r"127\.0\.0\.1 can't be reached"):
        hub.check_reachable()


@pytest.mark.parametrize("reply", [FOUND, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"], ids=["200", "404"])
def test_any_answer_is_one(monkeypatch, server, reply):
    answer(server, reply)
    monkeypatch.setattr(constants, "ENDPOINT", url_of(server))
    hub.check_reachable()


def test_a_slow_answer_is_left_to_the_hubs_own_patience(monkeypatch, server):
    monkeypatch.setattr(hub, "_PATIENCE", 0.3)
    answer(server, FOUND, delay=1.5)
    monkeypatch.setattr(constants, "ENDPOINT", url_of(server))
    hub.check_reachable()


def test_a_proxy_is_what_must_be_reached(monkeypatch, server):
    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
    answer(server, FOUND)
    monkeypatch.setenv("http_proxy", url_of(server))
    hub.check_reachable()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(hub.UnreachableError, match=r"hub\.invalid can't be reached \(the proxy: .*refused"):
        hub.check_reachable()


def test_the_word_of_the_environment_is_taken_at_once(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("requests.Session.head", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match="HF_HUB_OFFLINE=1 keeps from asking the hub"):
        weights.resolve("owner/model", ["config.json"], codec="x")


def cached(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "hub" / "models--owner--model"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc" / name).write_text("{}")


def test_an_optional_file_that_may_exist_is_warned_of_without_network(monkeypatch, tmp_path, caplog):
    cached(tmp_path, "config.json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with caplog.at_level(logging.WARNING):
        found = weights.resolve("owner/model", ["config.json"], ["extra.json"], codec="x")
    assert list(found) == ["config.json"]
    assert "owner/model: whether it has extra.json isn't known, as HF_HUB_OFFLINE=1" in caplog.text


def test_an_optional_file_that_the_cache_knows_to_lack_is_not_warned_of(monkeypatch, tmp_path, caplog):
    cached(tmp_path, "config.json")
    absent = tmp_path / "hub" / "models--owner--model" / ".no_exist" / "abc" / "extra.json"
    absent.parent.mkdir(parents=True)
    absent.touch()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with caplog.at_level(logging.WARNING):
        weights.resolve("owner/model", ["config.json"], ["extra.json"], codec="x")
    assert caplog.text == ""
