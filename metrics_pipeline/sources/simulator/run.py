"""One simulation: calendar → catalogue → incidents, then month by month visits → stock → orders → what follows, to files.

Whole months are made even when the last one is cut, and every random stream belongs to a month, so that a folder that
is simulated further keeps its past: the same rows, the same incidents.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from metrics_pipeline.sources.simulator.advertising import (
    Campaign,
    campaign_weights,
    make_campaigns,
    make_spend,
    planned_budget,
)
from metrics_pipeline.sources.simulator.aftersales import make_complaints, make_refunds, make_shipments
from metrics_pipeline.sources.simulator.calendar import Year, make_year
from metrics_pipeline.sources.simulator.catalogue import Catalogue, make_catalogue, make_shelf
from metrics_pipeline.sources.simulator.customers import NEW, CustomerBook
from metrics_pipeline.sources.simulator.demand import (
    ORDERS_PER_SESSION,
    SESSIONS_PER_DAY,
    Visits,
    make_intents,
    make_views,
    make_visits,
)
from metrics_pipeline.sources.simulator.incidents import ERA_DAYS, Incident, labels, plan
from metrics_pipeline.sources.simulator.market import (
    AD_CHANNELS,
    CARRIERS,
    CATEGORY_NAMES,
    CHANNELS,
    CITIES,
    COMPLAINT_TOPICS,
    PAYMENT_METHODS,
    REFUND_REASONS,
    REGIONS,
    SEGMENTS,
    UTC_OFFSET,
    WAREHOUSES,
)
from metrics_pipeline.sources.simulator.orders import Orders, make_orders, make_payments, order_rows
from metrics_pipeline.sources.simulator.rows import (
    DAY,
    NEVER,
    NONE,
    Array,
    Ledger,
    Rows,
    concatenate,
    size,
    stream,
    take,
)
from metrics_pipeline.sources.simulator.stock import StockRoom
from metrics_pipeline.sources.simulator.write import (
    ARRIVED,
    Code,
    Count,
    Day,
    Flag,
    Layout,
    Member,
    Moment,
    Money,
    Text,
    write_rows,
    write_text,
)
from metrics_pipeline.sources.source import SourceError

GENERATOR = 1
"""Raised whenever the same seed gives different rows; files of another generator are made anew."""
MANIFEST = "manifest.json"
LABELS = "labels.jsonl"
CLOCKS = {
    "sessions": "started_at",
    "product_views": "viewed_at",
    "orders": "ordered_at",
    "order_items": "ordered_at",
    "payments": "paid_at",
    "refunds": "refunded_at",
    "shipments": "promised_at",
    "complaints": "complained_at",
    "inventory_snapshots": "snapshot_on",
    "ad_spend": "spent_on",
}
DATE_CLOCKS = frozenset({"inventory_snapshots", "ad_spend"})
DIMENSIONS = ("customers", "products", "campaigns")
_MARGIN_DAYS = 100
_LATE_DAYS = 2
_LATE_HOUR, _AGAIN_HOUR = 10, 9
_DOUBLE_ID = 900_000_000_000
_KNOWN_VISITORS = 0.42
"""Share of browsing sessions whose account is known."""
_VISITORS_PER_DAILY_SESSION = 1.6
_STOCKED_SHARE = 0.985
_PACKS, _PACK_COSTS = np.array([12, 6, 2, 1]), np.array([2_000, 8_000, 30_000])
"""Pieces of a supplier's pack, by unit cost in cents: small things come in dozens."""
"""Rough share of wanted orders that find stock; only sizes the customer history."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Manifest:
    """What a folder holds at least; written last, so its presence means that all files up to `until` are there."""

    generator: int
    seed: int
    scale: float
    days: int
    """Days asked for at first; the folder may have been simulated further since."""
    start: date
    """First shop day."""
    anchor: date
    """Last day of the first simulation: incidents are planned relative to it."""
    until: date
    """Last complete shop day."""
    rows: dict[str, int]

    @property
    def fingerprint(self) -> str:
        """Names the content: folders with the same fingerprint have the same rows for the same days."""
        return f"g{self.generator}-s{self.seed}-x{self.scale:g}-{self.start:%Y%m%d}-{self.anchor:%Y%m%d}"


@dataclass(frozen=True)
class SimulationReport:
    """What one call of `simulate` left in the folder."""

    directory: Path
    rows: dict[str, int]
    """Rows per table in the files, of the whole period."""
    start: date
    until: date
    seconds: float
    is_fresh: bool
    """False when everything was there already and nothing was written."""


def read_manifest(directory: Path) -> Manifest | None:
    """What the folder holds, or None when no simulation was completed there.

    Raises `SourceError` when the manifest cannot be read.
    """
    path = directory / MANIFEST
    if not path.exists():
        return None
    try:
        raw = json.loads(path.read_text("utf-8"))
        return Manifest(**{**raw, **{name: date.fromisoformat(raw[name]) for name in ("start", "anchor", "until")}})
    except (ValueError, TypeError, KeyError) as error:
        raise SourceError(
            f"{path}: not a manifest of the simulator ({error}); delete the folder and simulate again"
        ) from None


def simulate(
    directory: Path, *, seed: int, scale: float, days: int, until: date, progress: Progress | None = None
) -> SimulationReport:
    """Fill `directory` with a shop of `days` days that end with the shop day `until` (inclusive).

    `scale` 1 is about 1,250 orders a day. The same arguments give the same rows. A folder that already has them is left
    alone; one of the same seed, scale and days that ends earlier is continued, its past unchanged; anything else in it
    is replaced. `progress` is called with a stage and the share done, 0–1.

    Raises `SourceError` for arguments that cannot be simulated.
    """
    began = time.perf_counter()
    _check(seed, scale, days)
    known = read_manifest(directory)
    if known is not None and (known.generator, known.seed, known.scale, known.days) != (GENERATOR, seed, scale, days):
        known = None
    if known is not None and known.until == until:
        return SimulationReport(directory, known.rows, known.start, until, time.perf_counter() - began, False)
    if known is not None and known.until > until:
        known = None
    start = known.start if known else until - timedelta(days=days - 1)
    anchor = known.anchor if known else until
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if known is None:  # of a shop that is continued the old manifest stays true until the new one is there
            (directory / MANIFEST).unlink(missing_ok=True)
    except OSError as error:
        raise SourceError(
            f"{directory}: cannot write the simulated files here ({error.strerror}); choose another folder"
        ) from None
    shop = _Shop(directory, seed=seed, scale=scale, start=start, anchor=anchor, until=until)
    rows = shop.run(progress or (lambda stage, share: None))
    manifest = Manifest(GENERATOR, seed, scale, days, start, anchor, until, rows)
    write_text(directory / MANIFEST, json.dumps(asdict(manifest), default=str, ensure_ascii=False, indent=2) + "\n")
    return SimulationReport(directory, rows, start, until, time.perf_counter() - began, True)


def _check(seed: int, scale: float, days: int) -> None:
    if seed < 0:
        raise SourceError(f"seed: {seed} is negative; choose a whole number from 0 up")
    if not math.isfinite(scale) or not 0 < scale <= 64:
        raise SourceError(f"scale: {scale} is not between 0 and 64; 1 is about 1,250 orders a day")
    if not 1 <= days <= 3000:
        raise SourceError(f"days: {days} is not between 1 and 3000")


def months(start: date, until: date) -> list[tuple[int, date, date]]:
    """(month number, first day, last day) of each calendar month that meets start…until; the first begins with `start`, the last is whole."""
    found = []
    day = start
    while day <= until:
        following = date(day.year + day.month // 12, day.month % 12 + 1, 1)
        found.append((day.year * 12 + day.month, day, following - timedelta(days=1)))
        day = following
    return found


class _Shop:
    """The state that goes from month to month."""

    def __init__(self, directory: Path, *, seed: int, scale: float, start: date, anchor: date, until: date) -> None:
        self.directory = directory
        self.seed = seed
        self.scale = scale
        self.start = start
        self.until = until
        self.anchor_day = (anchor - start).days
        self.until_day = (until - start).days
        self.first_second = (start - date(1970, 1, 1)).days * DAY - UTC_OFFSET
        self.months = months(start, until)
        month_end = (self.months[-1][2] - start).days
        eras = max(-(-(month_end - self.anchor_day) // ERA_DAYS), 0)
        self.year: Year = make_year(start, self.anchor_day + 1 + eras * ERA_DAYS + _MARGIN_DAYS)
        self.catalogue: Catalogue = make_catalogue(seed, scale)
        self.incidents: tuple[Incident, ...] = plan(seed, self.year, self.catalogue, self.anchor_day, eras)
        self.campaigns: tuple[Campaign, ...] = make_campaigns(self.year)
        self.stock = StockRoom(seed, scale, self.year, self.catalogue, self.incidents)
        per_day = SESSIONS_PER_DAY * scale * ORDERS_PER_SESSION * _STOCKED_SHARE
        self.book = CustomerBook(seed, self.first_second, per_day)
        self.ledger = Ledger(CLOCKS)
        self.sessions_so_far = 0
        self.orders_so_far = 0
        self.layouts = self._layouts()
        self.written: dict[str, int] = dict.fromkeys((*CLOCKS, *DIMENSIONS), 0)

    def run(self, progress: Progress) -> dict[str, int]:
        """Make and write everything; rows per table."""
        for position, (number, first, last) in enumerate(self.months):
            progress(f"{first:%Y-%m}", position / len(self.months))
            self._month(number, (first - self.start).days, (last - self.start).days)
            self._write_month(first, (last - self.start).days)
        progress("dimensions", 0.99)
        self._write_dimensions()
        sold_out = [(self.catalogue.code(s.sku), s.first, s.last) for s in self.stock.sold_out(self.until_day)]
        lines = labels(self.incidents, self.year, self.until_day, sold_out)
        write_text(self.directory / LABELS, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        self._sweep()
        progress("done", 1.0)
        return self.written

    def _month(self, number: int, first: int, last: int) -> None:
        seed, year, catalogue = self.seed, self.year, self.catalogue
        weights = campaign_weights(self.campaigns, first, last)
        shelf = make_shelf(catalogue, year.season[:, (first + last) // 2], first, seed, number)
        visits = make_visits(
            stream(seed, "visits", number),
            year,
            first=first,
            last=last,
            first_second=self.first_second,
            scale=self.scale,
            incidents=self.incidents,
            campaign_weights=weights,
        )
        intents = make_intents(stream(seed, "intents", number), visits, shelf, self.first_second)
        filled = self.stock.fill(first, last, number, intents, shelf)
        self.ledger.add("inventory_snapshots", filled.snapshots)
        session = self.sessions_so_far + np.arange(len(visits.at))
        views = make_views(stream(seed, "views", number), visits, intents, shelf)
        self.ledger.add(
            "product_views",
            {
                "view_id": session[views.visit] * 10 + views.number,
                "viewed_at": views.at,
                "session_id": session[views.visit],
                "product_id": views.sku,
                "region": visits.region[views.visit],
                "channel": visits.channel[views.visit],
            },
        )
        del views
        orders = make_orders(
            stream(seed, "orders", number),
            self.orders_so_far + 1,
            visits=visits,
            intents=intents,
            is_sold=filled.is_sold,
            catalogue=catalogue,
            year=year,
            book=self.book,
        )
        self.orders_so_far += len(orders.at)
        recorded = np.where(visits.is_tracked[orders.visit], session[orders.visit], NONE)
        head, lines = order_rows(orders, recorded)
        self.ledger.add("orders", head)
        self.ledger.add("order_items", lines)
        self._sessions(stream(seed, "sessions", number), visits, orders, session)
        self.sessions_so_far += len(visits.at)
        self._spend(number, first, last, visits, orders)
        self._after(number, orders)

    def _after(self, number: int, orders: Orders) -> None:
        seed, incidents = self.seed, self.incidents
        payments = make_payments(stream(seed, "payments", number), orders, self.first_second, incidents)
        self.ledger.add("payments", payments.rows)
        refunds, returned = make_refunds(
            stream(seed, "refunds", number),
            orders,
            paid_at=payments.paid_at,
            catalogue=self.catalogue,
            first_second=self.first_second,
            incidents=incidents,
        )
        self.ledger.add("refunds", refunds)
        parcels, known_late = make_shipments(
            stream(seed, "shipments", number),
            orders,
            paid_at=payments.paid_at,
            returned_at=returned,
            catalogue=self.catalogue,
            year=self.year,
            first_second=self.first_second,
            incidents=incidents,
        )
        self.ledger.add("shipments", parcels)
        self.ledger.add(
            "complaints",
            make_complaints(stream(seed, "complaints", number), orders, known_late, self.first_second, incidents),
        )

    def _sessions(self, rng: np.random.Generator, visits: Visits, orders: Orders, session: Array) -> None:
        n = len(visits.at)
        customer, segment = np.full(n, NONE, np.int32), np.full(n, NEW, np.int8)
        known = np.flatnonzero(
            (rng.random(n, dtype=np.float32) < _KNOWN_VISITORS) & ~visits.is_bot & ~visits.is_converting
        )
        customer[known], segment[known] = self.book.recognise(rng, visits.at[known], visits.region[known])
        customer[orders.visit], segment[orders.visit] = orders.customer, orders.segment
        strangers = max(round(SESSIONS_PER_DAY * self.scale * _VISITORS_PER_DAILY_SESSION), 100)
        visitor = np.where(customer >= 0, customer.astype(np.int64), 500_000_000 + rng.integers(0, strangers, n))
        rows: Rows = {
            "session_id": session,
            "started_at": visits.at,
            "visitor_id": visitor,
            "customer_id": customer,
            "region": visits.region,
            "channel": visits.channel,
            "segment": segment,
            "campaign_id": visits.campaign,
            "page_views": visits.pages,
            "is_bounced": visits.is_bounced,
        }
        again = np.flatnonzero(visits.is_doubled & visits.is_tracked)
        if len(again):
            twice = take(rows, again)
            twice["session_id"] = twice["session_id"] + _DOUBLE_ID
            self.ledger.add("sessions", twice)
        self.ledger.add("sessions", rows if visits.is_tracked.all() else take(rows, visits.is_tracked))

    def _spend(self, number: int, first: int, last: int, visits: Visits, orders: Orders) -> None:
        shape = (last - first + 1, len(self.campaigns))
        came = visits.campaign != NONE
        place = (visits.day[came] - first) * shape[1] + visits.campaign[came]
        sessions = np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape)
        bought = orders.campaign != NONE
        place = (orders.day[bought] - first) * shape[1] + orders.campaign[bought]
        sales = np.bincount(place, orders.payable[bought], shape[0] * shape[1]).reshape(shape)
        rng = stream(self.seed, "advertising", number)
        rows = make_spend(
            rng, self.campaigns, first=first, last=last, sessions=sessions, sales=sales, incidents=self.incidents
        )
        self.ledger.add("ad_spend", rows)

    def _write_month(self, first: date, last_day: int) -> None:
        """Release what belongs to the month and has happened by the end of `until`."""
        cut = min(last_day, self.until_day) + 1
        days = cut - (first - self.start).days
        for table, clock in CLOCKS.items():
            before = cut if table in DATE_CLOCKS else self.first_second + cut * DAY
            rows = self.ledger.release(table, before)
            path = self.directory / table / f"{first:%Y-%m}.parquet"
            if rows is None:
                path.unlink(missing_ok=True)
                continue
            rows = self._delivered(table, rows)
            self.written[table] += write_rows(path, self.layouts[table], rows, clock, size(rows) / max(days, 1))

    def _delivered(self, table: str, rows: Rows) -> Rows:
        """The rows with `_arrived_at`, some of them late or a second time."""
        n = size(rows)
        rows = {**rows, ARRIVED: np.full(n, NEVER)}
        if table in DATE_CLOCKS:
            return rows
        day = (rows[CLOCKS[table]] - self.first_second) // DAY
        for incident in self.incidents:
            if incident.table != table or incident.kind not in ("late_load", "duplicate_load"):
                continue
            hit = np.flatnonzero((day >= incident.first) & (day <= incident.last))
            if not len(hit):
                continue
            if incident.kind == "late_load":
                chosen = stream(self.seed, incident.id).random(len(hit)) < incident.magnitude
                rows[ARRIVED][hit[chosen]] = self.first_second + (incident.last + _LATE_DAYS) * DAY + _LATE_HOUR * 3600
                continue
            again = take(rows, hit)
            again[ARRIVED] = np.full(len(hit), self.first_second + (incident.last + 1) * DAY + _AGAIN_HOUR * 3600)
            at = int(hit[-1]) + 1
            rows = concatenate([take(rows, np.arange(at)), again, take(rows, np.arange(at, size(rows)))])
            day = (rows[CLOCKS[table]] - self.first_second) // DAY
        return rows

    def _write_dimensions(self) -> None:
        end = self.first_second + (self.until_day + 1) * DAY
        customers = self.book.rows(end)
        customers = take(customers, customers["registered_at"] < end)
        catalogue = self.catalogue
        listed = np.flatnonzero(catalogue.listed_day <= self.until_day)
        names = catalogue.names()
        products: Rows = {
            "product_id": listed,
            "name": np.array([names[sku] for sku in listed.tolist()], dtype=object),
            "category": catalogue.category[listed],
            "supplier": catalogue.supplier[listed],
            "unit_cost": catalogue.unit_cost[listed],
            "list_price": catalogue.list_price[listed],
            "safety_stock": self.stock.safety_stock[listed],
            "lead_time_days": catalogue.lead_days[listed],
            "pack_size": _PACKS[np.searchsorted(_PACK_COSTS, catalogue.unit_cost[listed], side="right")],
            "listed_on": catalogue.listed_day[listed],
            "is_active": catalogue.is_active[listed],
        }
        traffic = self.year.traffic * SESSIONS_PER_DAY * self.scale
        numbers = np.array(
            [n for n, c in enumerate(self.campaigns) if c.first <= self.until_day and c.last >= 0], np.int64
        )
        shown = [self.campaigns[n] for n in numbers.tolist()]
        campaigns: Rows = {
            "campaign_id": numbers,
            "name": np.array([c.name for c in shown], dtype=object),
            "ad_channel": np.array([c.ad_channel for c in shown], np.int64),
            "starts_on": np.array([c.first for c in shown], np.int64),
            "ends_on": np.array([c.last for c in shown], np.int64),
            "budget_amount": np.array([planned_budget(c, traffic) for c in shown], np.int64),
        }
        for table, rows in (("customers", customers), ("products", products), ("campaigns", campaigns)):
            path = self.directory / table / "all.parquet"
            self.written[table] = write_rows(path, self.layouts[table], rows, None, size(rows))

    def _sweep(self) -> None:
        """Remove month files of an earlier simulation of another period, and what a killed run left half written."""
        kept = {f"{first:%Y-%m}.parquet" for _, first, _ in self.months}
        for table in CLOCKS:
            for path in (self.directory / table).glob("*.parquet"):
                if path.name not in kept:
                    path.unlink()
        for path in self.directory.rglob("*.part"):
            path.unlink()

    def _layouts(self) -> dict[str, Layout]:
        order, session, sku, customer = Code("O"), Code("S"), Code("SKU", 8), Code("C")
        region, channel, segment = Member(REGIONS), Member(CHANNELS), Member(SEGMENTS)
        campaign, ad_channel = Member(tuple(c.id for c in self.campaigns)), Member(AD_CHANNELS)
        method, warehouse, day = Member(PAYMENT_METHODS), Member(WAREHOUSES), Day((self.start - date(1970, 1, 1)).days)
        suppliers = tuple(f"{name}供应商{n:02d}" for name in CATEGORY_NAMES for n in range(1, 25))
        arrived: Layout = {ARRIVED: Moment()}
        return {
            "customers": {
                "customer_id": customer, "registered_at": Moment(), "region": region,
                "city": Member(tuple(name for names in CITIES for name in names)), "segment": segment,
                # Addresses of a reserved domain and numbers that no carrier can assign.
                "email": Code("buyer", 12, "@example.invalid"), "phone": Code("100", 8),
            },
            "products": {
                "product_id": sku, "name": Text(), "category": Member(CATEGORY_NAMES), "supplier": Member(suppliers),
                "unit_cost": Money(), "list_price": Money(), "safety_stock": Count(), "lead_time_days": Count(),
                "pack_size": Count(), "listed_on": day, "is_active": Flag(),
            },
            "campaigns": {
                "campaign_id": campaign, "name": Text(), "ad_channel": ad_channel, "starts_on": day, "ends_on": day,
                "budget_amount": Money(),
            },
            "sessions": {
                "session_id": session, "started_at": Moment(), "visitor_id": Code("V"), "customer_id": customer,
                "region": region, "channel": channel, "segment": segment, "campaign_id": campaign,
                "page_views": Count(), "is_bounced": Flag(), **arrived,
            },
            "product_views": {
                "view_id": Code("W"), "viewed_at": Moment(), "session_id": session, "product_id": sku,
                "region": region, "channel": channel, **arrived,
            },
            "orders": {
                "order_id": order, "ordered_at": Moment(), "customer_id": customer, "session_id": session,
                "region": region, "channel": channel, "segment": segment, "campaign_id": campaign,
                "payment_method": method, "items_amount": Money(), "discount_amount": Money(), "freight_amount": Money(),
                **arrived,
            },
            "order_items": {
                "order_id": order, "line_no": Count(), "ordered_at": Moment(), "product_id": sku, "quantity": Count(),
                "unit_price": Money(), **arrived,
            },
            "payments": {
                "payment_id": Code("P"), "order_id": order, "paid_at": Moment(), "ordered_at": Moment(),
                "payment_method": method, "is_successful": Flag(), "amount": Money(), **arrived,
            },
            "refunds": {
                "refund_id": Code("R"), "refunded_at": Moment(), "order_id": order, "ordered_at": Moment(),
                "product_id": sku, "amount": Money(), "reason": Member(REFUND_REASONS), **arrived,
            },
            "shipments": {
                "shipment_id": Code("T"), "order_id": order, "promised_at": Moment(), "shipped_at": Moment(),
                "delivered_at": Moment(), "warehouse": warehouse, "region": region, "carrier": Member(CARRIERS), **arrived,
            },
            "complaints": {
                "complaint_id": Code("K"), "complained_at": Moment(), "order_id": order, "product_id": sku,
                "region": region, "channel": channel, "topic": Member(COMPLAINT_TOPICS), **arrived,
            },
            "inventory_snapshots": {
                "snapshot_on": day, "product_id": sku, "warehouse": warehouse, "on_hand": Count(), "on_order": Count(),
                **arrived,
            },
            "ad_spend": {
                "spent_on": day, "ad_channel": ad_channel, "campaign_id": campaign, "impressions": Count(),
                "clicks": Count(), "spend_amount": Money(), "attributed_amount": Money(), **arrived,
            },
        }  # fmt: skip
