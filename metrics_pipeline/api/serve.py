"""Running the API: one process, plain HTTP. Encryption and more processes are a proxy's business (docs/api.md)."""

from __future__ import annotations

import uvicorn

from metrics_pipeline.api.app import create_app
from metrics_pipeline.settings import Settings


def make_server(
    settings: Settings, *, host: str, port: int, proxy: str | None = None, log_level: str = "info"
) -> uvicorn.Server:
    """A server of the API. `proxy`: the address of a proxy whose word for the caller's address is believed."""
    configuration = uvicorn.Config(
        create_app(settings),
        host=host,
        port=port,
        log_level=log_level,
        server_header=False,
        proxy_headers=proxy is not None,
        forwarded_allow_ips=proxy,
        timeout_graceful_shutdown=10,
        limit_concurrency=200,
    )
    return uvicorn.Server(configuration)
