"""Programs to run with spark-submit, or directly: each a page, over ``options`` and ``training``."""
