"""Where tables live: the private build file, loading, publishing, reading. The only package that opens DuckDB."""
