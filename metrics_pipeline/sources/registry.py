"""The sources by name: what `installation.yml` says → a `Source`, and what a folder looks like → its name."""

from __future__ import annotations

from pathlib import Path

from metrics_pipeline.settings import Settings
from metrics_pipeline.sources.extract import Extract
from metrics_pipeline.sources.merch_store import MerchStoreSource
from metrics_pipeline.sources.olist import OlistSource
from metrics_pipeline.sources.source import Source, SourceError

_EXTRACTS: dict[str, type[Extract]] = {"olist": OlistSource, "merch_store": MerchStoreSource}
SOURCE_NAMES = ("simulator", *_EXTRACTS, "files")


def open_source(settings: Settings) -> Source:
    """The source of an installation.

    Its `complete_from` and `complete_until`, where given, win over what an extract's volumes say.
    Raises `SourceError` when the source is unknown, has no `path`, or its files cannot be used.
    """
    installation = settings.installation
    if installation.source == "simulator":
        from metrics_pipeline.sources.simulator.source import SimulatorSource

        return SimulatorSource(installation.path or settings.source_dir)
    if installation.source not in SOURCE_NAMES:
        raise SourceError(
            f"{settings.home / 'installation.yml'}: unknown source {installation.source!r}; use one of {', '.join(SOURCE_NAMES)}"
        )
    if installation.path is None:
        raise SourceError(
            f"{settings.home / 'installation.yml'}: source {installation.source} needs `path`, the folder or mapping file to read"
        )
    path = installation.path
    complete_from, complete_until = installation.complete_from, installation.complete_until
    if installation.source == "files":
        from metrics_pipeline.sources.files import FilesSource

        return FilesSource(path, complete_from=complete_from, complete_until=complete_until)
    return _EXTRACTS[installation.source](path, complete_from=complete_from, complete_until=complete_until)


def detect(path: Path) -> str:
    """The name of the source that can read `path`, by what lies there.

    A mapping file, or a folder with `mapping.yml`, is `files`; a folder with the files of an extract is that extract;
    a folder written by the simulator is `simulator`. Raises `SourceError` saying what was looked for.
    """
    if not path.exists():
        raise SourceError(f"{path}: there is no such file or folder; give the path of an extract or of a mapping file")
    if path.is_file():
        if path.suffix in {".yml", ".yaml"}:
            return "files"
        raise SourceError(
            f"{path}: a single data file needs a mapping file beside it; give the path of that (docs/sources.md)"
        )
    if (path / "mapping.yml").is_file():
        return "files"
    for name, extract in _EXTRACTS.items():
        if all((path / f"{file}.parquet").is_file() for file in extract.files):
            return name
    if (path / "manifest.json").is_file():
        return "simulator"
    raise SourceError(
        f"{path}: not recognised. Looked for mapping.yml (any files: docs/sources.md), "
        + ", ".join(
            f"{name} ({', '.join(f'{file}.parquet' for file in extract.files)})" for name, extract in _EXTRACTS.items()
        )
        + ". Write a mapping.yml for other files."
    )
