"""`fhir-features parity`: is what is online what the engine answers?"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

import click

from fhir_features.cli import completing
from fhir_features.cli.printing import print_json, print_table
from fhir_features.cli.progress import working
from fhir_features.cli.teaching import examples as typed


@click.command(epilog=typed("fhir-features parity", "fhir-features parity diabetes --patients 100"))
@click.argument("views", nargs=-1, metavar="[VIEW]...", shell_complete=completing.views)
@click.option("--patients", default=1_000, show_default=True, type=click.IntRange(min=1), help="How many to sample.")
@click.option("--seed", default=0, show_default=True, help="Another seed samples other patients.")
@click.option(
    "--examples",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Show so many differences of each feature, with the patients and their values.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.pass_obj
def command(config_path: str, views: Sequence[str], patients: int, seed: int, examples: int, as_json: bool) -> None:
    """Compare what the online store answers with what the engine answers at the instant that was loaded.

    Of each feature is printed how many of the sampled patients' answers are equal, differ (mismatch), or are there
    only offline (missing) or only online (extra). Patients and values are shown only with --examples. The exit code is
    1 when any answer is not equal.

    With --json: a list of {view, build, answered_at by site, patients, features: [{feature, equal, mismatch, missing,
    extra}], examples: [{site, patient_id, feature, kind, asked_at, online, offline}]}.
    """
    from fhir_features.store import FeatureStore

    with working("parity") as work:
        found = FeatureStore(config_path).parity(views, patients=patients, seed=seed, progress=work.progress)
        work.done(sum(each.patients for each in found), "patients compared")
    shown = {
        of.view: [
            each
            for feature in of.features
            for each in [each for each in of.differences if each.feature == feature.feature][:examples]
        ]
        for of in found
    }
    if as_json:
        rows = []
        for of in found:
            row = dataclasses.asdict(of)
            del row["differences"]
            rows.append({**row, "examples": [dataclasses.asdict(each) for each in shown[of.view]]})
        print_json(rows)
    else:
        print_table(
            ("view", "feature", "patients", "equal", "mismatch", "missing", "extra"),
            [
                (of.view, each.feature, of.patients, each.equal, each.mismatch, each.missing, each.extra)
                for of in found
                for each in of.features
            ],
        )
        print_table(
            ("site", "patient", "asked at", "view", "feature", "online", "offline"),
            [
                (one.site, one.patient_id, one.asked_at, of.view, one.feature, str(one.online), str(one.offline))
                for of in found
                for one in shown[of.view]
            ],
        )
    if not all(of.same for of in found):
        sys.exit(1)
