"""An Airflow DAG: the job every hour, and the parity of online and offline after it.

Retries are safe: every step does only what is new. Exit code 20 says that a run is going on already, and skips.
"""

from __future__ import annotations

import datetime as dt

from airflow import DAG
from airflow.providers.standard.operators.bash import BashOperator

CONFIG = "/srv/fhir-features/fhir_features.toml"
PROGRAM = "/srv/fhir-features/.venv/bin/fhir-features"

with DAG(
    dag_id="fhir_features",
    schedule="15 * * * *",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": dt.timedelta(minutes=5)},
) as dag:
    materialize = BashOperator(
        task_id="materialize", bash_command=f"{PROGRAM} --config {CONFIG} materialize --json", skip_on_exit_code=20
    )
    parity = BashOperator(
        task_id="parity", bash_command=f"{PROGRAM} --config {CONFIG} parity --patients 1000 --json", retries=0
    )
    materialize >> parity
