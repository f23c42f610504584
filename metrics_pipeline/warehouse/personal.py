"""Personal data on its way into the raw tables: hashed with a key, or left out. Clear text is never written.

The hash is HMAC-SHA256 over the trimmed, lower-case text, so that equal addresses stay equal and can be joined on, and
nobody without the key can try addresses until one fits. The key is the environment variable METRICS_PERSONAL_KEY, or
the file `personal.key` of the installation, made at first use and readable by its owner only. DuckDB gets it as variables
of the connection: it stands in no statement, no error and no log.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from duckdb import DuckDBPyConnection

from metrics_pipeline.settings import Settings, SettingsError, read_secret

KEY_VARIABLE = "METRICS_PERSONAL_KEY"
_BLOCK = 64
"""Bytes of a block of SHA-256, as HMAC (RFC 2104) needs it."""
_LEAST_KEY = 16


@dataclass(frozen=True)
class PersonalData:
    """What becomes of the columns that the contract marks `pii`. Build it with `personal_data_of`."""

    treatment: Literal["hash", "drop"] = "drop"
    key: bytes = field(default=b"", repr=False)

    def prepare(self, con: DuckDBPyConnection) -> None:
        """Give a connection what `value` needs."""
        if self.treatment == "hash":
            padded = self.key.ljust(_BLOCK, b"\0")
            for name, byte in (("personal_inner", 0x36), ("personal_outer", 0x5C)):
                con.execute(f"SET VARIABLE {name} = ?", [bytes(one ^ byte for one in padded)])

    def value(self, expression: str) -> str:
        """A SQL expression: what is kept of a text; empty text is nobody's and stays NULL."""
        if self.treatment == "drop":
            return "CAST(NULL AS VARCHAR)"
        text = f"encode(lower(trim({expression})))"
        inner = f"unhex(sha256(getvariable('personal_inner') || {text}))"
        return f"CASE WHEN trim({expression}) <> '' THEN sha256(getvariable('personal_outer') || {inner}) END"

    def fingerprint(self, text: str) -> str:
        """A SQL expression: a text as a number that tells nobody without the key what it was; equal texts stay equal."""
        if self.treatment == "drop":
            return f"hash({text})"
        return f"hash(sha256(getvariable('personal_inner') || encode({text})))"

    def cover(self, con: DuckDBPyConnection, table: str, columns: Sequence[str], *, written: str = "true") -> None:
        """Treat what an earlier release wrote in clear, or another treatment left.

        `written`: a condition on the rows that may be untreated after a load that hashes.
        """
        for column in columns:
            untreated = f"{column} IS NOT NULL"
            if self.treatment == "hash":
                untreated += f" AND {written} AND NOT regexp_full_match({column}, '[0-9a-f]{{64}}')"
            con.execute(f"UPDATE {table} SET {column} = {self.value(column)} WHERE {untreated}")


def personal_data_of(settings: Settings) -> PersonalData:
    """The treatment of an installation, with its key. Raises `SettingsError` when a key cannot be used."""
    if settings.personal_data == "drop":
        return PersonalData("drop")
    try:
        text = read_secret(env=KEY_VARIABLE)
    except SettingsError:
        text = read_secret(file=_key_file(settings.home))
    if len(text) < _LEAST_KEY:
        raise SettingsError(f"{KEY_VARIABLE}: the key has fewer than {_LEAST_KEY} signs; make a longer one")
    key = text.encode()
    if len(key) > _BLOCK:
        raise SettingsError(f"{KEY_VARIABLE}: the key has more than {_BLOCK} bytes; make a shorter one")
    return PersonalData("hash", key)


def _key_file(home: Path) -> Path:
    """The installation's own key, made when there is none."""
    path = home / "personal.key"
    home.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    if not path.exists():
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32) + "\n")
        try:
            os.link(part, path)  # whole or not at all, and never over another process's key
        except FileExistsError:
            pass
        finally:
            part.unlink()
    return path
