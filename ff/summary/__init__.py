"""Over all runs: tables, figures, report."""
