"""How many cases are generated: 40, always the same ones; by hand more, new ones, and failures made small.

GENERATED_CASES=5000 .venv/bin/pytest tests/generative
"""

import os

from hypothesis import HealthCheck, Phase, settings

CASES = int(os.environ.get("GENERATED_CASES", "40"))
BY_HAND = "GENERATED_CASES" in os.environ

settings.register_profile(
    "generated",
    max_examples=CASES,
    derandomize=not BY_HAND,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink] if BY_HAND else [Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("generated")
