"""What the tests share: databases on every driver, and a PostgreSQL server for the length of a run."""
