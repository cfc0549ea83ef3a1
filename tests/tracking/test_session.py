"""Where W&B is, with which key: modes, the key and servers that do not answer."""

import http.server
import os
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from wandb_runs import KEY, NOWHERE, ROOT, start_tracker

from ff.errors import FFError
from ff.files import write_text
from ff.tracking import live, session


def test_without_a_key_the_mode_is_offline():
    access = session.resolve_access()
    assert access.mode == "offline"
    assert "WANDB_API_KEY" in access.reason


def test_a_key_in_the_environment_means_online(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    access = session.resolve_access()
    assert access.mode == "online"
    assert KEY not in repr(access)


def test_a_key_in_a_dotenv_file_means_online_and_stays_out_of_the_environment():
    Path("deeper").mkdir()
    Path(".git").mkdir()
    write_text(".env", f"WANDB_API_KEY={KEY}\nWANDB_ENTITY=team\nOTHER=1\n")
    access = session.resolve_access(folder="deeper")
    assert (access.mode, access.key, access.entity) == ("online", KEY, "team")
    assert "WANDB_API_KEY" not in os.environ


def test_the_environment_wins_over_the_dotenv_file(monkeypatch):
    write_text(".env", f"WANDB_API_KEY={KEY}\n")
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    assert session.resolve_access().key == "f" * 40


def test_a_key_that_wandb_login_left_is_found(monkeypatch):
    write_text(Path.home() / ".netrc", f"machine api.wandb.ai\n  login user\n  password {KEY}\n")
    assert session.resolve_access().mode == "online"
    monkeypatch.setenv("WANDB_BASE_URL", NOWHERE)
    assert session.resolve_access().mode == "offline"


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({"WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_DISABLED": "true"}, "disabled"),
        ({"WANDB_MODE": "online"}, "offline"),
    ],
)
def test_wandbs_own_variables_are_heeded(monkeypatch, variables, mode):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert session.resolve_access().mode == mode


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_less_than_online_is_never_silent(monkeypatch, mode):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(live.threading, "Thread", lambda **_: SimpleNamespace(start=lambda: None))
    assert "needs WANDB_API_KEY" in session.resolve_access(mode).warning
    assert ["needs WANDB_API_KEY" in text for text in start_tracker(mode=mode).warnings] == [True]
    monkeypatch.setattr(session.importlib.util, "find_spec", lambda _: None)
    assert "wandb is not installed" in session.resolve_access(mode).warning


def test_what_was_not_asked_for_is_not_warned_of(monkeypatch):
    assert session.resolve_access().warning is None
    assert session.resolve_access("offline").warning is None
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert session.resolve_access("online").warning is None


def test_without_wandb_nothing_is_mirrored_and_nothing_breaks(monkeypatch):
    monkeypatch.setattr(session.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert start_tracker().mode == "disabled"
    assert session.resolve_access("online").reason == "wandb is not installed"


def test_what_is_asked_for_wins_and_unknown_modes_are_refused(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert session.resolve_access("disabled").mode == "disabled"
    with pytest.raises(FFError, match="unknown W&B mode 'maybe'"):
        session.resolve_access("maybe")


def test_the_example_dotenv_file_holds_no_key():
    lines = [line for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ["WANDB_API_KEY="]


@pytest.fixture
def black_hole():
    """A server that takes connections and never answers."""
    server = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def accept():
        while True:
            try:
                taken.append(server.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    server.close()
    for connection in taken:
        connection.close()


def test_silent_and_absent_servers_are_told_from_answering_ones(black_hole):
    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_):
            pass

    answering = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=answering.serve_forever, daemon=True).start()
    access = session.Access("online", "test", key=KEY)
    try:
        at = f"http://127.0.0.1:{answering.server_port}"
        assert session.unreachable(session.Access("online", "test", KEY, at)) is None
    finally:
        answering.shutdown()
        answering.server_close()
    for url in (NOWHERE, black_hole):
        access = session.Access("online", "test", KEY, url)
        assert "cannot be reached" in session.unreachable(access, seconds=1)
