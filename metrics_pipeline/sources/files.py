"""Any folder of CSV or Parquet files, by a mapping file that says which column means what (docs/sources.md).

The mapping is data, not SQL: each contract column names its input column and, where needed, a unit, a clock, a format
or a list of values. Input columns are looked up in the file before they are quoted into a query, and everything else is
a query parameter. A value that a conversion cannot read is handed on as it is, marked, so that loading puts the row
into quarantine instead of losing the value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import duckdb
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from metrics_pipeline.sources.contract import Column, Table, Text, load_contract
from metrics_pipeline.sources.coverage import Days, daily_volumes, infer_days, spans_of, told_days
from metrics_pipeline.sources.source import EARLIEST_CLOCK, Absence, Batch, SourceError, SourceInfo, Span, words_of
from metrics_pipeline.yaml_values import MarkedMapping, MarkedSequence, MarkedYAMLError, YAMLError, read_yaml

MAPPING_NAME = "mapping.yml"
UNREADABLE = "unreadable: "
"""Mark of a value that its conversion cannot read; no contract type can parse it."""

_MINOR_UNITS = ("cents", "fen")
_LATEST = 4_102_444_800
"""The year 2100 in seconds since 1970: a larger number is of another unit."""
_WRITTEN_OFFSET = r"\d{2}:\d{2}.*(Z|[+-]\d{2}(:?\d{2})?)\s*$"


def _known_zone(name: object) -> object:
    try:
        ZoneInfo(str(name))
    except (KeyError, ValueError, OSError):
        raise ValueError(f"unknown time zone {name!r}; use an IANA name such as Asia/Shanghai") from None
    return name


def _words(value: object) -> object:
    """YAML scalars as the words a file would have: `1` is '1', `true` is 'true'."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float | date) else value


def _listed(value: object) -> object:
    return [_words(item) for item in (value if isinstance(value, list) else [value])]


_Zone = Annotated[str, BeforeValidator(_known_zone)]
_Word = Annotated[str, BeforeValidator(_words)]
_WordList = Annotated[list[str], BeforeValidator(_listed)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class ColumnMapping(_Strict):
    """Where one contract column comes from."""

    source: _WordList | None = Field(default=None, alias="from")
    """Input column; several are joined with `-` (a key made of two columns)."""
    constant: _Word | None = None
    unit: Literal["major", "cents", "fen"] = "major"
    """Unit of an amount: `cents` and `fen` are hundredths of the currency's major unit."""
    timezone: _Zone | None = None
    """The clock of a local time; without it a time is UTC. An offset written in the value wins."""
    format: str | None = None
    """`strptime` format of a date or time, or `epoch_seconds` | `epoch_milliseconds`."""
    value_map: dict[_Word, _Word] | None = None
    otherwise: _Word | None = None
    """What a value that is not in `value_map` becomes; without it, it stays as it is."""
    split: str | None = None
    """Separator; `part` (from 1) is taken."""
    part: int = Field(default=1, ge=1)
    true_values: _WordList | None = None
    false_values: _WordList | None = None
    """With both lists any other value is an error; with `true_values` alone any other value is false."""

    @model_validator(mode="after")
    def _one_origin(self) -> ColumnMapping:
        if (self.source is None) == (self.constant is None):
            raise ValueError("give either `from` (an input column) or `constant`")
        if self.false_values is not None and self.true_values is None:
            raise ValueError("`false_values` needs `true_values`")
        if self.otherwise is not None and self.value_map is None:
            raise ValueError("`otherwise` needs `value_map`")
        return self


def _short_form(value: object) -> object:
    """`order_id: order_no` means `order_id: {from: order_no}`."""
    return {"from": value} if isinstance(value, str) else value


class CompleteDays(_Strict):
    """First and last complete day of the shop, when they are known."""

    first: date | None = Field(default=None, alias="from")
    last: date | None = Field(default=None, alias="until")


class TableMapping(_Strict):
    """Where one contract table comes from."""

    files: _WordList
    """Globs relative to the mapping file; `.csv`, `.csv.gz`, `.tsv` and `.parquet`."""
    delimiter: str = Field(default=",", min_length=1)
    nulls: _WordList = [""]
    """Texts of a CSV file that mean "nothing"."""
    complete: CompleteDays = CompleteDays()
    columns: dict[str, Annotated[ColumnMapping, BeforeValidator(_short_form)]]


class FilesMapping(_Strict):
    """A whole mapping file."""

    name: str = Field(default="files", pattern=r"^[a-z][a-z0-9_]*$")
    timezone: _Zone
    """The shop's clock."""
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    tables: dict[str, TableMapping]
    absent: dict[str, Text] = {}
    """Better reasons than "not mapped", by `table` or `table.column`."""


class FilesSource:
    """Reads files by a mapping; implements `sources.source.Source`."""

    def __init__(self, path: Path, *, complete_from: date | None = None, complete_until: date | None = None) -> None:
        """`path` is the mapping file, or a folder with `mapping.yml`.

        `complete_from` and `complete_until` (first and last complete shop day) win over the mapping's `complete` and
        over what the volumes say. Raises `SourceError` with file, line and mend for anything wrong in the mapping.
        """
        self.path = path / MAPPING_NAME if path.is_dir() else path
        self.complete_from = complete_from
        self.complete_until = complete_until
        self._document, self.mapping = read_mapping(self.path)
        self._days: dict[str, tuple[Days, ...]] = {}
        self._event_volumes: dict[str, dict[date, int]] = {}

    @cached_property
    def info(self) -> SourceInfo:
        """Name, clock, currency; every contract table and column that is not mapped is absent, with a reason."""
        given = {name: Absence(text.en, text.zh) for name, text in self.mapping.absent.items()}
        absent: dict[str, Absence] = {}
        for table in load_contract().tables:
            mapped = self.mapping.tables.get(table.name)
            lacking = [table.name] if mapped is None else [
                f"{table.name}.{name}" for name in table.column_names if name not in mapped.columns
            ]  # fmt: skip
            for name in lacking:
                absent[name] = given.get(name) or Absence(
                    f"{self.path.name} maps nothing onto {name}.", f"{self.path.name} 未映射 {name}。"
                )
        return SourceInfo(self.mapping.name, self.mapping.timezone, self.mapping.currency, absent)

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.mapping.timezone)

    def coverage(self, table: str) -> tuple[Span, ...]:
        """Spans of complete days: as told, else inferred from daily volumes (`sources/coverage.py`)."""
        mapped = self.mapping.tables.get(table)
        if mapped is None:
            return ()
        if table not in self._days:
            first = self.complete_from or mapped.complete.first
            last = self.complete_until or mapped.complete.last
            days = () if first is not None and last is not None else infer_days(self._volumes(table))
            self._days[table] = told_days(days, first, last)
        return spans_of(self._days[table], self.zone)

    def batches(self, table: str, window: Span) -> Iterator[Batch]:
        """One batch per file, of the rows whose clock lies in `window`, and those whose clock cannot be.

        The latter (unreadable, before `EARLIEST_CLOCK`, later than now) lie in no window and would be lost in silence.
        """
        mapped = self.mapping.tables.get(table)
        if mapped is None:
            return
        entry = load_contract().table(table)
        for path in self.files(table):
            query = self._query(entry, mapped, path)
            sql = query.sql
            if entry.clock_column is not None:
                clock = _clock(entry.clock_column)
                start, until = self._bounds(entry.clock_column, window)
                impossible = f"{clock} IS NULL OR {clock} < DATE '{EARLIEST_CLOCK}'"
                if entry.clock_column.not_future:
                    now = "timezone('UTC', now())"
                    if entry.clock_column.type == "date":
                        now = f"CAST(timezone({query.parameter(self.mapping.timezone)}, now()) AS DATE)"
                    impossible += f" OR {clock} > {now}"
                sql = (
                    f"SELECT * FROM ({sql}) AS mapped WHERE {impossible}"
                    f" OR ({clock} >= {query.parameter(start)} AND {clock} < {query.parameter(until)})"
                )
            name = path.relative_to(self.path.parent) if path.is_relative_to(self.path.parent) else path
            yield Batch(table, f"{self.mapping.name}/{table}/{name.as_posix()}", sql, tuple(query.parameters))

    def files(self, table: str) -> list[Path]:
        """The files of a mapped table, in order of their names; `SourceError` when a glob finds none or one is empty."""
        found: list[Path] = []
        for pattern in self.mapping.tables[table].files:
            where = self._at("tables", table, "files")
            anchor = Path(pattern).anchor
            base, relative = (Path(anchor), pattern[len(anchor) :]) if anchor else (self.path.parent, pattern)
            paths = sorted(path for path in base.glob(relative) if path.is_file())
            if not paths:
                raise SourceError(
                    f"{where}: no file matches {pattern!r} below {base}; correct `files` or deliver the files"
                )
            for path in paths:
                if path.stat().st_size == 0:
                    raise SourceError(f"{path}: the file is empty (not even a header); deliver it again, or remove it")
            found += [path for path in paths if path not in found]
        return found

    def _volumes(self, table: str) -> dict[date, int]:
        """Rows per shop day. A dimension is as complete as the events are: the rows of every mapped event table."""
        contract = load_contract()
        entry = contract.table(table)
        events = [table] if entry.clock else [name for name in self.mapping.tables if contract.table(name).clock]
        total: dict[date, int] = {}
        for event in events:
            if event not in self._event_volumes:
                self._event_volumes[event] = self._count_days(contract.table(event))
            for day, count in self._event_volumes[event].items():
                total[day] = total.get(day, 0) + count
        return total

    def _count_days(self, entry: Table) -> dict[date, int]:
        column = entry.clock_column
        assert column is not None
        total: dict[date, int] = {}
        for path in self.files(entry.name):
            query = self._query(entry, self.mapping.tables[entry.name], path)
            clock = _clock(column)
            if column.type == "timestamp":
                zone = query.parameter(self.mapping.timezone)
                clock = f"CAST(timezone({zone}, timezone('UTC', {clock})) AS DATE)"
            sql = f"SELECT {clock} AS day, count(*) FROM ({query.sql}) AS mapped GROUP BY day"
            for day, count in daily_volumes(sql, query.parameters).items():
                total[day] = total.get(day, 0) + count
        return total

    def _bounds(self, clock: Column, window: Span) -> tuple[object, object]:
        if clock.type == "timestamp":
            return window.start, window.until
        first, last = (
            moment.replace(tzinfo=UTC).astimezone(self.zone).date()
            for moment in (window.start, window.until - timedelta(microseconds=1))
        )
        return first, last + timedelta(days=1)

    def _query(self, entry: Table, mapped: TableMapping, path: Path) -> _Query:
        query = _Query(path, mapped)
        types = query.describe()
        columns = []
        for column in entry.columns:
            mapping = mapped.columns.get(column.name)
            if mapping is None:
                continue
            for name in mapping.source or ():
                if name not in types:
                    raise SourceError(
                        f"{self._at('tables', entry.name, 'columns', column.name)}: {path} has no column {name!r}; "
                        f"it has {', '.join(types)}. Correct `from`."
                    )
            columns.append(f"{query.expression(column, mapping, types)} AS {column.name}")
        query.sql = f"SELECT {', '.join(columns)} FROM {query.relation} AS input"
        return query

    def _at(self, *keys: str) -> str:
        return f"{self.path}:{_line(self._document, keys)}"


class _Query:
    """The query of one file under construction: text with numbered parameters."""

    def __init__(self, path: Path, mapped: TableMapping) -> None:
        self.parameters: list[object] = []
        self.path = path
        self.sql = ""
        file = self.parameter(str(path))
        if path.suffix == ".parquet":
            self.relation = f"read_parquet({file})"
        else:
            delimiter = "\t" if ".tsv" in path.suffixes else mapped.delimiter
            self.relation = (
                f"read_csv({file}, all_varchar = true, header = true, delim = {self.parameter(delimiter)}, quote = '\"',"
                f" escape = '\"', nullstr = {self.parameter(list(mapped.nulls))})"
            )

    def parameter(self, value: object) -> str:
        self.parameters.append(value)
        return f"${len(self.parameters)}"

    def describe(self) -> dict[str, str]:
        """Columns of the file and their DuckDB types; `SourceError` when it cannot be read."""
        with duckdb.connect() as con:
            try:
                rows = con.execute(f"DESCRIBE SELECT * FROM {self.relation}", self.parameters).fetchall()
            except duckdb.Error as error:
                raise SourceError(
                    f"{self.path}: cannot be read: {words_of(error)} "
                    "Deliver it again: UTF-8 text with one header line and the mapping's `delimiter`, or a whole Parquet file."
                ) from None
        return {str(name): str(data_type) for name, data_type, *_ in rows}

    def expression(self, column: Column, mapping: ColumnMapping, types: Mapping[str, str]) -> str:
        """The input column(s) as a contract value; text that a conversion cannot read comes out marked."""
        if mapping.source is None:
            return self.parameter(mapping.constant)
        columns = [_quoted(name) for name in mapping.source]
        value, given = columns[0], types[mapping.source[0]]
        if len(columns) > 1:
            value, given = f"concat_ws('-', {', '.join(columns)})", "VARCHAR"
        if mapping.split is not None:
            value = f"nullif(split_part(CAST({value} AS VARCHAR), {self.parameter(mapping.split)}, {mapping.part}), '')"
            given = "VARCHAR"
        if mapping.value_map is not None:
            cases = " ".join(
                f"WHEN {self.parameter(old)} THEN {self.parameter(new)}" for old, new in mapping.value_map.items()
            )
            other = f"CAST({value} AS VARCHAR)" if mapping.otherwise is None else self.parameter(mapping.otherwise)
            value, given = f"CASE CAST({value} AS VARCHAR) {cases} ELSE {other} END", "VARCHAR"
        if mapping.true_values is not None:
            return self._boolean(value, mapping)
        if mapping.unit in _MINOR_UNITS:
            return _or_marked(f"CAST(TRY_CAST({value} AS DECIMAL(18,4)) / 100 AS DECIMAL(18,4))", value)
        if column.type in {"timestamp", "date"} and (mapping.format or mapping.timezone):
            return self._time(value, given, column, mapping)
        return value

    def _boolean(self, value: str, mapping: ColumnMapping) -> str:
        word = f"CAST({value} AS VARCHAR)"
        yes = f"list_contains({self.parameter(list(mapping.true_values or ()))}, {word})"
        if mapping.false_values is None:
            return f"CASE WHEN {value} IS NOT NULL THEN CAST({yes} AS VARCHAR) END"
        no = f"list_contains({self.parameter(list(mapping.false_values))}, {word})"
        return f"CASE WHEN {yes} THEN 'true' WHEN {no} THEN 'false' ELSE '{UNREADABLE}' || {word} END"

    def _time(self, value: str, given: str, column: Column, mapping: ColumnMapping) -> str:
        if mapping.format in {"epoch_seconds", "epoch_milliseconds"}:
            factor, latest = (1_000_000, _LATEST) if mapping.format == "epoch_seconds" else (1_000, _LATEST * 1_000)
            number = f"TRY_CAST({value} AS DECIMAL(18,3))"
            moment = (
                f"CASE WHEN {number} BETWEEN 0 AND {latest}"
                f" THEN make_timestamp(CAST(CAST({number} AS DECIMAL(28,3)) * {factor} AS BIGINT)) END"
            )
            if column.type == "date" and mapping.timezone:
                moment = f"timezone({self.parameter(mapping.timezone)}, timezone('UTC', {moment}))"
        else:
            if mapping.format is not None:
                local = f"try_strptime(CAST({value} AS VARCHAR), {self.parameter(mapping.format)})"
            else:
                local = f"TRY_CAST({value} AS TIMESTAMP)"
            moment = local
            if mapping.timezone is not None and column.type == "date" and given == "TIMESTAMP WITH TIME ZONE":
                moment = f"timezone({self.parameter(mapping.timezone)}, {value})"
            elif mapping.timezone is not None and column.type == "timestamp":
                zone = self.parameter(mapping.timezone)
                moment = f"timezone('UTC', timezone({zone}, {local}))"
                if given == "TIMESTAMP WITH TIME ZONE":
                    moment = f"timezone('UTC', {value})"
                elif given == "VARCHAR" and mapping.format is None:
                    moment = (
                        f"CASE WHEN regexp_matches({value}, '{_WRITTEN_OFFSET}')"
                        f" THEN timezone('UTC', TRY_CAST({value} AS TIMESTAMPTZ)) ELSE {moment} END"
                    )
        if column.type == "date":
            moment = f"CAST({moment} AS DATE)"
        return _or_marked(moment, value)


def read_mapping(path: Path) -> tuple[Any, FilesMapping]:
    """Read and check a mapping file; returns the YAML document (for line numbers) and the mapping.

    Raises `SourceError` with file, line, what was expected and what to do.
    """
    if not path.is_file():
        raise SourceError(f"{path}: there is no mapping file; write one (docs/sources.md shows an example)")
    try:
        document = read_yaml(path.read_text("utf-8"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SourceError(f"{path}:{line}: not valid YAML: {error.problem}; correct the line") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: not valid YAML in UTF-8: {error}") from None
    try:
        mapping = FilesMapping.model_validate(document)
    except ValidationError as error:
        raise SourceError("\n".join(_explained(path, document, issue) for issue in error.errors())) from None
    problems = list(_problems(mapping))
    if problems:
        raise SourceError("\n".join(f"{path}:{_line(document, keys)}: {text}" for keys, text in problems))
    return document, mapping


def _problems(mapping: FilesMapping) -> Iterator[tuple[tuple[str, ...], str]]:
    """What the contract has against a mapping that is well-formed: key path and sentence."""
    contract = load_contract()
    for name, table in mapping.tables.items():
        if name not in contract.table_names:
            yield ("tables", name), f"unknown table {name!r}; the contract has {', '.join(contract.table_names)}"
            continue
        entry = contract.table(name)
        missing = [column for column in entry.required_columns if column not in table.columns]
        if missing:
            yield (
                ("tables", name, "columns"),
                f"table {name} needs {', '.join(missing)}; map each to an input column (docs/raw-contract.md)",
            )
        for column_name, column in table.columns.items():
            keys = ("tables", name, "columns", column_name)
            if column_name not in entry.column_names:
                yield keys, f"table {name} has no column {column_name!r}; it has {', '.join(entry.column_names)}"
                continue
            yield from ((keys, text) for text in _misuses(entry.column(column_name), column))
    for name in mapping.absent:
        table_name, _, column_name = name.partition(".")
        if table_name not in contract.table_names or (
            column_name and column_name not in contract.table(table_name).column_names
        ):
            yield ("absent", name), f"{name!r} is neither a table nor a table.column of the contract"


def _misuses(column: Column, mapping: ColumnMapping) -> Iterator[str]:
    if mapping.unit in _MINOR_UNITS and column.type != "decimal":
        yield f"`unit: {mapping.unit}` is for amounts; {column.name} is {column.type}"
    if (mapping.format or mapping.timezone) and column.type not in {"timestamp", "date"}:
        yield f"`format` and `timezone` are for dates and times; {column.name} is {column.type}"
    if mapping.true_values is not None and column.type != "boolean":
        yield f"`true_values` is for boolean columns; {column.name} is {column.type}"


def _explained(path: Path, document: object, issue: Any) -> str:
    keys = tuple(issue["loc"])
    words = ".".join(str(key) for key in keys) or "the file"
    if issue["type"] == "extra_forbidden":
        text = f"unknown key {words}; docs/sources.md lists the keys"
    elif issue["type"] == "missing":
        text = f"{words} is missing; add it (docs/sources.md)"
    else:
        text = f"{words}: {issue['msg'].removeprefix('Value error, ')}"
    return f"{path}:{_line(document, keys)}: {text}"


def _line(document: object, keys: Sequence[str | int]) -> int:
    """The line (from 1) of the deepest of `keys` that is in the document."""
    line = 0
    for key in keys:
        if not isinstance(document, MarkedMapping | MarkedSequence):
            break
        try:
            position = document.lc.key(key) if isinstance(document, dict) else document.lc.item(key)
            document = document[key]  # type: ignore[index]
        except (KeyError, IndexError, TypeError, AttributeError):
            break
        line = position[0]
    return line + 1


def _clock(column: Column) -> str:
    if column.type == "date":
        return f"TRY_CAST({column.name} AS DATE)"
    return f"TRY_CAST(TRY_CAST({column.name} AS TIMESTAMPTZ) AS TIMESTAMP)"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _or_marked(converted: str, value: str) -> str:
    return f"coalesce(CAST({converted} AS VARCHAR), '{UNREADABLE}' || CAST({value} AS VARCHAR))"
