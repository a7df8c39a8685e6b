"""engine/portal_process.py: what is bound before anything starts, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_certificate
import pytest

from tune.engine.errors import UsageError
from tune.engine.portal_process import opening


def refused(*arguments: Any) -> UsageError:
    with pytest.raises(UsageError) as caught, opening(*arguments):
        raise AssertionError("unreachable")
    return caught.value


def test_a_port_is_bound_before_anything_starts() -> None:
    with opening(None) as none:
        assert none is None
    with opening(0) as found:
        assert found is not None and found.url == f"http://127.0.0.1:{found.port}/?token={found.token}"
        assert found.listening.getsockname()[0] == "127.0.0.1" and len(found.token) >= 40
        assert "can't be used" in refused(found.port).message
    for wrong in (-1, 65536):
        assert "was given" in refused(wrong).message


@pytest.mark.parametrize(("host", "shown"), [("localhost", "localhost"), ("127.0.0.2", "127.0.0.2"), ("::1", "[::1]")])
def test_another_name_of_this_machine_needs_no_tls(host: str, shown: str) -> None:
    with opening(0, host) as found:
        assert found is not None and found.url.startswith(f"http://{shown}:{found.port}/?token=")


@pytest.mark.parametrize("host", ["192.0.2.7", "lab.example.org", "2001:db8::1", "localhost.example.org", "127.1"])
def test_beyond_this_machine_it_is_refused_without_tls_and_a_tunnel_is_shown(host: str, tmp_path: Path) -> None:
    error = refused(8080, host)
    assert "TLS only" in error.message and "ssh -L 8080:127.0.0.1:8080 " in (error.hint or "")
    cert, key = made_certificate.made(tmp_path, "127.0.0.1")
    assert "go together" in (refused(8080, "127.0.0.1", cert, None).message)
    assert "TLS only" in refused(8080, host, cert, None).message
    assert "TLS only" in refused(8080, host, None, key).message


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_every_address_at_once_is_none_that_anybody_asks_for(host: str, tmp_path: Path) -> None:
    assert "no address" in refused(0, host, *made_certificate.made(tmp_path, "127.0.0.1")).message


@pytest.mark.parametrize("host", ["", "a b", "http://lab", "lab:80", "-x", "x\n"])
def test_what_is_no_name_is_refused(host: str, tmp_path: Path) -> None:
    if host:
        assert "--host: found" in refused(0, host, *made_certificate.made(tmp_path, "127.0.0.1")).message
    else:
        with opening(0, host) as found:
            assert found is not None and found.host == "127.0.0.1"


def test_a_certificate_that_cannot_be_used_is_refused_before_anything_starts(tmp_path: Path) -> None:
    cert, key = made_certificate.made(tmp_path, "127.0.0.1")
    with opening(0, None, cert, key) as found:
        assert found is not None and found.url.startswith("https://127.0.0.1:")
    (tmp_path / "other").mkdir()
    _, another = made_certificate.made(tmp_path / "other", "127.0.0.1")
    (tmp_path / "closed").mkdir()
    _, closed = made_certificate.made(tmp_path / "closed", "127.0.0.1", passphrase=b"secret")
    for wrong in ((cert, another), (cert, closed), (cert, tmp_path / "none"), (key, key), (tmp_path, key)):
        assert "can't be used" in refused(0, None, *wrong).message, wrong


def test_where_and_how_mean_nothing_without_a_port(tmp_path: Path) -> None:
    assert "--port" in (refused(None, "127.0.0.1").hint or "")
    assert "--port" in (refused(None, None, tmp_path, tmp_path).hint or "")
