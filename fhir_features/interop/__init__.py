"""What other tools read: events, features and labels in MEDS, and training sets in MLflow.

The packages of those tools are imported only here, when they are used: `pip install 'fhir-features[meds]'`.
"""

from fhir_features.interop.meds import MedsDataset, export_meds, feature_events, labels, with_patients
from fhir_features.interop.mlflow import log_training_set

__all__ = ["MedsDataset", "export_meds", "feature_events", "labels", "log_training_set", "with_patients"]
