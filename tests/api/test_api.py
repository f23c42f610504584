"""The HTTP API against a real server: what it gives, and what it does not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import httpx
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics_pipeline.api.app import openapi_document
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.store import access, open_store
from metrics_pipeline.store.metric_versions import VersionRow, add_versions
from metrics_pipeline.store.tokens import revoke_token
from tests.api.world import DAYS, PUBLISHED, REGIONS, SLICES, TOTALS, World, publish_shop, served, settings_of

ARROW = "application/vnd.apache.arrow.stream"
LONG = {"from": "2026-10-01", "until": "2026-11-30"}


def walk(client, path, **parameters):
    """All pages; the rows under the name of the list."""
    found, cursor = [], None
    while True:
        page = client.get(path, params={**parameters, **({"cursor": cursor} if cursor else {})})
        assert page.status_code == 200, page.text
        content = page.json()
        rows = content.get("values", content.get("metrics"))
        assert len(rows) <= int(parameters.get("limit", 1000))
        found += rows
        cursor = content["next"]
        assert (cursor is None) == ("Link" not in page.headers)
        if cursor is None:
            return found


def arrow(client, path, **parameters):
    answer = client.get(path, params=parameters, headers={"Accept": ARROW})
    assert answer.status_code == 200 and answer.headers["content-type"] == ARROW, answer.text
    return pa.ipc.open_stream(answer.content).read_all()


def test_values_are_those_that_are_published(world):
    with world.client() as client:
        answer = client.get("/v1/metrics/gmv/values", params={"dimension": "region", "member": "华北"})
    content = answer.json()
    assert [row["period"] for row in content["values"]] == [f"2026-10-{d:02}T00:00:00" for d in range(30, 32)] + [
        f"2026-11-{d:02}T00:00:00" for d in range(1, 11)
    ]
    assert {row["value"] for row in content["values"]} == {TOTALS["gmv"] * 0.2}
    assert content["unit"] == "CNY" and content["complete_until"] == "2026-11-11T00:00:00" and content["next"] is None
    assert {row["level"] for row in content["values"]} == {"exact"}


def test_a_definition_tells_formula_and_lineage(world):
    with world.client() as client:
        content = client.get("/v1/metrics/refund_rate").json()
    assert (
        content["lineage"]["inputs"] == ["refunded_orders", "orders_paid"]
        and "order_health" in content["lineage"]["used_by"]
    )
    assert content["definition_version"] == world.catalogue.metrics["refund_rate"].version
    assert content["name"]["zh"] == "退款率" and content["denominator"] == "orders_paid"


def test_the_list_is_walked_whole_and_filtered(world):
    with world.client() as client:
        assert [one["id"] for one in walk(client, "/v1/metrics", limit=7)] == sorted(world.catalogue.metrics)
        base = walk(client, "/v1/metrics", layer="base", limit=1000)
        assert {one["id"] for one in base} == {n for n, m in world.catalogue.metrics.items() if m.layer == "base"}
        assert "refund_rate" in {one["id"] for one in walk(client, "/v1/metrics", q="退款率")}


def test_an_arrow_stream_has_the_rows_of_the_json(world):
    question = {"dimension": "region", **LONG}
    with world.client() as client:
        rows = client.get("/v1/metrics/refund_rate/values", params=question).json()
        table = arrow(client, "/v1/metrics/refund_rate/values", **question)
        total = arrow(client, "/v1/metrics/refund_rate/values")
        json_total = client.get("/v1/metrics/refund_rate/values").json()["values"]
    found = [{**row, "period": row["period"].isoformat()} for row in table.to_pylist()]
    assert len(found) == DAYS * len(REGIONS) and found == [
        {name: row[name] for name in table.column_names} for row in rows["values"]
    ]
    assert json.loads(table.schema.metadata[b"metrics"]) == {name: rows[name] for name in rows if name != "values"}
    assert total.column("value").to_pylist() == [row["value"] for row in json_total]
    assert total.column("value").null_count == 1  # nothing was paid on that day


def test_pages_give_every_row_once_while_a_new_version_is_published(tmp_path):

    chosen = settings_of(tmp_path / "home")
    catalogue = Catalogue.read(PROJECT_ROOT / "dbt_project")
    publish_shop(chosen.published_dir)
    with served(chosen) as url:
        world = World(chosen, open_store(chosen), catalogue, url)
        with world.client() as client:
            path, question = "/v1/metrics/gmv/values", {"dimension": "region", **LONG, "limit": 7}
            before = client.get(path, params={**question, "limit": 1000}).json()
            first = client.get(path, params=question)
            tag, held = first.headers["etag"], first.json()
            assert client.get(path, params=question, headers={"If-None-Match": tag}).status_code == 304
            publish_shop(chosen.published_dir, factor=2.0, night=1)
            rows, cursor, odd = list(held["values"]), held["next"], 0
            while cursor:  # half of the pages as Arrow
                odd += 1
                if odd % 2:
                    table = arrow(client, path, **question, cursor=cursor)
                    rows += [{**row, "period": row["period"].isoformat()} for row in table.to_pylist()]
                    cursor = json.loads(table.schema.metadata[b"metrics"])["next"]
                else:
                    page = client.get(path, params={**question, "cursor": cursor}).json()
                    assert page["version"] == held["version"]
                    rows, cursor = rows + page["values"], page["next"]
            assert [list(row.values()) for row in rows] == [list(row.values()) for row in before["values"]]
            after = client.get(path, params=question, headers={"If-None-Match": tag})
            assert after.status_code == 200 and after.headers["etag"] != tag
            assert after.json()["values"][0]["value"] == 2 * before["values"][0]["value"]
            as_of = (datetime(2026, 11, 11, 12, tzinfo=UTC)).isoformat()
            known = walk(client, path, **question, as_of=as_of)
            assert [(r["member"], r["period"], r["value"]) for r in known] == [
                (r["member"], r["period"], r["value"]) for r in before["values"]
            ]
            assert {r["run_id"] for r in known} == {"run-0"} and known[0]["computed_at"] == "2026-11-11T02:30:00Z"
            assert client.get(path, params={**question, "as_of": "2026-11-10"}).json()["values"] == []
            (chosen.published_dir / "versions" / f"{held['version']}.json").unlink()
            gone = client.get(path, params={**question, "cursor": held["next"]})
            assert gone.status_code == 410 and gone.json()["type"].endswith("version-gone")
            wrong = client.get(path, params={**question, "dimension": "channel", "cursor": held["next"]})
            assert wrong.status_code == 422
        world.store.close()


def test_without_a_token_that_holds_nothing_is_said(world):
    later = datetime.now(UTC) - timedelta(minutes=1)
    for token in ("", "metrics_000000000000_" + "x" * 43, world.token(expires_at=later), world.token()[:-1] + "é"):
        with httpx.Client(base_url=world.url, trust_env=False) as client:
            headers = {b"Authorization": f"Bearer {token}".encode()} if token else {}
            answer = client.get("/v1/metrics", headers=headers)
        assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"
    assert world.log(action="denied.token")[0].door == "api"


def test_a_revoked_token_and_a_revoked_grant_count_at_once(world):

    token = world.token()
    number = world.grant("li", ("metric", "gmv"))
    with world.client(token) as client:
        first = client.get("/v1/metrics/gmv/values")
        assert first.status_code == 200 and len(first.json()["values"]) == DAYS
        with world.store.writing() as connection:
            access.revoke_grant(connection, number, "ops", now=datetime.now(UTC))
        assert client.get("/v1/metrics/gmv/values", headers={"If-None-Match": first.headers["etag"]}).status_code == 404
        with world.store.writing() as connection:
            assert revoke_token(connection, token.split("_")[1], "ops", now=datetime.now(UTC))
        assert client.get("/v1/metrics/gmv/values").status_code == 401


def test_what_one_may_not_know_of_is_what_there_is_not(world):
    world.grant("li", ("metric", "refund_rate"), ("metric", "gmv"), region=["华北"])
    with world.client() as client:
        for tail in ("", "/values", "/versions"):
            bodies = set()
            for name in ("orders_paid", "orders_pajd"):
                answer = client.get(f"/v1/metrics/{name}{tail}")
                assert answer.status_code == 404
                bodies.add((answer.text.replace(name, "x"), *sorted(answer.headers.keys())))
            assert len(bodies) == 1
        assert [one["id"] for one in client.get("/v1/metrics").json()["metrics"]] == ["gmv", "refund_rate"]
        rate = client.get("/v1/metrics/refund_rate").json()
        assert rate["formula"] == "(…) / (…)" and rate["denominator"] == "(…)"
        assert rate["lineage"]["inputs"] == [] and rate["lineage"]["used_by"] == []
        assert "orders_paid" not in {rate["formula"], rate["denominator"], *rate["lineage"]["upstream"]}
        regions = client.get("/v1/metrics/gmv/values", params={"dimension": "region"}).json()["values"]
        assert {row["member"] for row in regions} == {"华北"}
        empty = [
            client.get("/v1/metrics/gmv/values", params={"dimension": "region", "member": one})
            for one in ("华东", "不存在")
        ]
        assert empty[0].text == empty[1].text and empty[0].json()["values"] == []
        assert client.get("/v1/metrics/gmv/values").json()["values"] == []  # the total
        ratio = client.get("/v1/metrics/refund_rate/values", params={"dimension": "region"}).json()["values"]
        assert all(row["value"] and row["numerator"] is None and row["denominator"] is None for row in ratio)
    denied = [(one.actor, one.subject, one.slice, one.door) for one in world.log(action="denied.read")]
    assert ("li", "orders_paid", "", "api") in denied and ("li", "gmv", "region=华东", "api") in denied


def test_a_confidential_metric_is_banded_or_hidden_as_its_grant_says_and_read_on_record(world):
    name = next(n for n in PUBLISHED if world.catalogue.metrics[n].sensitivity == "confidential")
    world.grant("li", level="banded")
    world.grant("wang", level="hidden")
    with world.client() as client:
        banded = client.get(f"/v1/metrics/{name}/values").json()["values"]
        table = arrow(client, f"/v1/metrics/{name}/values")
    assert len(banded) == DAYS and all(row["value"] is None and row["level"] == "banded" for row in banded)
    assert all(row["numerator"] is None and row["denominator"] is None for row in banded)
    assert all(row["low"] <= row["high"] and "–" in row["band"] for row in banded)
    assert table.column("band").to_pylist() == [row["band"] for row in banded]
    with world.client(world.token("wang")) as client:
        hidden = client.get(f"/v1/metrics/{name}/values").json()["values"]
    assert len(hidden) == DAYS
    assert all({row[k] for k in ("value", "band", "low", "high", "numerator")} == {None} for row in hidden)
    entry = world.log(action="metric.read", actor="li")[0]
    assert (entry.subject, entry.door, entry.origin) == (name, "api", "127.0.0.1")
    assert entry.details["rows"] == DAYS and len(entry.details["token"]) == 12


def test_problems_are_told_in_the_language_asked_for(world):
    with world.client() as client:
        texts = [
            client.get("/v1/metrics/gmv/values", params={"limit": 0, "x": 1}, headers={"Accept-Language": language})
            for language in ("zh-CN,zh;q=0.9,en;q=0.5", "en-GB", "fr")
        ]
    assert [one.json()["title"] for one in texts] == ["参数不可用", "A parameter cannot be used", "参数不可用"]
    assert {one["parameter"] for one in texts[1].json()["errors"]} == {"limit", "x"}
    assert texts[0].headers["content-language"] == "zh" and texts[0].status_code == 422


def test_other_addresses_methods_and_formats_are_problems_too(world):
    with world.client() as client:
        answers = [
            client.get("/v1/nothing"),
            client.post("/v1/metrics"),
            client.get("/v1/metrics/gmv/values", headers={"Accept": "text/html"}),
            client.get("/v1/metrics/gmv/values", params={"dimension": "planet"}),
            client.get("/v1/metrics/gmv/values", params={"from": "2026-11-11", "until": "2026-11-01"}),
        ]
    assert [one.status_code for one in answers] == [404, 405, 406, 422, 422]
    assert all(one.headers["content-type"] == "application/problem+json" for one in answers)
    assert "region" in answers[3].json()["detail"]


def test_an_absent_metric_says_why(world):
    with world.client() as client:
        content = client.get("/v1/metrics/complaints/values").json()
    assert content["values"] == [] and content["absent"]["zh"] == "数据源没有客诉"


def test_a_token_that_asks_too_often_waits_and_others_do_not(tmp_path):

    chosen = settings_of(tmp_path / "home", api_per_minute=60, api_burst=3)
    with served(chosen) as url:
        world = World(chosen, open_store(chosen), None, url)  # type: ignore[arg-type]
        with world.client() as busy, world.client() as calm:
            answers = [busy.get("/v1/metrics", params={"limit": 1}) for _ in range(5)]
            assert [one.status_code for one in answers][:3] == [200] * 3 and answers[-1].status_code == 429
            assert int(answers[-1].headers["retry-after"]) >= 1
            assert calm.get("/v1/metrics", params={"limit": 1}).status_code == 200
            assert calm.get("/v1/metrics/gmv/values").status_code == 503  # nothing is published
        with httpx.Client(base_url=url, trust_env=False) as stranger:
            assert [stranger.get("/v1/metrics").status_code for _ in range(12)][-1] == 429
            assert stranger.get("/v1/health").json() == {
                "status": "failing", "store": True, "published": False, "definitions": True,
            }  # fmt: skip
        world.store.close()


HOSTILE = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            "' OR '1'='1", "it's; DROP--", "华北' UNION SELECT * FROM read_csv('/etc/passwd')--", "$metric", "\x00", "..",
            "../../CURRENT", "-1", "1e999", "0001-01-01", "9999-12-31T23:59:59-14:00", "2026-02-30", "[]", "bnVsbA", "%00",
        ]
    ),
)  # fmt: skip


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["dimension", "member", "grain", "from", "until", "as_of", "limit", "cursor"]),
        HOSTILE,
        max_size=4,
    ),
    st.sampled_from(["gmv", "gmv'--", "..", "Ω", "a" * 500]),
)
def test_hostile_parameters_end_in_a_problem_or_in_rows_of_the_slice_asked_for(world, parameters, metric):
    with world.client(_token(world)) as client:
        answer = client.get(f"/v1/metrics/{quote(metric)}/values", params=parameters)
    assert answer.status_code in (200, 404, 422, 410), answer.text
    assert "Traceback" not in answer.text and "duckdb" not in answer.text.lower() and ".parquet" not in answer.text
    if answer.status_code == 200:
        content = answer.json()
        asked = parameters.get("member")
        assert {row["member"] for row in content["values"]} <= {asked} if asked is not None else True
        assert all((content["dimension"], row["member"]) in SLICES for row in content["values"])


_TOKENS: dict[int, str] = {}


def _token(world) -> str:
    return _TOKENS.setdefault(id(world), world.token())


def test_a_member_with_the_signs_of_sql_is_read_like_any_other(world):
    with world.client() as client:
        rows = client.get("/v1/metrics/gmv/values", params={"dimension": "region", "member": REGIONS[2]}).json()[
            "values"
        ]
    assert len(rows) == DAYS and {row["member"] for row in rows} == {REGIONS[2]}


def test_versions_name_nothing_that_may_not_be_known(world):
    made = VersionRow(
        "refund_rate", 1, "abc", "d", None, {"formula": "refunded_orders / orders_paid", "inputs": {"orders_paid": "v"}},
        {}, "wang", datetime(2026, 11, 1, tzinfo=UTC), "first seen", None, None,
    )  # fmt: skip
    with world.store.writing() as connection:
        add_versions(connection, [made])
    with world.client() as client:
        whole = client.get("/v1/metrics/refund_rate/versions").json()["versions"]
        world.grant("li", ("metric", "refund_rate"))
        part = client.get("/v1/metrics/refund_rate/versions")
    assert whole[0]["definition"]["formula"] == "refunded_orders / orders_paid" and whole[0]["is_whole"]
    assert part.json()["versions"][0]["definition"] is None and "orders_paid" not in part.text


def test_the_openapi_document_describes_every_parameter_and_answer(world):
    document = openapi_document(world.settings)
    with httpx.Client(base_url=world.url, trust_env=False) as client:
        assert client.get("/v1/openapi.json").json() == document
    operations = [one for path in document["paths"].values() for one in path.values()]
    assert len(operations) == 5 and all(one["summary"] and one["description"] for one in operations)
    assert all(parameter["description"] for one in operations for parameter in one.get("parameters", ()))
    values = document["paths"]["/v1/metrics/{metric}/values"]["get"]
    assert {"200", "304", "401", "404", "406", "410", "422", "429", "503"} <= set(values["responses"])
    assert ARROW in values["responses"]["200"]["content"] and values["security"] == [{"token": []}]
    assert document["components"]["schemas"]["ValueRow"]["properties"]["band"]["description"]
    assert "application/problem+json" in values["responses"]["422"]["content"]


@pytest.mark.parametrize("secret", ["person", "home", "store_url"])
def test_health_says_yes_or_no_and_nothing_else(world, secret):
    answer = httpx.get(f"{world.url}/v1/health", trust_env=False)
    assert answer.status_code == 200 and set(answer.json()) == {"status", "store", "published", "definitions"}
    assert str(world.settings.home) not in answer.text and secret not in answer.text
