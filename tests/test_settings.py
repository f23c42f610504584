"""Settings: one installation, resolved from environment and file."""

from __future__ import annotations

from pathlib import Path

import pytest

from metrics_pipeline.settings import Installation, SettingsError, load_settings, write_installation


def test_two_homes_never_meet(tmp_path: Path) -> None:
    one = load_settings({"METRICS_HOME": str(tmp_path / "one")})
    two = load_settings({"METRICS_HOME": str(tmp_path / "two")})
    for name in ("build_path", "published_dir", "evaluations_dir", "dagster_home", "messages_dir", "dbt_target_dir"):
        assert getattr(one, name).is_relative_to(one.home)
        assert not getattr(one, name).is_relative_to(two.home)
    assert str(one.home) in one.database_url


def test_an_installation_is_read_as_it_was_written(tmp_path: Path) -> None:
    shop = Installation(source="olist", path=tmp_path, timezone="America/Sao_Paulo", currency="BRL")
    write_installation(tmp_path, shop)
    assert load_settings({"METRICS_HOME": str(tmp_path)}).installation == shop


def test_the_environment_wins_over_defaults(tmp_path: Path) -> None:
    settings = load_settings(
        {
            "METRICS_HOME": str(tmp_path),
            "METRICS_LATE_DAYS": "7",
            "METRICS_EMAIL_TO": "ops@shop.example, night@shop.example",
            "METRICS_SMTP_URL": "smtp://u:secret@mail.example:25",
        }
    )
    assert settings.late_days == 7
    assert settings.email_to == ("ops@shop.example", "night@shop.example")
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("environ", "named"),
    [({"METRICS_LATE_DAYS": "soon"}, "METRICS_LATE_DAYS"), ({"METRICS_LOCALE": ""}, "")],
)
def test_a_bad_variable_is_named(tmp_path: Path, environ: dict[str, str], named: str) -> None:
    environ = {"METRICS_HOME": str(tmp_path), **environ}
    if not named:
        assert load_settings(environ).locale == "zh"
        return
    with pytest.raises(SettingsError, match=named):
        load_settings(environ)


def test_another_dbt_project_can_be_named(tmp_path: Path) -> None:
    environ = {"METRICS_HOME": str(tmp_path), "METRICS_DBT_PROJECT": str(tmp_path / "library")}
    with pytest.raises(SettingsError, match=r"METRICS_DBT_PROJECT: .*no dbt_project.yml"):
        load_settings(environ)
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "dbt_project.yml").write_text("name: mine\n")
    assert load_settings(environ).dbt_project_dir == tmp_path / "library"


@pytest.mark.parametrize("text", ["timezone: Mars/Olympus\n", "source: [\n", "colour: blue\n"])
def test_a_bad_installation_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "installation.yml").write_text(text)
    with pytest.raises(SettingsError, match=r"installation\.yml"):
        load_settings({"METRICS_HOME": str(tmp_path)})
