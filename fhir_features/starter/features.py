"""The feature views to begin with: what `fhir-features build` builds and `feast apply` registers, and a cohort."""

from fhir_features import FeatureView, condition, encounter, medication, observation, patient, spine

hba1c = observation("loinc:4548-4", unit="%")
systolic = observation("loinc:8480-6", unit="mm[Hg]")
ldl = observation("loinc:18262-6", unit="mg/dL")

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

cardiovascular = FeatureView(
    name="cardiovascular",
    entity=patient,
    features=[
        systolic.last(within="365d").named("systolic_last_1y"),
        systolic.max(within="365d").named("systolic_max_1y"),
        ldl.last(within="1825d").named("ldl_last_5y"),
        condition("icd10cm:I10").ever().named("hypertension_ever"),
        encounter("emergency").count(within="365d").named("emergency_visits_1y"),
        encounter("inpatient").count(within="365d").named("inpatient_stays_1y"),
        patient.age().named("age"),
        patient.sex().named("sex"),
    ],
)

# `fhir-features get admissions --features cardiovascular --output training.parquet`
admissions = spine.encounters(at="start+24h", class_="inpatient")
