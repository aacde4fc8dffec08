"""The page: `python -m app`."""
