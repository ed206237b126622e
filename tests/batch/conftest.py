"""A store that runs on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def store_server() -> Iterator[str]:
    """An S3-compatible server; gives its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(store_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket `clips`, through fsspec."""
    import s3fs

    told = {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "DEFAULT_REGION": "us-east-1", "ENDPOINT_URL": store_server}
    for name, value in told.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    files = s3fs.S3FileSystem()
    files.mkdir("clips")
    yield files
    files.invalidate_cache()
    files.rm("clips", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()
