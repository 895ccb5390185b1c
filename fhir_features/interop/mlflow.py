"""MLflow: a training set as an input of the run that is active, with its receipt.

In goes a training set; MLflow gets its receipt as an artifact, a dataset input whose digest is the hash of the output,
and tags to search runs by. No patient data goes there: a receipt has none.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fhir_features.errors import UsageError

if TYPE_CHECKING:
    from fhir_features.features import TrainingSet

ARTIFACT = "fhir_features/receipt.json"


def log_training_set(training: TrainingSet, *, context: str = "training") -> None:
    """Log a training set to the active MLflow run (one is started where none is), as what its `context` says.

    `fhir-features reproduce` makes the training set again from the artifact `fhir_features/receipt.json`; the warehouse
    keeps the spine for it. Raises UsageError where MLflow is not installed.
    """
    try:
        import mlflow
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
    except ImportError:
        raise UsageError("MLflow is not installed: pip install mlflow-skinny") from None
    receipt = training.receipt
    views = [f"{view.name}@{view.version[:12]}" for view in receipt.views]
    tags = {
        "fhir_features.views": ", ".join(views),
        "fhir_features.output_sha256": receipt.output.sha256,
        "fhir_features.spine_sha256": receipt.spine.sha256,
        "fhir_features.store_seq": str(receipt.store_seq),
        "fhir_features.engine": f"{receipt.engine.package} (semantics {receipt.engine.semantics})",
    }
    # MLflow takes at most 36 characters as a digest.
    digest = receipt.output.sha256[:32]
    dataset = MetaDataset(CodeDatasetSource(tags), name=", ".join(view.name for view in receipt.views), digest=digest)
    training.keep_spine()
    mlflow.log_input(dataset, context=context)
    mlflow.set_tags(tags)
    mlflow.log_dict(json.loads(receipt.to_json()), ARTIFACT)
