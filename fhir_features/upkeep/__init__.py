"""The care of a warehouse: is it as it was written, what of it is left over, how is it made smaller, or anew?"""

from fhir_features.lake.compacting import Compacted
from fhir_features.upkeep.compact import compact
from fhir_features.upkeep.gc import Orphan, gc
from fhir_features.upkeep.rebuild import Rebuilt, rebuild
from fhir_features.upkeep.verify import Finding, Verified, verify

__all__ = ["Compacted", "Finding", "Orphan", "Rebuilt", "Verified", "compact", "gc", "rebuild", "verify"]
