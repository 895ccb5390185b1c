"""How many cases are generated: 200, always the same ones; by hand more, and new ones.

GENERATED_CASES=5000 .venv/bin/pytest tests/generative
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "generated",
    max_examples=int(os.environ.get("GENERATED_CASES", "200")),
    derandomize="GENERATED_CASES" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("generated")
