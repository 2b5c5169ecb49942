"""People over HTTP, kept in PostgreSQL."""
