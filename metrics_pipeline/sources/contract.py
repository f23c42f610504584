"""The raw contract as values: `contract.yml` read once into frozen models, and what is generated from it.

Loading, the Great Expectations suites, `docs/raw-contract.md` and the dbt sources all start here, so that a column,
its type, its unit and its rules are written in one place. `python -m metrics_pipeline.sources.contract` writes the
generated files; a test fails when they are stale.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.yaml_values import YAMLError, read_yaml

CONTRACT_PATH = Path(__file__).with_name("contract.yml")
MARKDOWN_PATH = PROJECT_ROOT / "docs" / "raw-contract.md"
DBT_SOURCES_PATH = PROJECT_ROOT / "dbt_project" / "models" / "staging" / "raw" / "_sources.yml"

ColumnType = Literal["text", "integer", "decimal", "boolean", "timestamp", "date"]

DUCKDB_TYPES: dict[ColumnType, str] = {
    "text": "VARCHAR",
    "integer": "BIGINT",
    "decimal": "DECIMAL(18,4)",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMP",
    "date": "DATE",
}


class ContractError(ValueError):
    """The contract file cannot be used; the message names the file and the entry."""


class Text(BaseModel):
    """One text in the two languages of the product."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    en: str
    zh: str


class Column(BaseModel):
    """One column of a raw table and the rules its values obey."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    type: ColumnType
    description: Text
    required: bool = False
    """Never null."""
    not_future: bool = False
    """Never later than the moment of loading (dates: the shop's day of that moment)."""
    minimum: int | None = Field(default=None, alias="min")
    unit: str | None = None
    pii: bool = False
    """Personal data: kept as a keyed hash or not at all."""

    @property
    def duckdb_type(self) -> str:
        return DUCKDB_TYPES[self.type]


class Table(BaseModel):
    """One raw table: its columns in order, its key, and (event tables) its clock."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kind: Literal["event", "dimension"]
    description: Text
    key: tuple[str, ...] = Field(min_length=1)
    clock: str | None = None
    columns: tuple[Column, ...]

    @model_validator(mode="after")
    def _key_and_clock_exist(self) -> Table:
        required = {column.name for column in self.columns if column.required}
        for name in self.key:
            if name not in required:
                raise ValueError(f"key column {name!r} must be one of the required columns")
        if self.kind == "dimension":
            if self.clock is not None:
                raise ValueError("a dimension has no clock; remove `clock` or make it an event table")
        elif self.clock not in required or self.column(self.clock).type not in {"timestamp", "date"}:
            raise ValueError(f"clock {self.clock!r} must be a required timestamp or date column")
        return self

    def column(self, name: str) -> Column:
        """The column of that name; `KeyError` when there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def required_columns(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.required)

    @property
    def pii_columns(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.pii)

    @property
    def clock_column(self) -> Column | None:
        """The column that says when it happened; None for a dimension."""
        return None if self.clock is None else self.column(self.clock)

    @property
    def load_columns(self) -> dict[str, str]:
        """Columns that every load writes beside the contract's, with their types; clocks are UTC."""
        fingerprint = {"_fingerprint": "UBIGINT"} if self.kind == "dimension" else {}
        return {"_batch_id": "VARCHAR", "_loaded_at": "TIMESTAMP", **fingerprint}

    def create_statement(self, schema: str = "raw") -> str:
        """DDL of the table in the build file: the contract's columns, then those of the load (`load_columns`)."""
        columns = [f"{column.name} {column.duckdb_type}" for column in self.columns]
        columns += [f"{name} {data_type}" for name, data_type in self.load_columns.items()]
        return f"CREATE TABLE IF NOT EXISTS {schema}.{self.name} (\n  " + ",\n  ".join(columns) + "\n)"


class Contract(BaseModel):
    """All raw tables, in the order of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tables: tuple[Table, ...]

    def table(self, name: str) -> Table:
        """The table of that name; `KeyError` listing the known ones when there is none."""
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(f"no raw table {name!r}; the contract has {', '.join(self.table_names)}")

    @property
    def table_names(self) -> tuple[str, ...]:
        return tuple(table.name for table in self.tables)


def read_contract(path: Path) -> Contract:
    """Read a contract file. Raises `ContractError` naming file and entry."""
    try:
        document = read_yaml(path.read_text("utf-8"))
        return Contract.model_validate(
            {
                "tables": [
                    {
                        **table,
                        "name": name,
                        "columns": [{"name": column, **fields} for column, fields in table["columns"].items()],
                    }
                    for name, table in document["tables"].items()
                ]
            }
        )
    except (YAMLError, ValidationError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ContractError(f"{path}: not a usable contract: {error}") from None


@cache
def load_contract() -> Contract:
    """The contract of this installation (`sources/contract.yml`), read once per process."""
    return read_contract(CONTRACT_PATH)


_COVERAGE_COLUMNS = {
    "table_name": Text(en="Raw table.", zh="原始表。"),
    "covered_from": Text(en="Start of a span for which the table is complete (UTC).", zh="完整区间起点(UTC)。"),
    "covered_until": Text(en="End of that span, exclusive (UTC).", zh="完整区间终点,不含(UTC)。"),
}
_LOAD_COLUMNS = {
    "_batch_id": Text(en="Batch that delivered the row.", zh="交付该行的批次。"),
    "_loaded_at": Text(en="When the row was last written (UTC).", zh="最近写入时间(UTC)。"),
    "_fingerprint": Text(en="The row as it was delivered, as a number.", zh="交付原文的指纹。"),
}


def contract_markdown(contract: Contract | None = None) -> str:
    """The text of `docs/raw-contract.md`: one table of columns per entity."""
    contract = contract or load_contract()
    lines = [
        "# The raw contract",
        "",
        "What every source must deliver. Generated from `metrics_pipeline/sources/contract.yml` by",
        "`python -m metrics_pipeline.sources.contract`; do not edit.",
        "",
        "Timestamps are UTC, dates are days of the shop's own calendar. Money is in the shop's currency, major unit.",
        "A row that breaks a rule goes to `raw._quarantine` with its reasons; the others are loaded.",
        "PII columns are loaded as keyed hashes or not at all (docs/access.md); no message, log or quarantine row shows them.",
    ]
    for table in contract.tables:
        clock = f"clock `{table.clock}`" if table.clock else "no clock (dimension)"
        lines += [
            "",
            f"## {table.name}",
            "",
            f"{table.description.en} {table.description.zh}",
            "",
            f"Key: {', '.join(f'`{name}`' for name in table.key)} · {clock}",
            "",
            "| column | type | unit | rules | description | 说明 |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| `{column.name}` | {column.type} | {column.unit or ''} | {', '.join(_rules(table, column))} "
            f"| {column.description.en} | {column.description.zh} |"
            for column in table.columns
        ]
    return "\n".join(lines) + "\n"


def _rules(table: Table, column: Column) -> list[str]:
    return [
        word
        for word, applies in (
            ("key", column.name in table.key),
            ("clock", column.name == table.clock),
            ("required", column.required),
            (f"≥ {column.minimum}", column.minimum is not None),
            ("not in the future", column.not_future),
            ("PII", column.pii),
        )
        if applies
    ]


def dbt_sources_yaml(contract: Contract | None = None) -> str:
    """The text of the dbt source file: source `raw`, every table and column, and `_coverage`."""
    contract = contract or load_contract()
    lines = [
        "# Generated from metrics_pipeline/sources/contract.yml by `python -m metrics_pipeline.sources.contract`.",
        "version: 2",
        "",
        "sources:",
        "  - name: raw",
        "    schema: raw",
        "    description: What the sources delivered, checked against the raw contract (docs/raw-contract.md).",
        "    tables:",
    ]
    for table in contract.tables:
        meta = [f"kind: {table.kind}", f"key: [{', '.join(table.key)}]"]
        if table.clock:
            meta.append(f"clock: {table.clock}")
        lines += [
            f"      - name: {table.name}",
            f"        description: {_quoted(table.description)}",
            f"        config: {{meta: {{{', '.join(meta)}}}}}",
            "        columns:",
        ]
        for column in table.columns:
            lines += _dbt_column(column.name, column.description, column.duckdb_type)
            if column.pii:
                lines.append("            config: {meta: {pii: true}}")
        for name, data_type in table.load_columns.items():
            lines += _dbt_column(name, _LOAD_COLUMNS[name], data_type)
    lines += [
        "      - name: _coverage",
        "        description: Spans for which each raw table is complete. 各原始表的完整区间。",
        "        columns:",
    ]
    for name, description in _COVERAGE_COLUMNS.items():
        lines += _dbt_column(name, description, "VARCHAR" if name == "table_name" else "TIMESTAMP")
    return "\n".join(lines) + "\n"


def _dbt_column(name: str, description: Text, data_type: str) -> list[str]:
    return [
        f"          - name: {name}",
        f"            data_type: {data_type}",
        f"            description: {_quoted(description)}",
    ]


def _quoted(text: Text) -> str:
    return '"' + f"{text.en} {text.zh}".replace("\\", "\\\\").replace('"', '\\"') + '"'


def write_generated() -> tuple[Path, Path]:
    """Write `docs/raw-contract.md` and the dbt sources; returns their paths."""
    for path, text in ((MARKDOWN_PATH, contract_markdown()), (DBT_SOURCES_PATH, dbt_sources_yaml())):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return MARKDOWN_PATH, DBT_SOURCES_PATH


if __name__ == "__main__":
    write_generated()
