"""Each operator, and the rules of TIME sections A, C and D that it keeps, as tables that a clinician can check by eye.

Each `Spec` says which rows are there, how features are written, and what they answer at T (with K = T, unless a column
`known as of` says otherwise). Run this file to write docs/operators.md; `test_operators.py` runs the tables against the
engine and against the reference and fails when the page is stale.

All times are of March 2024 in UTC, written `day hour:minute`; `-` is nothing. Rows are known when they are true, unless a
column `known` says otherwise, and until the instant in a column `until`. The patient is known, a woman born on 17 May
1970, unless the table says otherwise.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from evidence import _markdown

from fhir_features.features.operators import EXPRESSIONS, OPERATORS, PATIENT_OPERATORS

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


@dataclass(frozen=True)
class Spec:
    """What there is of one kind, how features over it are written (by the heading of their column), what they answer."""

    title: str
    text: str
    kind: str
    rows: str
    features: dict[str, str]
    answers: str


SPECS = (
    Spec(
        "Newest, oldest, extremes, sums",
        "T is included. A patient who is known and has no result counts 0 and has no value.",
        "observation",
        """
        drawn    | value | unit
        5 08:00  | 7.0   | %
        6 08:00  | 9.0   | %
        7 08:00  | 8.0   | %
        """,
        {
            "last": "hba1c.last()",
            "first": "hba1c.first()",
            "min": "hba1c.min()",
            "max": "hba1c.max()",
            "sum": "hba1c.sum()",
            "mean": "hba1c.mean()",
            "median": "hba1c.median()",
            "count": "hba1c.count()",
            "exists": "hba1c.exists()",
        },
        """
        asked at | last | first | min | max | sum | mean | median | count | exists
        5 07:59  | -    | -     | -   | -   | -   | -    | -      | 0     | false
        5 08:00  | 7    | 7     | 7   | 7   | 7   | 7    | 7      | 1     | true
        6 08:00  | 9    | 7     | 7   | 9   | 16  | 8    | 8      | 2     | true
        9 00:00  | 8    | 7     | 7   | 9   | 24  | 8    | 8      | 3     | true
        """,
    ),
    Spec(
        "Spread and course",
        "A deviation and a change need two values, a slope two instants. The slope is per day.",
        "observation",
        """
        drawn    | value | unit
        5 08:00  | 7.0   | %
        6 08:00  | 9.0   | %
        7 08:00  | 8.0   | %
        """,
        {
            "std": "hba1c.std()",
            "slope": "hba1c.slope()",
            "delta": "hba1c.delta()",
            "change": "hba1c.change()",
            "time since": "hba1c.time_since_last()",
        },
        """
        asked at | std          | slope | delta | change | time since
        5 08:00  | -            | -     | 0     | -      | 0
        6 08:00  | 1.4142135624 | 2     | 2     | 2      | 0
        7 20:00  | 1            | 0.5   | 1     | -1     | 0.5
        """,
    ),
    Spec(
        "A window is half-open",
        'Rule 2. `within="2d"` keeps what lies after T - 2d, up to and at T; `between("2d", "1d")` what lies after '
        "T - 2d, up to and at T - 1d: neighbours share no row. `None` is the beginning of history.",
        "observation",
        """
        drawn    | value | unit
        5 08:00  | 7.0   | %
        """,
        {
            "within 1d": 'hba1c.count(within="1d")',
            "within 2d": 'hba1c.count(within="2d")',
            "between 2d and 1d": 'hba1c.count(within=between("2d", "1d"))',
            "before 1d ago": 'hba1c.count(within=between(None, "1d"))',
        },
        """
        asked at | within 1d | within 2d | between 2d and 1d | before 1d ago
        5 08:00  | 1         | 1         | 0                 | 0
        6 07:59  | 1         | 1         | 0                 | 0
        6 08:00  | 0         | 1         | 1                 | 1
        7 07:59  | 0         | 1         | 1                 | 1
        7 08:00  | 0         | 0         | 0                 | 1
        """,
    ),
    Spec(
        "Late, corrected, withdrawn",
        "Rules 2 and 3. Drawn at 08:00, reported at 14:00, corrected on the 7th, withdrawn on the 9th.",
        "observation",
        """
        drawn   | known   | until   | value | unit | status
        5 08:00 | 5 14:00 | 7 10:00 | 7.5   | %    | final
        5 08:00 | 7 10:00 | 9 10:00 | 6.1   | %    | corrected
        """,
        {"last": "hba1c.last()", "count": "hba1c.count()"},
        """
        asked at | known as of | last | count
        5 13:59  | -           | -    | 0
        5 14:00  | -           | 7.5  | 1
        7 09:59  | -           | 7.5  | 1
        7 10:00  | -           | 6.1  | 1
        8 00:00  | 6 00:00     | 7.5  | 1
        9 10:00  | -           | -    | 0
        """,
    ),
    Spec(
        "Ties",
        "Rule 5. Of two results drawn at the same instant the one that was known later is the newer.",
        "observation",
        """
        id | drawn   | known   | value | unit
        b  | 5 08:00 | 5 09:00 | 7.0   | %
        a  | 5 08:00 | 5 10:00 | 8.0   | %
        c  | 5 08:00 | 5 10:00 | 9.0   | %
        """,
        {"last": "hba1c.last()", "first": "hba1c.first()"},
        """
        asked at | last | first
        5 09:00  | 7    | 7
        5 10:00  | 9    | 7
        """,
    ),
    Spec(
        "Which results count",
        "Section C: preliminary, final, amended, corrected and appended ones, unless `where(status=...)` says otherwise. "
        "What cannot be brought to the unit is left out, and counted in the summary.",
        "observation",
        """
        drawn   | value | unit | status      | absent
        5 08:00 | 5.0   | %    | preliminary | -
        5 09:00 | 6.0   | %    | registered  | -
        5 10:00 | 7.0   | %    | cancelled   | -
        5 11:00 | 8.0   | kg   | final       | -
        5 12:00 | -     | %    | final       | unknown
        """,
        {
            "count": "hba1c.count()",
            "of any unit": 'observation("loinc:4548-4").count()',
            "registered": 'hba1c.where(status="registered").last()',
        },
        """
        asked at | count | of any unit | registered
        6 00:00  | 1     | 2           | 6
        """,
    ),
    Spec(
        "Units",
        "Values are converted to the unit of the feature, and never averaged as they are. What cannot be converted (a "
        "number without a unit is one of the unit 1), or is infinite or above 1e17, is left out and counted.",
        "observation",
        """
        drawn   | value | unit
        5 08:00 | 7.0   | %
        5 09:00 | 0.09  | 1
        5 10:00 | 80    | kg
        5 11:00 | 8.0   | -
        5 12:00 | inf   | %
        5 13:00 | 1e20  | %
        """,
        {
            "mean": "hba1c.mean()",
            "last": "hba1c.last()",
            "count": "hba1c.count()",
            "as a fraction": 'observation("loinc:4548-4", unit="1").last()',
            "of any unit": 'observation("loinc:4548-4").count()',
        },
        """
        asked at | mean | last | count | as a fraction | of any unit
        6 00:00  | 8    | 9    | 2     | 8             | 6
        """,
    ),
    Spec(
        "Filters",
        "`where(...)` looks at the version that is visible at K (rule 4). A comparator gives its limit as value (rule 15).",
        "observation",
        """
        drawn   | value | unit | category    | interpretation | comparator | method
        5 08:00 | 5.0   | %    | laboratory  | N              | -          | snomed:8517006
        5 09:00 | 9.0   | %    | laboratory  | H              | -          | -
        5 10:00 | 14.0  | %    | vital-signs | HH             | >          | -
        """,
        {
            "laboratory": 'hba1c.where(category="laboratory").count()',
            "high": 'hba1c.where(interpretation=["H", "HH"]).count()',
            "6 to 10": "hba1c.where(low=6, high=10).count()",
            "exact": "hba1c.where(comparators=False).max()",
            "by method": 'hba1c.where(method="snomed:8517006").count()',
            "max": "hba1c.max()",
            "abnormal": "hba1c.count_abnormal()",
        },
        """
        asked at | laboratory | high | 6 to 10 | exact | by method | max | abnormal
        6 00:00  | 2          | 2    | 1       | 9     | 1         | 14  | 2
        """,
    ),
    Spec(
        "Filters by site and encounter",
        "A result belongs to the encounter that it names. Here the stay, an inpatient one, lasts from the 5th at 08:00 to "
        "the 7th at 12:00; a patient is one of a site.",
        "observation",
        """
        drawn   | value | unit | encounter
        5 09:00 | 7.0   | %    | stay
        6 09:00 | 8.0   | %    | -
        """,
        {
            "inpatient": 'hba1c.where(encounter_class="inpatient").last()',
            "emergency or inpatient": 'hba1c.where(encounter_class=["emergency", "inpatient"]).count()',
            "ambulatory": 'hba1c.where(encounter_class="ambulatory").count()',
            "north": 'hba1c.where(site="north").count()',
            "south": 'hba1c.where(site="south").count()',
        },
        """
        asked at | inpatient | emergency or inpatient | ambulatory | north | south
        5 08:30  | -         | 0                      | 0          | 0     | 0
        6 12:00  | 7         | 1                      | 0          | 2     | 0
        """,
    ),
    Spec(
        "Outside the reference range",
        "Of the results that carry a range, by their own range.",
        "observation",
        """
        drawn   | value | unit | low | high
        5 08:00 | 5.0   | %    | 4   | 6
        5 09:00 | 6.5   | %    | 4   | 6
        5 10:00 | 9.0   | %    | -   | 6
        5 11:00 | 3.0   | %    | -   | -
        """,
        {
            "share": "hba1c.share_outside_range()",
            "share of half an hour": 'hba1c.share_outside_range(within="30min")',
        },
        """
        asked at | share        | share of half an hour
        5 08:00  | 0            | 0
        5 09:00  | 0.5          | 1
        5 11:00  | 0.6666666667 | -
        6 00:00  | 0.6666666667 | -
        """,
    ),
    Spec(
        "Coded values",
        "Of equally frequent ones, `mode_code` gives the first in the alphabet.",
        "observation",
        """
        drawn   | coded
        5 08:00 | snomed:8517006
        6 08:00 | snomed:266919005
        7 08:00 | snomed:8517006
        """,
        {
            "last code": 'observation("loinc:4548-4").last_code()',
            "most frequent": 'observation("loinc:4548-4").mode_code()',
            "count": 'observation("loinc:4548-4").count()',
            "ever 8517006": 'observation("loinc:4548-4").where(coded="snomed:8517006").ever()',
            "times 8517006": 'observation("loinc:4548-4").where(coded="snomed:8517006").count()',
        },
        """
        asked at | last code        | most frequent    | count | ever 8517006 | times 8517006
        5 00:00  | -                | -                | 0     | false        | 0
        5 08:00  | snomed:8517006   | snomed:8517006   | 1     | true         | 1
        6 08:00  | snomed:266919005 | snomed:266919005 | 2     | true         | 1
        7 08:00  | snomed:8517006   | snomed:8517006   | 3     | true         | 2
        """,
    ),
    Spec(
        "Conditions",
        "Section C: not refuted, differential or entered in error. Active: clinically active, recurrent or in relapse, or "
        "not said; and not abated.",
        "condition",
        """
        onset   | code          | clinical | verification | abated  | recorded
        5 08:00 | icd10cm:E11.9 | active   | confirmed    | 8 00:00 | 5 20:00
        6 08:00 | icd10cm:E11.9 | resolved | confirmed    | -       | 6 08:00
        6 09:00 | icd10cm:E11.65 | active  | refuted      | -       | 6 09:00
        7 08:00 | icd10cm:E11.65 | -       | provisional  | 7 20:00 | 7 08:00
        """,
        {
            "active": "t2dm.active()",
            "ever": "t2dm.ever()",
            "count": "t2dm.count()",
            "concepts": "t2dm.count_concepts()",
            "since onset": "t2dm.time_since_onset()",
            "since recorded": "t2dm.time_since_recorded()",
        },
        """
        asked at | active | ever  | count | concepts | since onset | since recorded
        5 07:59  | false  | false | 0     | 0        | -           | -
        5 20:00  | true   | true  | 1     | 1        | 0.5         | 0
        7 08:00  | true   | true  | 3     | 2        | 2           | 1.5
        8 00:00  | false  | true  | 3     | 2        | 2.6666666667 | 2.1666666667
        """,
    ),
    Spec(
        "Sets of concepts",
        "Several codes, `|` of sets (either), `-` (the one without the other). Retired codes of the releases in the lock "
        "are among them.",
        "condition",
        """
        onset   | code           | clinical | verification
        5 08:00 | icd10cm:E11.9  | active   | confirmed
        6 08:00 | icd10cm:E11.65 | active   | confirmed
        7 08:00 | icd10cm:I10    | active   | confirmed
        """,
        {
            "E11 and below": "t2dm.count()",
            "without E11.65": 'condition(concept_set("icd10cm:E11", descendants=True) - concept_set("icd10cm:E11.65")).count()',
            "or I10": 'condition(concept_set("icd10cm:E11", descendants=True) | concept_set("icd10cm:I10")).count()',
            "E11.9 or I10": 'condition(concept_set("icd10cm:E11.9", "icd10cm:I10")).count()',
        },
        """
        asked at | E11 and below | without E11.65 | or I10 | E11.9 or I10
        5 08:00  | 1             | 1              | 1      | 1
        6 08:00  | 2             | 1              | 2      | 1
        7 08:00  | 2             | 1              | 3      | 2
        """,
    ),
    Spec(
        "An encounter diagnosis is active during its encounter",
        "Section C, where it has no clinical status of its own.",
        "condition",
        """
        onset   | code          | clinical | category            | encounter
        5 08:00 | icd10cm:E11.9 | -        | encounter-diagnosis | stay
        """,
        {"active": "t2dm.active()", "ever": "t2dm.ever()"},
        """
        asked at | active | ever
        5 08:00  | true   | true
        7 11:59  | true   | true
        7 12:00  | false  | true
        """,
    ),
    Spec(
        "Medications",
        "Section C. An order ends at the earliest end that it states; where it states none, after what the feature "
        "assumes. On hold suspends it; a proposal counts when it is reported; an order not to give never counts.",
        "medication",
        """
        ordered | code          | until   | status  | intent   | supply | repeats | not to give | reported
        5 08:00 | rxnorm:860975 | -       | active  | order    | 1      | 1       | -           | -
        8 08:00 | rxnorm:860975 | 8 20:00 | active  | order    | -      | -       | -           | -
        8 08:00 | rxnorm:860975 | -       | on-hold | order    | -      | -       | -           | -
        9 08:00 | rxnorm:860975 | -       | active  | proposal | -      | -       | -           | -
        9 08:00 | rxnorm:860975 | -       | active  | order    | -      | -       | yes         | -
        10 08:00 | rxnorm:860975 | -      | active  | plan     | -      | -       | -           | yes
        """,
        {
            "active": 'metformin.active(assume="1d")',
            "ever": "metformin.ever()",
            "count": "metformin.count()",
            "medications": "metformin.count_concepts()",
        },
        """
        asked at | active | ever  | count | medications
        5 07:59  | false  | false | 0     | 0
        7 07:59  | true   | true  | 1     | 1
        7 08:00  | false  | true  | 1     | 1
        8 12:00  | true   | true  | 3     | 1
        8 20:00  | false  | true  | 2     | 1
        9 12:00  | false  | true  | 2     | 1
        10 08:00 | true   | true  | 3     | 1
        11 08:00 | false  | true  | 3     | 1
        """,
    ),
    Spec(
        "Filters of orders",
        "A status that is asked for stands in the place of those that count otherwise.",
        "medication",
        """
        ordered | code          | status    | intent | category  | encounter
        5 09:00 | rxnorm:860975 | active    | order  | inpatient | stay
        6 09:00 | rxnorm:860975 | cancelled | order  | inpatient | stay
        7 09:00 | rxnorm:860975 | stopped   | order  | community | -
        """,
        {
            "count": "metformin.count()",
            "cancelled": 'metformin.where(status="cancelled").count()',
            "in the community": 'metformin.where(category="community").count()',
            "in a stay": 'metformin.where(encounter_class="inpatient").count()',
            "south": 'metformin.where(site="south").count()',
        },
        """
        asked at | count | cancelled | in the community | in a stay | south
        8 00:00  | 2     | 1         | 1                | 1         | 0
        """,
    ),
    Spec(
        "Days that orders cover",
        "The proportion of days covered (PDC): an order covers from its beginning to its end, as for `active`; what two "
        "cover counts once. What is known to be stopped, completed or on hold covered at most until that was known.",
        "medication",
        """
        ordered | code           | known   | until   | status    | intent | supply
        2 00:00 | rxnorm:860975  | 2 00:00 | -       | active    | order  | 2
        3 00:00 | rxnorm:860975  | 3 00:00 | -       | active    | order  | 2
        7 00:00 | rxnorm:860975  | 7 00:00 | 8 00:00 | active    | order  | -
        7 00:00 | rxnorm:860975  | 8 00:00 | -       | stopped   | order  | -
        9 00:00 | rxnorm:1043400 | 9 00:00 | -       | active    | order  | 1
        """,
        {
            "covered": 'metformin.proportion_covered(within="4d", assume="30d")',
            "ingredients": 'medication(concept_set("rxnorm:6809", "rxnorm:161", ingredient=True)).count_ingredients()',
        },
        """
        asked at | covered | ingredients
        1 00:00  | 0       | 0
        3 00:00  | 0.25    | 1
        5 00:00  | 0.75    | 1
        7 00:00  | 0.5     | 1
        8 00:00  | 0.5     | 1
        9 12:00  | 0.25    | 4
        """,
    ),
    Spec(
        "Rows of an encounter",
        "`where(encounter_class=...)` keeps what belongs to an encounter that has begun and that K knows to be of the class.",
        "condition",
        """
        onset   | code           | clinical | verification | category            | encounter
        5 08:00 | icd10cm:E11.9  | active   | confirmed    | encounter-diagnosis | stay
        5 09:00 | icd10cm:E11.65 | resolved | differential | problem-list-item   | -
        """,
        {
            "inpatient": 't2dm.where(encounter_class="inpatient").count()',
            "emergency": 't2dm.where(encounter_class="emergency").count()',
            "resolved or differential": 't2dm.where(clinical_status="resolved", verification_status="differential").count()',
            "encounter diagnoses": 't2dm.where(category="encounter-diagnosis").count()',
            "problems": 't2dm.where(category="problem-list-item").count()',
        },
        """
        asked at | inpatient | emergency | resolved or differential | encounter diagnoses | problems
        5 07:59  | 0         | 0         | 0                        | 0                   | 0
        5 08:00  | 1         | 0         | 0                        | 1                   | 0
        9 00:00  | 1         | 0         | 1                        | 1                   | 0
        """,
    ),
    Spec(
        "Days in hospital",
        "How much of the window lies in an encounter. What two share counts once; one that is going on lasts until T.",
        "encounter",
        """
        start   | class | status      | end
        2 00:00 | IMP   | finished    | 4 00:00
        3 00:00 | IMP   | finished    | 5 00:00
        8 00:00 | IMP   | in-progress | -
        8 00:00 | AMB   | finished    | 8 12:00
        """,
        {
            "in a week": 'encounter("inpatient").days(within="7d")',
            "in all": 'encounter("inpatient").days()',
            "ambulatory": 'encounter("ambulatory").days()',
        },
        """
        asked at | in a week | in all | ambulatory
        2 00:00  | 0         | 0      | 0
        3 12:00  | 1.5       | 1.5    | 0
        6 00:00  | 3         | 3      | 0
        9 00:00  | 4         | 4      | 0.5
        10 00:00 | 4         | 5      | 0.5
        """,
    ),
    Spec(
        "Encounters",
        "Planned and cancelled ones do not count, unless `where(status=...)` says so.",
        "encounter",
        """
        start   | class | status      | end
        3 08:00 | AMB   | finished    | 3 09:00
        5 08:00 | IMP   | finished    | 7 08:00
        6 08:00 | IMP   | cancelled   | -
        9 08:00 | EMER  | in-progress | -
        9 10:00 | IMP   | in-progress | 12 08:00
        """,
        {
            "count": "encounter().count()",
            "stays": 'encounter("inpatient").count()',
            "in hospital": 'encounter("inpatient").active()',
            "in emergency": 'encounter("emergency").active()',
            "since discharge": 'encounter("inpatient").time_since_discharge()',
            "cancelled": 'encounter("inpatient").where(status="cancelled").count()',
            "since start": 'encounter("ambulatory").time_since_last()',
        },
        """
        asked at | count | stays | in hospital | in emergency | since discharge | cancelled | since start
        3 08:00  | 1     | 0     | false       | false        | -               | 0         | 0
        5 08:00  | 2     | 1     | true        | false        | -               | 0         | 2
        7 08:00  | 2     | 1     | false       | false        | 0               | 1         | 4
        9 08:00  | 3     | 1     | false       | true         | 2               | 1         | 6
        10 08:00 | 4     | 2     | true        | true         | 3               | 1         | 7
        """,
    ),
    Spec(
        "The patient",
        "Completed years by dates. A patient who is not known at K has no count and no flag either.",
        "patient",
        """
        known    | born       | sex    | deceased | until
        5 00:00  | 2004-02-29 | female | -        | 12 00:00
        12 00:00 | 2004-02-29 | female | yes      | -
        """,
        {
            "age": "patient.age()",
            "days": "patient.age_days()",
            "sex": "patient.sex()",
            "deceased": "patient.deceased()",
            "count": "hba1c.count()",
        },
        """
        asked at | age | days | sex    | deceased | count
        4 23:59  | -   | -    | -      | -        | -
        5 00:00  | 20  | 7310 | female | false    | 0
        12 00:00 | 20  | 7317 | female | true     | 0
        """,
    ),
    Spec(
        "Expressions",
        "Null where an answer that is needed is null, and where the divisor is 0.",
        "observation",
        """
        drawn   | value | unit
        5 08:00 | 8.0   | %
        6 08:00 | 6.0   | %
        """,
        {
            "ratio": "hba1c.last() / hba1c.first()",
            "by zero": "hba1c.last() / encounter().count()",
            "difference": "hba1c.last() - 6.5",
            "above": "hba1c.last() > 6.5",
            "below": "hba1c.last() < 6.5",
            "at least 8": "hba1c.last() >= 8",
            "at most 8": "hba1c.last() <= 8",
            "is 8": "hba1c.last() == 8",
            "is not 8": "hba1c.last() != 8",
            "or 5": 'coalesce(hba1c.last(within="1d"), 5)',
        },
        """
        asked at | ratio | by zero | difference | above | below | at least 8 | at most 8 | is 8  | is not 8 | or 5
        5 00:00  | -     | -       | -          | -     | -     | -          | -         | -     | -        | 5
        5 08:00  | 1     | -       | 1.5        | true  | false | true       | true      | true  | false    | 8
        6 08:00  | 0.75  | -       | -0.5       | false | true  | false      | true      | false | true     | 6
        8 00:00  | 0.75  | -       | -0.5       | false | true  | false      | true      | false | true     | 5
        """,
    ),
)

DEFINITIONS = """hba1c = observation("loinc:4548-4", unit="%")
t2dm = condition("icd10cm:E11", descendants=True)
metformin = medication("rxnorm:6809", ingredient=True)"""


def markdown() -> str:
    """The page docs/operators.md."""
    parts = [
        "# Operators\n\nGenerated from the tables that `tests/spec/test_operators.py` runs: do not edit. All times are of "
        "March 2024 in UTC, as `day hour:minute`; `-` is nothing. Rows are known when they are true, unless a column "
        "`known` says otherwise, and until the instant in a column `until`.\n\n"
        f"```python\n{DEFINITIONS}\n```\n"
    ]
    for spec in SPECS:
        written = "".join(f"- {heading}: `{feature}`\n" for heading, feature in spec.features.items())
        parts.append(
            f"\n## {spec.title}\n\n{spec.text}\n\n{_markdown(spec.rows)}\n{written}\n{_markdown(spec.answers)}"
        )
    parts.append("\n## All operators\n\n| operator | over | answer |\n| --- | --- | --- |\n")
    for name, operator in OPERATORS.items():
        over = ", ".join(table.replace("_", " ") for table in operator.tables)
        parts.append(f"| {name} | {over} | {operator.says} |\n")
    parts += [f"| {name} | patient | {says} |\n" for name, (_, says) in PATIENT_OPERATORS.items()]
    parts += [f"| {name} | answers | {expression.says} |\n" for name, expression in EXPRESSIONS.items()]
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(markdown(), encoding="utf-8")
    print(f"wrote {PAGE.name}", file=sys.stderr)
