"""Small releases in the official layouts, with invented content: what importers read."""

from pathlib import Path

from fhir_features.ontology.systems import systems


def sctid(number: int) -> str:
    """An invented SNOMED CT concept id with a right check digit."""
    return next(f"{number}00{digit}" for digit in range(10) if systems()["snomed"].is_code(f"{number}00{digit}"))


ROOT, DISEASE, FEVER, OLD_FEVER, VAGUE, SPLIT = (sctid(number) for number in range(900100, 900106))

FSN, SYNONYM = "900000000000003001", "900000000000013009"
IS_A, INFERRED, STATED = "116680003", "900000000000011006", "900000000000010007"
REPLACED_BY, POSSIBLY = "900000000000526001", "900000000000523009"
ICD10CM_MAP, CTV3_MAP = "6011000124106", "900000000000497000"


def rf2(folder: Path) -> Path:
    """A Full release: a hierarchy, a concept that was replaced, one that may be either of two, and a map with rules."""
    concepts = [(code, "20200131", "1") for code in (ROOT, DISEASE, FEVER, OLD_FEVER, VAGUE, SPLIT)]
    concepts += [(code, "20210131", "0") for code in (OLD_FEVER, VAGUE)]
    descriptions = [
        (ROOT, FSN, "Root"),
        (DISEASE, FSN, "Disease (disorder)"),
        (FEVER, FSN, 'Fever "quotidian (disorder)'),
        (FEVER, SYNONYM, "Daily fever"),
        (OLD_FEVER, FSN, "Ague (disorder)"),
        (VAGUE, FSN, "Heat (disorder)"),
        (SPLIT, FSN, "Chill (disorder)"),
    ]
    relationships = [(DISEASE, ROOT, INFERRED), (FEVER, DISEASE, INFERRED), (SPLIT, DISEASE, INFERRED)]
    relationships += [(FEVER, ROOT, STATED)]
    associations = [(REPLACED_BY, OLD_FEVER, FEVER), (POSSIBLY, VAGUE, FEVER), (POSSIBLY, VAGUE, SPLIT)]
    maps = [
        (FEVER, 1, 1, "TRUE", "R50.9"),
        (FEVER, 2, 1, "TRUE", "S82.?"),
        (SPLIT, 1, 1, "IFA 248152002 | Female |", "O26.90"),
        (SPLIT, 1, 2, "OTHERWISE TRUE", "R68.83"),
        (DISEASE, 1, 1, "TRUE", ""),
    ]
    core, module = "Full/Terminology", "900000000000207008"
    _table(
        folder / core / "sct2_Concept_Full_INT_20210131.txt",
        "id effectiveTime active moduleId definitionStatusId",
        [(code, time, active, module, "900000000000074008") for code, time, active in concepts],
    )
    _table(
        folder / core / "sct2_Description_Full-en_INT_20210131.txt",
        "id effectiveTime active moduleId conceptId languageCode typeId term caseSignificanceId",
        [
            (str(1000 + n), "20200131", "1", module, code, "en", kind, term, "x")
            for n, (code, kind, term) in enumerate(descriptions)
        ],
    )
    _table(
        folder / core / "sct2_Relationship_Full_INT_20210131.txt",
        "id effectiveTime active moduleId sourceId destinationId relationshipGroup typeId characteristicTypeId modifierId",
        [
            (str(2000 + n), "20200131", "1", module, low, high, "0", IS_A, kind, "x")
            for n, (low, high, kind) in enumerate(relationships)
        ],
    )
    _table(
        folder / "Full/Refset/Content/der2_cRefset_AssociationFull_INT_20210131.txt",
        "id effectiveTime active moduleId refsetId referencedComponentId targetComponentId",
        [(f"a{n}", "20210131", "1", module, *association) for n, association in enumerate(associations)],
    )
    _table(
        folder / "Full/Refset/Map/der2_iisssccRefset_ExtendedMapFull_INT_20210131.txt",
        "id effectiveTime active moduleId refsetId referencedComponentId mapGroup mapPriority mapRule mapAdvice mapTarget "
        "correlationId mapCategoryId",
        [
            (
                f"m{n}",
                "20210131",
                "1",
                module,
                ICD10CM_MAP,
                code,
                str(group),
                str(priority),
                rule,
                "advice",
                target,
                "x",
                "y",
            )
            for n, (code, group, priority, rule, target) in enumerate(maps)
        ],
    )
    _table(
        folder / "Full/Refset/Map/der2_sRefset_SimpleMapFull_INT_20210131.txt",
        "id effectiveTime active moduleId refsetId referencedComponentId mapTarget",
        [("s1", "20210131", "1", module, CTV3_MAP, FEVER, "X76EI")],
    )
    return folder


def rrf(folder: Path) -> Path:
    """RxNorm: a branded and a clinical drug, its component and ingredient, an NDC, and a concept that was merged."""
    conso = [("1", "IN", "testamine"), ("2", "SCDC", "testamine 5 MG"), ("3", "SCD", "testamine 5 MG Oral Tablet")]
    conso += [("4", "SBD", "testamine 5 MG Oral Tablet [Testol]"), ("3", "PSN", "testamine tablet")]
    lines = [
        f"{code}|ENG||||||{n}|{n}|{code}||RXNORM|{kind}|{code}|{name}||N|4096|"
        for n, (code, kind, name) in enumerate(conso)
    ]
    _lines(folder / "rrf/RXNCONSO.RRF", lines)
    relations = [("1", "has_ingredient", "2"), ("2", "consists_of", "3"), ("3", "tradename_of", "4")]
    relations += [("2", "ingredient_of", "1")]
    _lines(
        folder / "rrf/RXNREL.RRF",
        [
            f"{upper}||CUI|RO|{lower}||CUI|{name}|{n}||RXNORM||||N|4096|"
            for n, (upper, name, lower) in enumerate(relations)
        ],
    )
    _lines(folder / "rrf/RXNSAT.RRF", ["3|||9|AUI|3|AT1||NDC|RXNORM|00071015523|N|4096|"])
    _lines(
        folder / "rrf/RXNATOMARCHIVE.RRF",
        [
            "9|9|testamine hydrochloride|||||N|ENG|2020|||5|RXNORM|IN|1|",
            "8|8|testamine|||||N|ENG|2020|||1|RXNORM|IN|1|",
        ],
    )
    return folder


def athena(folder: Path) -> Path:
    """OMOP: an ICD-9-CM code that maps to SNOMED CT, and a SNOMED CT concept that was replaced."""
    _table(
        folder / "CONCEPT.csv",
        "concept_id concept_name domain_id vocabulary_id concept_class_id standard_concept concept_code valid_start_date "
        "valid_end_date invalid_reason",
        [
            ("11", "Fever", "Condition", "SNOMED", "Disorder", "S", FEVER, "20020131", "20991231", ""),
            ("12", "Ague", "Condition", "SNOMED", "Disorder", "", OLD_FEVER, "20020131", "20210131", "U"),
            ("13", "Disease", "Condition", "SNOMED", "Disorder", "S", DISEASE, "20020131", "20991231", ""),
            ("14", "Fever", "Condition", "ICD9CM", "4-dig billing code", "", "780.60", "19700101", "20991231", ""),
            ("15", "Gender", "Gender", "Gender", "Gender", "S", "M", "19700101", "20991231", ""),
        ],
    )
    _table(
        folder / "CONCEPT_RELATIONSHIP.csv",
        "concept_id_1 concept_id_2 relationship_id valid_start_date valid_end_date invalid_reason",
        [
            ("12", "11", "Concept replaced by", "20210131", "20991231", ""),
            ("14", "11", "Maps to", "19700101", "20991231", ""),
        ],
    )
    _table(
        folder / "CONCEPT_ANCESTOR.csv",
        "ancestor_concept_id descendant_concept_id min_levels_of_separation max_levels_of_separation",
        [("13", "11", "1", "1"), ("13", "13", "0", "0")],
    )
    return folder


def _table(file: Path, header: str, rows: list[tuple[str, ...]]) -> None:
    _lines(file, ["\t".join(header.split()), *("\t".join(row) for row in rows)], end="\r\n")


def _lines(file: Path, lines: list[str], end: str = "\n") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(line + end for line in lines), encoding="utf-8", newline="")
