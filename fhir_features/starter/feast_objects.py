"""What `feast apply` registers: an entity for site and for patient_id, and a feature view for each of features.py.

The feature tables are found through the configuration: $FHIR_FEATURES_CONFIG, or the one in the folder above.
"""

import os
from pathlib import Path

from fhir_features.feast import feast_objects
from fhir_features.store import FeatureStore

CONFIG = os.environ.get("FHIR_FEATURES_CONFIG") or Path(__file__).absolute().parent.parent

# Feast registers what it finds among the variables of a module.
globals().update(feast_objects(FeatureStore(CONFIG)))
