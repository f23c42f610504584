from __future__ import annotations

from pathlib import Path

import pytest

from metrics_pipeline.settings import Installation, Settings
from metrics_pipeline.sources.files import FilesSource
from metrics_pipeline.sources.olist import OlistSource
from metrics_pipeline.sources.registry import detect, open_source
from metrics_pipeline.sources.source import SourceError


def settings(home: Path, **installation: object) -> Settings:
    return Settings(home=home, installation=Installation.model_validate(installation))


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_each_source_opens_by_name(tmp_path: Path) -> None:
    olist = touch(tmp_path / "olist", *(f"{name}.parquet" for name in OlistSource.files))
    assert isinstance(open_source(settings(tmp_path, source="olist", path=olist)), OlistSource)
    mapping = tmp_path / "mapping.yml"
    mapping.write_text("timezone: UTC\ncurrency: EUR\ntables: {}\n")
    assert isinstance(open_source(settings(tmp_path, source="files", path=mapping)), FilesSource)
    assert open_source(settings(tmp_path)).info.name == "simulator"


@pytest.mark.parametrize(
    ("installation", "message"),
    [
        ({"source": "shopify"}, r"installation\.yml: unknown source 'shopify'; use one of simulator, olist, merch_store, files"),
        ({"source": "olist"}, r"installation\.yml: source olist needs `path`"),
        ({"source": "files", "path": "nowhere"}, "nowhere: there is no mapping file"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_says_why(tmp_path: Path, installation: dict[str, object], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(settings(tmp_path, **installation))


def test_a_folder_is_recognised_by_its_files(tmp_path: Path) -> None:
    assert detect(touch(tmp_path / "a", *(f"{name}.parquet" for name in OlistSource.files))) == "olist"
    assert detect(touch(tmp_path / "b", "sessions.parquet")) == "merch_store"
    assert detect(touch(tmp_path / "c", "mapping.yml", "sessions.parquet")) == "files"
    assert detect(tmp_path / "c" / "mapping.yml") == "files"
    assert detect(touch(tmp_path / "d", "manifest.json")) == "simulator"


def test_what_is_not_recognised_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"not recognised. Looked for mapping\.yml .* olist \(orders\.parquet"):
        detect(touch(tmp_path / "e", "data.xlsx"))
    with pytest.raises(SourceError, match="there is no such file or folder"):
        detect(tmp_path / "f")
    with pytest.raises(SourceError, match="needs a mapping file"):
        detect(tmp_path / "e" / "data.xlsx")
