"""The application: routes, errors as problem documents, and what lives as long as the server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from metrics_pipeline.access.reader import NotPublished, open_reader
from metrics_pipeline.api.door import WRONG_PER_MINUTE, Gate
from metrics_pipeline.api.library import Library
from metrics_pipeline.api.limits import Buckets
from metrics_pipeline.api.problems import Problem, from_validation
from metrics_pipeline.api.routes import problem_of, router
from metrics_pipeline.library.definitions import DefinitionError
from metrics_pipeline.settings import Settings
from metrics_pipeline.store import open_store

log = logging.getLogger(__name__)

DESCRIPTION: Final = """Read-only access to the metric library and to published values.

指标库与已发布指标值的只读接口。

Every request carries `Authorization: Bearer <token>` and sees what the token's person may see: nothing more is in any
list, formula, value, count or error. Periods are on the shop's clock, moments are UTC.
"""


def create_app(settings: Settings, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> FastAPI:
    """The API of one installation; the store is opened when a server starts it. `now` gives aware times."""

    @asynccontextmanager
    async def alive(app: FastAPI) -> AsyncIterator[None]:
        store, reader = open_store(settings), open_reader()
        try:
            app.state.reader = reader
            app.state.gate = Gate(
                settings,
                store,
                Library(settings),
                Buckets(settings.api_per_minute, settings.api_burst),
                Buckets(WRONG_PER_MINUTE, WRONG_PER_MINUTE),
                now,
            )
            yield
        finally:
            reader.close()
            store.close()

    app = FastAPI(
        title="metrics",
        version=version("metrics-pipeline"),
        description=DESCRIPTION,
        lifespan=alive,
        openapi_url="/v1/openapi.json",
        docs_url=None,  # the pages load scripts from elsewhere
        redoc_url=None,
        openapi_tags=[
            {"name": "library", "description": "Definitions 指标定义"},
            {"name": "values", "description": "Published values 指标值"},
            {"name": "health", "description": "The service itself 服务状态"},
        ],
    )
    app.include_router(router)
    _tell_problems(app, settings.locale)
    return app


def openapi_document(settings: Settings) -> dict[str, Any]:
    """The OpenAPI document; nothing of the installation is in it."""
    return create_app(settings).openapi()


def _tell_problems(app: FastAPI, language: str) -> None:
    """Every failure as a problem document."""

    @app.exception_handler(Problem)
    def told(request: Request, error: Problem) -> Response:
        return error.response(request, language)

    @app.exception_handler(RequestValidationError)
    def unusable(request: Request, error: RequestValidationError) -> Response:
        return from_validation(error).response(request, language)

    @app.exception_handler(NotPublished)
    @app.exception_handler(DefinitionError)
    def not_ready(request: Request, error: Exception) -> Response:
        return problem_of(error).response(request, language)

    @app.exception_handler(SQLAlchemyError)
    def no_store(request: Request, error: SQLAlchemyError) -> Response:
        log.error("the store cannot be used: %s", type(error).__name__)
        told_so = Problem("not-ready", "the store cannot be used now", "暂时无法使用存储", {"Retry-After": "10"})
        return told_so.response(request, language)

    @app.exception_handler(HTTPException)
    def of_http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            problem = Problem("method-not-allowed", "only GET is answered", "仅支持 GET", error.headers or {})
        else:
            problem = Problem(
                "not-found",
                "there is nothing at this address; see /v1/openapi.json",
                "该地址不存在;见 /v1/openapi.json",
            )
        return problem.response(request, language)

    @app.exception_handler(Exception)
    def failed(request: Request, error: Exception) -> Response:
        problem = Problem("internal", "it is in the server's log; nothing was changed", "详情见服务器日志;数据未受影响")
        return problem.response(request, language)
