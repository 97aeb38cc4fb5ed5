"""What statekit costs, side by side with bare SQLAlchemy; ``make bench``. Nothing here is a test, and nothing fails."""
