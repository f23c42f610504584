"""Lineage of a metric as data: source column → staging → fact → cube → metric → … → strategic, and back up to its users.

From the definitions (measures, cubes, inputs) and the columns of the models (`columns`). Pure but for reading models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.columns import Columns
from metrics_pipeline.library.definitions import Measure, MetricDefinition, SemanticModel

Kind = Literal["source_column", "staging", "fact", "cube", "base", "operational", "strategic"]
KINDS: tuple[Kind, ...] = ("source_column", "staging", "fact", "cube", "base", "operational", "strategic")


class Node(NamedTuple):
    """Something that data go through. `id` is a column (`raw.orders.region`), a model, or a metric."""

    id: str
    kind: Kind
    name_en: str
    name_zh: str


class Edge(NamedTuple):
    """Data go from one node to the next."""

    source: str
    target: str


@dataclass(frozen=True)
class Lineage:
    """What a metric comes from and what is made of it; nodes in the order of the data."""

    metric: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values: `metric`, `nodes`, `edges` (source, target)."""
        return {
            "metric": self.metric,
            "nodes": [node._asdict() for node in self.nodes],
            "edges": [edge._asdict() for edge in self.edges],
        }

    def as_dot(self) -> str:
        """For Graphviz."""
        lines = [
            f'  "{node.id}" [label="{_label(node)}", shape={_SHAPES.get(node.kind, "box")}];' for node in self.nodes
        ]
        lines += [f'  "{edge.source}" -> "{edge.target}";' for edge in self.edges]
        return "\n".join([f'digraph "{self.metric}" {{', "  rankdir=LR;", *lines, "}"]) + "\n"

    def as_mermaid(self) -> str:
        """For Markdown."""
        number = {node.id: f"n{place}" for place, node in enumerate(self.nodes)}
        lines = [f'  {number[node.id]}["{_label(node)}"]' for node in self.nodes]
        lines += [f"  {number[edge.source]} --> {number[edge.target]}" for edge in self.edges]
        lines.append(f"  style {number[self.metric]} stroke-width:3px")
        return "\n".join(["flowchart LR", *lines]) + "\n"


_SHAPES = {"source_column": "cylinder", "staging": "note", "fact": "folder", "cube": "box3d"}


def lineage_of(catalogue: Catalogue, metric: str, columns: Columns | None = None) -> Lineage:
    """The lineage of one metric: all it is made of, down to the columns of the sources, and all that is made of it.

    `columns`: the project's, to be shared by many calls.
    """
    columns = columns or Columns(catalogue.definitions.project_dir)
    related = {metric, *catalogue.upstream(metric), *catalogue.users(metric)}
    below = {metric, *catalogue.upstream(metric)}
    edges: dict[Edge, None] = {}
    nodes: dict[str, Node] = {}
    for name in catalogue.metrics:
        if name not in related:
            continue
        known = catalogue.metrics[name]
        nodes[name] = Node(name, _layer(known.layer), known.name_en, known.name_zh)
        for source in known.inputs:
            if source in related:
                edges[Edge(source, name)] = None
    definitions = {one.id: one for one in catalogue.definitions.metrics}
    for name in below:
        for node, target in _behind(catalogue, definitions[name], columns):
            nodes.setdefault(node.id, node)
            edges[Edge(node.id, target)] = None
    order = {kind: place for place, kind in enumerate(KINDS)}
    ordered = sorted(nodes.values(), key=lambda node: (order[node.kind], node.id))
    return Lineage(metric, tuple(ordered), tuple(sorted(edges)))


def _behind(catalogue: Catalogue, definition: MetricDefinition, columns: Columns) -> Iterator[tuple[Node, str]]:
    """What is behind a leaf, each with what comes next: cube, facts, staging models, source columns."""
    measures = list(_measures(catalogue, definition))
    if not measures:
        return
    first, measure = measures[0]
    cube = f"cube_{definition.id}" if definition.conversion else _cube(first, measure)
    yield Node(cube, "cube", first.description, first.description), definition.id
    for model, one in measures:
        yield Node(model.fact, "fact", model.description, model.description), cube
        for origin in columns.origins(model.fact, f"coalesce({one.expr}, {model.local_clock})"):
            through = [*origin.through, model.fact]
            column = f"raw.{origin.table}.{origin.column}"
            yield Node(column, "source_column", column, column), through[0]
            for name, target in pairwise(through):
                kind: Kind = "staging" if name.startswith("stg_") else "fact"
                yield Node(name, kind, name, name), target


def _measures(catalogue: Catalogue, definition: MetricDefinition) -> Iterable[tuple[SemanticModel, Measure]]:
    conversion = definition.conversion
    if conversion is not None:
        names: tuple[str | None, ...] = (conversion.base_measure, conversion.conversion_measure)
    else:
        names = (definition.measure,) if definition.kind == "simple" else ()
    for name in names:
        for model in catalogue.definitions.semantic_models:
            for measure in model.measures:
                if measure.name == name:
                    yield model, measure


def _cube(model: SemanticModel, measure: Measure) -> str:
    return f"cube_{model.name}{'_distinct' if measure.agg == 'count_distinct' else ''}"


def _layer(layer: str) -> Kind:
    return next(kind for kind in KINDS if kind == layer)


def _label(node: Node) -> str:
    name = node.id if node.name_zh == node.id or node.kind in {"fact", "cube"} else f"{node.name_zh} {node.id}"
    return name.replace('"', "'")
