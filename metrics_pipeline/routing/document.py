"""A YAML file with the line of every value, and what pydantic found wrong in it said in those lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from metrics_pipeline.nearest import nearest
from metrics_pipeline.rules.load import Problem
from metrics_pipeline.yaml_values import MarkedYAMLError, YAMLError, plain, read_yaml

Model = TypeVar("Model", bound=BaseModel)
_OWN = frozenset({"matcher", "duration", "interval", "time", "signal"})
"""Errors of our own validators, whose text says it all."""


@dataclass
class Document:
    """One file on its way into a model; problems are gathered."""

    path: Path
    problems: list[Problem] = field(default_factory=list)
    guide: str = "docs/routing.md"
    """The page that shows how such a file is written."""
    _content: Any = None

    def read(self, model: type[Model]) -> Model | None:
        """The file as a model; None (and problems) when it is not one."""
        try:
            self._content = read_yaml(self.path.read_text("utf-8"))
        except MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
            text = " ".join(part for part in (error.context, error.problem) if part).splitlines()[0]
            self._report(line, f"this is not valid YAML: {text}", "mend the YAML at this line")
            return None
        except (YAMLError, UnicodeDecodeError, OSError) as error:
            self._report(1, f"cannot be read: {str(error).splitlines()[0]}", "write it as YAML in UTF-8")
            return None
        if not isinstance(self._content, dict):
            keys = ", ".join(_keys(model))
            self._report(1, "this file is empty or no mapping", f"begin with one of the keys {keys}")
            return None
        try:
            return model.model_validate(plain(self._content))
        except ValidationError as error:
            for detail in error.errors():
                self._invalid(model, detail)
            return None

    @property
    def content(self) -> Any:
        """What was read, as plain values; None when it is no YAML."""
        return plain(self._content)

    def report(self, place: Sequence[str | int], message: str, mend: str) -> None:
        """Add a problem about the value at a place, e.g. `("route", "routes", 2, "receiver")`."""
        self._report(self.line(place), message, mend)

    def line(self, place: Sequence[str | int]) -> int:
        """The line of the deepest part of a place that is in the file."""
        line, content = 1, self._content
        for step in place:
            marks = getattr(content, "lc", None)
            if marks is None:
                break
            try:
                line = int((marks.key(step) if isinstance(content, dict) else marks.item(step))[0]) + 1
                content = content[step]
            except (KeyError, IndexError, TypeError, AttributeError):
                break
        return line

    def _invalid(self, model: type[BaseModel], detail: ErrorDetails) -> None:
        place = [step for step in detail["loc"] if isinstance(step, int) or not step.endswith("]")]
        shown = ".".join(str(step) for step in place)
        match detail["type"]:
            case "extra_forbidden":
                known = _keys(_model_at(model, place[:-1]))
                guess = nearest(str(place[-1]), known) or f"; the keys are {', '.join(known)}"
                self.report(place, f"key {str(place[-1])!r} is not known{guess}", "rename or remove it")
            case "missing":
                self.report(place, f"{shown} is missing", "add it")
            case kind if kind in _OWN:
                self.report(place, f"{shown}: {detail['msg']}", "correct it")
            case _:
                given = detail["input"]
                value = repr(given) if isinstance(given, str | int | float | bool) else type(given).__name__
                self.report(place, f"{shown}: {detail['msg']}, not {value}", f"write it as {self.guide} shows")

    def _report(self, line: int, message: str, mend: str) -> None:
        problem = Problem(self.path, line, None, message, mend)
        if problem not in self.problems:
            self.problems.append(problem)


def _keys(model: type[BaseModel] | None) -> list[str]:
    return [info.alias or name for name, info in model.model_fields.items()] if model is not None else []


def _model_at(model: type[BaseModel], place: Sequence[str | int]) -> type[BaseModel] | None:
    """The model of the mapping at a place."""
    current: type[BaseModel] | None = model
    for step in place:
        if isinstance(step, int) or current is None:
            continue
        info = next((one for name, one in current.model_fields.items() if (one.alias or name) == step), None)
        current = None if info is None else _inner(info.annotation)
    return current


def _inner(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        if (found := _inner(part)) is not None:
            return found
    return None
