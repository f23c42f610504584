"""What is known of products besides their values, published beside them for whoever may not open the build file.

`attributes/products.parquet`: sku, category, supplier, lead_days, safety_stock, pack_size; the current row of each SKU,
replaced as a whole by `os.replace`. What a source does not state is NULL.
"""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

PRODUCTS = Path("attributes") / "products.parquet"
_SQL = """
SELECT
    product_id AS sku, category, supplier, CAST(lead_time_days AS DOUBLE) AS lead_days,
    CAST(safety_stock AS DOUBLE) AS safety_stock, CAST(pack_size AS INTEGER) AS pack_size
FROM raw.products
ORDER BY sku"""


def publish_products(con: duckdb.DuckDBPyConnection, published_dir: Path) -> int:
    """Write the products of the build file; returns how many there are. `con`: the build file, open."""
    table = con.sql(_SQL).to_arrow_table()
    target = published_dir / PRODUCTS
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    pq.write_table(table, part, compression="zstd")
    part.replace(target)
    return int(table.num_rows)


def read_products(published_dir: Path) -> pa.Table | None:
    """The products as they were last published; None = they never were."""
    path = published_dir / PRODUCTS
    return pq.read_table(path) if path.exists() else None
