"""A small HTTP service that answers with numbers."""
