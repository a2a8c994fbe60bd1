"""The operators' view of the database: API, console page, figures for Prometheus."""
