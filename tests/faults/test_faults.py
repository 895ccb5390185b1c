"""Whatever happens at any write of any stage, nothing that was committed is lost, and the same command ends as if
nothing had happened: killed in the middle of a write, or told that the disk failed (EIO), is full (ENOSPC) or is not
ours (EACCES).

A sample of 30 cases is always tried; `make soak` disturbs each stage at many calls, in each way.

FAULTS=2000 .venv/bin/python -m pytest -s tests/faults
"""

from __future__ import annotations

import errno
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import Before, Stages, before_each, compiled, disturbed, not_synced

FAULTS = int(os.environ.get("FAULTS", "30"))
SECONDS = int(os.environ.get("FAULT_SECONDS", "1000000"))
SEED = int(os.environ.get("FAULT_SEED", "7"))
SOAK = FAULTS > 30
FAILURES = (0, errno.EIO, errno.ENOSPC, errno.EACCES)
# The sample: at how many calls of each stage, each in one way; those that take little are disturbed more often.
SAMPLE = {"pull": 10, "import": 9, "materialize": 4, "build": 4, "normalize": 3}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    shim = compiled(tmp_path_factory.mktemp("shim"))
    if shim is None:
        pytest.skip("needs a C compiler, and Linux")
    stages = Stages(shim)
    yield stages
    print(f"\n{stages.close():,.0f} CPU seconds")


@pytest.fixture(scope="module")
def before(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> list[Before]:
    return before_each(stages, tmp_path_factory.mktemp("before"), every_stage=SOAK)


def share(before: list[Before]) -> int:
    """At how many calls each stage is disturbed in the soak, where it has as many: all together at a fourth of FAULTS."""
    points = min(-(-FAULTS // len(FAILURES)), sum(stage.calls for stage in before))
    return next(each for each in count(1) if sum(min(stage.calls, each) for stage in before) >= points)


def cases(before: list[Before]) -> list[tuple[Before, int, int]]:
    """The stage, the call and the failure of each case, spread over the calls of each stage, in an order of chance."""
    of_stage = {stage: min(stage.calls, share(before)) if SOAK else SAMPLE[stage.stage] for stage in before}
    spread = [
        (stage, 1 + (2 * place + 1) * stage.calls // (2 * of_stage[stage]), failure)
        for stage in before
        for place in range(of_stage[stage])
        for failure in (FAILURES if SOAK else (FAILURES[place % len(FAILURES)],))
        # What Feast's own command says of a disk that fails is not ours.
        if stage.stage != "apply" or not failure
    ]
    random.Random(SEED).shuffle(spread)
    return spread[:FAULTS]


def test_what_is_disturbed_at_any_write_recovers(stages: Stages, before: list[Before], tmp_path: Path):
    assert all(stage.calls > 3 for stage in before)
    ended: Counter[str] = Counter()
    until = time.monotonic() + SECONDS
    points = set()
    for stage, at, failure in cases(before):
        if time.monotonic() > until:
            break
        how = disturbed(stages, tmp_path, stage, at, failure)
        ended[f"{stage.stage}: {how}"] += 1
        points.add((stage.folder, at))
    print(f"\n{ended.total()} disturbed at {len(points)} points, all recovered: {dict(sorted(ended.items()))}")
    assert any(how.endswith("killed") for how in ended)


def test_a_commit_whose_sync_fails_is_whole_or_not_there(stages: Stages, before: list[Before], tmp_path: Path):
    """What the disk refuses to sync it may have all the same: it is not known whether the commit was made."""
    writes_lake = {"normalize", "compact", "rebuild"}
    for stage in (stage for stage in before if stage.stage in writes_lake and stage.committed):
        calls = enumerate(stage.trace, start=1)
        syncs = [number for number, call in calls if call.startswith("fsync") and call.endswith("-wal")]
        assert syncs
        for at in syncs:
            for failure in (errno.EIO, errno.ENOSPC):
                disturbed(stages, tmp_path, stage, at, failure)


def test_the_check_of_syncing_notices_what_is_not_synced(tmp_path: Path):
    (tmp_path / "a").touch()
    trace = tmp_path / "trace"
    trace.write_text(f"open64\t{tmp_path}/a\nwrite\t{tmp_path}/a\nfsync\t{tmp_path}/a\n")
    assert not_synced(trace) == [f"{tmp_path}/a"]
    trace.write_text(trace.read_text() + f"fsync\t{tmp_path}\n")
    assert not_synced(trace) == []
