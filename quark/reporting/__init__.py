"""The reports on a run: metrics, tables, figures, pages and MLflow logs. No torch."""
