"""A system → raw tables. One module per source behind one interface (`source.Source`); no source imports Dagster."""
