"""The dbt project as Dagster assets: every model one asset, every metric with what the library knows of it.

Here: keys, groups, tags and metadata of models, and the two asset definitions (day and hour grain). Not here: how dbt
is called (`warehouse.transform`), which window a run has (`resources.Project`).
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, dbt_assets
from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage
from dagster_dbt.dbt_manifest import validate_manifest

from metrics_pipeline.library.catalogue import Catalogue, Metric
from metrics_pipeline.library.compile import stale_files
from metrics_pipeline.orchestration.instance import WRITER_POOL
from metrics_pipeline.orchestration.keys import ARRIVALS_KEY
from metrics_pipeline.orchestration.partitions import daily_partitions, hourly_partitions, window_of
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.orchestration.services import require_nightly
from metrics_pipeline.warehouse.transform import DbtError, dbt_arguments, dbt_environment, stream_dbt
from metrics_pipeline.warehouse.window import Window

HOURLY_SUFFIX = "_hourly"
RETRY = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
_STALE_WARNING = 0.8
"""Share of a metric's freshness hours after which it is shown as ageing."""


class PyramidTranslator(DagsterDbtTranslator):
    """dbt resource → asset: `raw/orders`, `staging/…`, `facts/…`, `cubes/…`, `base|operational|strategic|hourly/<metric>`."""

    def __init__(self, catalogue: Catalogue) -> None:
        super().__init__(DagsterDbtTranslatorSettings(enable_asset_checks=True, enable_source_metadata=False))
        self._catalogue = catalogue
        self._specs: dict[str, dg.AssetSpec] = {}

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        """The layer and the model's name; of an hourly model the metric's id."""
        layer = _layer(dbt_resource_props)
        name = str(dbt_resource_props["name"])
        return dg.AssetKey([layer, name.removesuffix(HOURLY_SUFFIX) if layer == "hourly" else name])

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str:
        """The layer."""
        return _layer(dbt_resource_props)

    def get_description(self, dbt_resource_props: Mapping[str, Any]) -> str:
        """Definition and formula of a metric in both languages; the model's description otherwise."""
        metric = self._metric(dbt_resource_props)
        if metric is None:
            return str(dbt_resource_props.get("description") or "")
        text = metric.text.replace("**", "")  # the list of assets shows it as it is written
        if metric.absent is None:
            return text
        return f"{text}\n\nAbsent: {metric.absent.reason_en} {metric.absent.reason_zh}"

    def get_metadata(self, dbt_resource_props: Mapping[str, Any]) -> Mapping[str, Any]:
        """Definition, formula, unit, version and where they are written."""
        metric = self._metric(dbt_resource_props)
        if metric is None:
            return {"dbt model": str(dbt_resource_props.get("original_file_path", ""))}
        return {
            "name_zh": metric.name_zh,
            "name_en": metric.name_en,
            "formula": metric.formula,
            "unit": metric.unit,
            "direction": metric.direction,
            "definition_version": metric.version,
            "slices": ", ".join(metric.slices if _layer(dbt_resource_props) != "hourly" else metric.hour_slices),
            "business_line": metric.business_line,
            "sensitivity": metric.sensitivity,
            "definition": f"{metric.file.name}:{metric.line}",
            "dbt model": str(dbt_resource_props.get("original_file_path", "")),
        }

    def get_tags(self, dbt_resource_props: Mapping[str, Any]) -> Mapping[str, str]:
        """Layer; of a metric also category, stage, role, business line and sensitivity."""
        tags = {"layer": _layer(dbt_resource_props)}
        metric = self._metric(dbt_resource_props)
        if metric is not None:
            tags |= {
                "category": metric.category,
                "stage": metric.stage,
                "role": metric.role,
                "business_line": metric.business_line,
                "sensitivity": metric.sensitivity,
            }
        return tags

    def get_owners(self, dbt_resource_props: Mapping[str, Any]) -> Sequence[str] | None:
        """The metric's owner: a team, or a person's address."""
        metric = self._metric(dbt_resource_props)
        return None if metric is None else [owner_of(metric.owner)]

    def get_code_version(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        """The definition's version, so that a changed input definition shows, too."""
        metric = self._metric(dbt_resource_props)
        return metric.version if metric is not None else super().get_code_version(dbt_resource_props)

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: Any) -> dg.AssetSpec:
        """The spec with the metric's freshness policy; hourly cubes also follow what arrived in the hour.

        Made once for each resource: definitions and every event of a run ask for it again.
        """
        if unique_id not in self._specs:
            self._specs[unique_id] = self._spec(manifest, unique_id, project)
        return self._specs[unique_id]

    def _spec(self, manifest: Mapping[str, Any], unique_id: str, project: Any) -> dg.AssetSpec:
        spec = super().get_asset_spec(manifest, unique_id, project)
        props = self.get_resource_props(manifest, unique_id)
        if _layer(props) == "cubes" and str(props["name"]).endswith(HOURLY_SUFFIX):
            return spec.merge_attributes(deps=[ARRIVALS_KEY])
        metric = self._metric(props)
        if metric is None or metric.absent is not None or _layer(props) == "hourly":
            return spec
        fail = timedelta(hours=metric.freshness_hours)
        return spec.replace_attributes(
            freshness_policy=dg.FreshnessPolicy.time_window(fail_window=fail, warn_window=fail * _STALE_WARNING)
        )

    def _metric(self, props: Mapping[str, Any]) -> Metric | None:
        layer, name = _layer(props), str(props["name"])
        if layer == "hourly":
            return self._catalogue.metrics.get(name.removesuffix(HOURLY_SUFFIX))
        return self._catalogue.metrics.get(name) if layer in {"base", "operational", "strategic"} else None


def owner_of(owner: str) -> str:
    """An owner as Dagster wants it: an address stays, a team gets its prefix."""
    return owner if "@" in owner else f"team:{owner}"


def _layer(props: Mapping[str, Any]) -> str:
    if props["resource_type"] == "source":
        return str(props["source_name"])
    if props["resource_type"] == "seed":
        return "seeds"
    return str(props["fqn"][1])


def build_dbt_assets(project: Project) -> list[dg.AssetsDefinition]:
    """The daily asset definition (everything but the hourly tables) and the hourly one."""
    manifest = project.manifest_path
    hourly_names = hourly_models(validate_manifest(manifest))
    hourly_only = " ".join(f"fqn:{name}" for name in hourly_names)
    hourly_select = " ".join([*hourly_names, *stored_ancestors(validate_manifest(manifest), hourly_names)])
    translator = PyramidTranslator(project.catalogue)
    daily = daily_partitions(project.settings)
    hourly = hourly_partitions(project.settings)

    @dbt_assets(
        manifest=manifest,
        exclude=hourly_only,
        name="dbt_daily",
        dagster_dbt_translator=translator,
        partitions_def=daily,
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=RETRY,
        pool=WRITER_POOL,
    )
    def dbt_daily(context: dg.AssetExecutionContext) -> Iterator[Any]:
        window = project.window(window_of(context.partition_key_range, context.run.tags))
        yield from _build(context, project, translator, window)

    @dbt_assets(
        manifest=manifest,
        select=hourly_only,
        name="dbt_hourly",
        dagster_dbt_translator=translator,
        partitions_def=hourly,
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=RETRY,
        pool=WRITER_POOL,
    )
    def dbt_hourly(context: dg.AssetExecutionContext) -> Iterator[Any]:
        window = window_of(context.partition_key_range, context.run.tags)
        yield from _build(context, project, translator, window, select=hourly_select)

    return [dbt_daily, dbt_hourly]


def hourly_models(manifest: Mapping[str, Any]) -> list[str]:
    """The hourly metrics and the cubes they are made of."""
    return [
        node["name"]
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["name"].endswith(HOURLY_SUFFIX)
    ]


def stored_ancestors(manifest: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Models above `names` that are tables: an hour needs them as of now, while views follow by themselves."""
    waiting = [node for node in manifest["nodes"].values() if node["name"] in set(names)]
    seen: dict[str, str] = {}
    while waiting:
        for parent_id in waiting.pop().get("depends_on", {}).get("nodes", []):
            parent = manifest["nodes"].get(parent_id)
            if parent is not None and parent["resource_type"] == "model" and parent_id not in seen:
                seen[parent_id] = parent["name"] if parent["config"]["materialized"] != "view" else ""
                waiting.append(parent)
    return sorted(name for name in seen.values() if name and name not in set(names))


def _build(
    context: dg.AssetExecutionContext,
    project: Project,
    translator: PyramidTranslator,
    window: Window,
    *,
    select: str | None = None,
) -> Iterator[Any]:
    """One dbt run for the window; yields the events of the selected assets.

    A whole run builds `select` (default: the whole project), which is more than the definition's own assets: the
    hourly tables with the daily ones, so that late rows reach them in the same dbt start. What is not this
    definition's own asset is recorded as an observation. A run of chosen assets builds just these.
    """
    require_nightly(project.settings)
    _require_compiled(project)
    context.log.info(f"dbt window: {window.start} to {window.until} (exclusive), {window.days} days")
    manifest = validate_manifest(project.manifest_path)
    selected = context.selected_asset_keys
    chosen: str | Sequence[str] | None = select
    if context.is_subset:
        chosen = [
            f"fqn:{'.'.join(node['fqn'])}"
            for unique_id, node in manifest["nodes"].items()
            if node["resource_type"] in {"model", "seed"} and _key(manifest, translator, unique_id) in selected
        ]
    arguments = dbt_arguments(project.settings, window, chosen)
    try:
        for raw in stream_dbt(project.settings, arguments, dbt_environment(project.settings, window)):
            print(raw["info"]["msg"])  # the run's own log in the UI
            unique_id = raw["data"].get("node_info", {}).get("unique_id")
            message = DbtCoreCliEventMessage(raw_event=raw, event_history_metadata={})
            if not unique_id or not message.is_result_event:
                continue
            for event in message.to_default_asset_events(manifest, translator, context):
                if isinstance(event, dg.Output) and _key(manifest, translator, unique_id) not in selected:
                    context.log_event(
                        dg.AssetObservation(
                            _key(manifest, translator, unique_id),
                            metadata={"from": str(window.start), "until": str(window.until)},
                            description="Built by a run of other assets.",
                        )
                    )
                    continue
                yield event
    except DbtError as error:  # `BuildLocked` goes through: another process has the file open, worth the retries
        raise dg.Failure(str(error), allow_retries=False) from error


def _require_compiled(project: Project) -> None:
    """Raises `dg.Failure` when generated models are not those of the definitions: values would carry a version that no
    definition has, and rules would wait for others.
    """
    stale = stale_files(Catalogue.of(project.catalogue.definitions))
    if stale:
        names = ", ".join(path.name for path in stale[:3]) + (f" and {len(stale) - 3} more" if len(stale) > 3 else "")
        raise dg.Failure(
            f"{names}: not what follows from the definitions, which were changed since. Run `metrics compile`, then start "
            "the run again",
            allow_retries=False,
        )


def _key(manifest: Mapping[str, Any], translator: PyramidTranslator, unique_id: str) -> dg.AssetKey:
    return translator.get_asset_key(translator.get_resource_props(manifest, unique_id))
