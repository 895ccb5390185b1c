"""Many processes, one lake: no commit is lost, and nobody sees half of one.

COMMITS=50 .venv/bin/python -m pytest -s tests/lake/test_concurrency.py
"""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from fhir_features.errors import LakeError, LakeLocked
from fhir_features.lake import commit, reading, writing

PROCESSES = 8
COMMITS = int(os.environ.get("COMMITS", "3"))
ROWS = 3


def write(lake: Path, number: int) -> None:
    """Commit again and again, each time in two tables; wait for the lock as a user would."""
    left = COMMITS
    while left:
        try:
            with writing(lake, buckets=4) as con, commit(con, f"{number}") as store_seq:
                con.execute("INSERT INTO lake.commits (store_seq, source) VALUES (?, ?)", [store_seq, str(number)])
                con.execute(f"INSERT INTO lake.units SELECT i, '', '', '', ? FROM range({ROWS}) t(i)", [store_seq])
            left -= 1
        except LakeLocked:
            time.sleep(0.01 + number / 1000)


def read(lake: Path, done: Path) -> None:
    """Read until all is written: each commit whole, and none ever gone again."""
    seen = 0
    while not done.exists():
        try:
            with reading(lake) as con:
                for _ in range(3):
                    ((commits, units, newest),) = con.execute("""
SELECT count(*), (SELECT count(*) FROM lake.units), coalesce(max(store_seq), 0)
FROM lake.commits""").fetchall()
                    assert units == commits * ROWS, (units, commits)
                    assert commits == newest >= seen, (commits, newest, seen)
                    seen = newest
        except LakeError as error:
            assert str(error).startswith("there is no lake"), error
        time.sleep(0.02)


def test_eight_writers_lose_no_commit_and_readers_see_no_half(tmp_path: Path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fhir_features.lake", "test_concurrency"])
    lake, done = tmp_path / "lake", tmp_path / "done"

    def start(target: object, *arguments: object) -> BaseProcess:
        process = context.Process(target=target, args=arguments)
        process.start()
        return process

    readers = [start(read, lake, done) for _ in range(2)]
    writers = [start(write, lake, number) for number in range(PROCESSES)]
    for process in writers:
        process.join()
    done.touch()
    for process in readers:
        process.join()
    assert [process.exitcode for process in (*writers, *readers)] == [0] * (PROCESSES + 2)
    with reading(lake) as con:
        rows = con.execute("SELECT store_seq, source FROM lake.commits ORDER BY store_seq").fetchall()
    assert [store_seq for store_seq, _ in rows] == list(range(1, PROCESSES * COMMITS + 1))
    assert sorted(source for _, source in rows) == sorted(str(n) for n in range(PROCESSES) for _ in range(COMMITS))
    print(f"\n{len(rows)} of {PROCESSES * COMMITS} commits are there")
