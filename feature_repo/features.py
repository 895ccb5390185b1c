"""The shipped feature views, what `fhir-features build` builds and `feast apply` registers, and a cohort to ask for.

They are a beginning: codes are those that the shipped ontologies know, windows those of common models. Keep what your
data has (`fhir-features report` shows which codes there are), change the rest, and OWNER, and go on.
"""

from fhir_features import (
    FeatureService,
    FeatureView,
    concept_set,
    condition,
    encounter,
    medication,
    observation,
    patient,
    spine,
)

OWNER = "clinical-data-science@hospital.example"

systolic = observation("loinc:8480-6", unit="mm[Hg]")
diastolic = observation("loinc:8462-4", unit="mm[Hg]")
heart_rate = observation("loinc:8867-4", unit="/min")
respiratory_rate = observation("loinc:9279-1", unit="/min")
temperature = observation(concept_set("loinc:8310-5", "loinc:8331-1"), unit="Cel")
oxygen_saturation = observation(concept_set("loinc:59408-5", "loinc:2708-6"), unit="%")
weight = observation("loinc:29463-7", unit="kg")
bmi = observation("loinc:39156-5", unit="kg/m2")

vitals = FeatureView(
    name="vitals",
    entity=patient,
    description="Vital signs: the newest ones, and the worst of the last 24 hours.",
    owner=OWNER,
    features=[
        systolic.last(within="365d").named("systolic_last_1y", "Newest systolic blood pressure of the last year"),
        diastolic.last(within="365d").named("diastolic_last_1y", "Newest diastolic blood pressure of the last year"),
        systolic.min(within="24h").named("systolic_min_24h", "Lowest systolic blood pressure of the last 24 hours"),
        systolic.max(within="24h").named("systolic_max_24h", "Highest systolic blood pressure of the last 24 hours"),
        heart_rate.max(within="24h").named("heart_rate_max_24h", "Highest heart rate of the last 24 hours"),
        respiratory_rate.max(within="24h").named(
            "respiratory_rate_max_24h", "Highest respiratory rate of the last 24 hours"
        ),
        temperature.max(within="24h").named("temperature_max_24h", "Highest body temperature of the last 24 hours"),
        oxygen_saturation.min(within="24h").named(
            "oxygen_saturation_min_24h", "Lowest oxygen saturation of arterial blood of the last 24 hours"
        ),
        bmi.last(within="730d").named("bmi_last_2y", "Newest body mass index of the last two years"),
        weight.delta(within="180d").named(
            "weight_change_180d", "Body weight, newest minus oldest of the last 180 days"
        ),
    ],
)

hba1c = observation("loinc:4548-4", unit="%")
glucose = observation(concept_set("loinc:2345-7", "loinc:2339-0"), unit="mg/dL")
creatinine = observation(concept_set("loinc:2160-0", "loinc:38483-4"), unit="mg/dL")
egfr = observation(concept_set("loinc:33914-3", "loinc:62238-1"), unit="mL/min/{1.73_m2}")
sodium = observation(concept_set("loinc:2951-2", "loinc:2947-0"), unit="mmol/L")
potassium = observation(concept_set("loinc:2823-3", "loinc:6298-4"), unit="mmol/L")
hemoglobin = observation("loinc:718-7", unit="g/dL")
leukocytes = observation(concept_set("loinc:6690-2", "loinc:26464-8"), unit="10*3/uL")
platelets = observation(concept_set("loinc:777-3", "loinc:26515-7"), unit="10*3/uL")
ldl = observation("loinc:18262-6", unit="mg/dL")

labs = FeatureView(
    name="labs",
    entity=patient,
    description="Common laboratory results, converted to one unit each.",
    owner=OWNER,
    features=[
        hba1c.last(within="365d").named("hba1c_last_1y", "Newest hemoglobin A1c of the last year"),
        hba1c.mean(within="730d").named("hba1c_mean_2y", "Mean hemoglobin A1c of the last two years"),
        glucose.last(within="365d").named("glucose_last_1y", "Newest glucose of the last year"),
        creatinine.last(within="365d").named("creatinine_last_1y", "Newest creatinine of the last year"),
        (creatinine.last(within="7d") / creatinine.min(within="365d")).named(
            "creatinine_rise_7d", "Newest creatinine of the last week over the lowest of the last year"
        ),
        egfr.last(within="365d").named("egfr_last_1y", "Newest estimated glomerular filtration rate of the last year"),
        sodium.last(within="365d").named("sodium_last_1y", "Newest sodium of the last year"),
        potassium.last(within="365d").named("potassium_last_1y", "Newest potassium of the last year"),
        hemoglobin.last(within="365d").named("hemoglobin_last_1y", "Newest hemoglobin of the last year"),
        leukocytes.last(within="365d").named("leukocytes_last_1y", "Newest leukocyte count of the last year"),
        platelets.last(within="365d").named("platelets_last_1y", "Newest platelet count of the last year"),
        ldl.last(within="1825d").named("ldl_last_5y", "Newest LDL cholesterol of the last five years"),
    ],
)

# The view of the README: one question, asked of results, diagnoses and orders.
diabetes = FeatureView(
    name="diabetes",
    entity=patient,
    features=[
        hba1c.last(within="365d").named("hba1c_last_1y"),
        hba1c.mean(within="730d").named("hba1c_mean_2y"),
        condition("icd10cm:E11", descendants=True).active().named("t2dm_active"),
        medication("rxnorm:6809", ingredient=True).active(assume="90d").named("on_metformin"),
        patient.age().named("age"),
    ],
)

# Classes of AHRQ's CCSR and of its Elixhauser comorbidity software stand for the ICD-10-CM codes in them.
chronic_conditions = FeatureView(
    name="chronic_conditions",
    entity=patient,
    description="Chronic conditions by the classes of CCSR and of Elixhauser's comorbidities.",
    owner=OWNER,
    features=[
        condition("ccsr:END005").active().named("t2dm_active", "Type 2 diabetes, active (CCSR END005)"),
        condition(concept_set("ccsr:END002", "ccsr:END003"))
        .ever()
        .named("diabetes_ever", "Diabetes of any type (CCSR END002, END003)"),
        condition(concept_set("ccsr:CIR007", "ccsr:CIR008"))
        .ever()
        .named("hypertension_ever", "Hypertension, essential or secondary (CCSR CIR007, CIR008)"),
        condition("ccsr:CIR011").ever().named("coronary_disease_ever", "Coronary atherosclerosis (CCSR CIR011)"),
        condition("elixhauser:HF").ever().named("heart_failure_ever", "Heart failure (Elixhauser HF)"),
        condition("elixhauser:LUNG_CHRONIC")
        .ever()
        .named("chronic_lung_disease_ever", "Chronic pulmonary disease (Elixhauser LUNG_CHRONIC)"),
        condition("ccsr:GEN003").ever().named("ckd_ever", "Chronic kidney disease (CCSR GEN003)"),
        condition(concept_set("elixhauser:CANCER_SOLID", "elixhauser:CANCER_METS"))
        .ever()
        .named("solid_cancer_ever", "Malignant solid tumor, metastatic or not (Elixhauser CANCER_SOLID, CANCER_METS)"),
        condition("elixhauser:DEMENTIA").ever().named("dementia_ever", "Dementia (Elixhauser DEMENTIA)"),
        condition("elixhauser:DEPRESS").ever().named("depression_ever", "Depression (Elixhauser DEPRESS)"),
    ],
)

medications = FeatureView(
    name="medications",
    entity=patient,
    description="Whether an order of an ingredient covers T; one that names no end lasts 90 days.",
    owner=OWNER,
    features=[
        medication("rxnorm:6809", ingredient=True).active(assume="90d").named("on_metformin", "Metformin"),
        medication(concept_set("rxnorm:83367", "rxnorm:36567", ingredient=True))
        .active(assume="90d")
        .named("on_statin", "A statin: atorvastatin or simvastatin"),
        medication("rxnorm:29046", ingredient=True).active(assume="90d").named("on_lisinopril", "Lisinopril"),
        medication("rxnorm:5487", ingredient=True)
        .active(assume="90d")
        .named("on_hydrochlorothiazide", "Hydrochlorothiazide"),
        medication("rxnorm:11289", ingredient=True).active(assume="90d").named("on_warfarin", "Warfarin"),
        medication("rxnorm:32968", ingredient=True).active(assume="90d").named("on_clopidogrel", "Clopidogrel"),
        medication(concept_set("rxnorm:7804", "rxnorm:5489", ingredient=True))
        .active(assume="30d")
        .named("on_opioid", "An opioid: oxycodone or hydrocodone; one that names no end lasts 30 days"),
    ],
)

utilization = FeatureView(
    name="utilization",
    entity=patient,
    description="Who the patient is, and how often he or she has come.",
    owner=OWNER,
    features=[
        encounter("emergency").count(within="365d").named("emergency_visits_1y", "Emergency visits of the last year"),
        encounter("inpatient")
        .count(within="365d")
        .named("inpatient_stays_1y", "Inpatient stays begun in the last year"),
        encounter("inpatient")
        .count(within="30d")
        .named("inpatient_stays_30d", "Inpatient stays begun in the last 30 days"),
        encounter("inpatient").active().named("inpatient_now", "In hospital at T"),
        encounter("ambulatory")
        .count(within="365d")
        .named("ambulatory_visits_1y", "Ambulatory visits of the last year"),
        patient.age().named("age", "Completed years at T"),
        patient.sex().named("sex", "Administrative sex"),
    ],
)

cardiovascular_risk = FeatureService(
    name="cardiovascular_risk",
    description="What a model of cardiovascular risk takes.",
    owner=OWNER,
    features=[
        "vitals:systolic_last_1y",
        "vitals:bmi_last_2y",
        "labs:ldl_last_5y",
        "labs:hba1c_last_1y",
        "chronic_conditions",
        "medications:on_statin",
        "utilization:age",
        "utilization:sex",
    ],
)

# `fhir-features get admissions --features utilization --output training.parquet`
admissions = spine.encounters(at="start+24h", class_="inpatient")
