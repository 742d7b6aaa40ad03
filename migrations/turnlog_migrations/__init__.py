"""The Alembic migrations of turnlog's database; they are part of every installation."""
