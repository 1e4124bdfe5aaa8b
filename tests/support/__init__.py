"""What tests share: a PostgreSQL, real clients, charts."""
