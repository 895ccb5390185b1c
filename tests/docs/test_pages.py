"""The generated pages of the reference say what the code says today."""

from __future__ import annotations

import re
from typing import get_args

import cli_page
import configuration_page
import exit_codes_page
import pytest
import python_page
import tables_page

import fhir_features
from fhir_features.config import ResourceType, Source

WRITERS = (cli_page, configuration_page, exit_codes_page, python_page, tables_page)


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.PAGE.stem)
def test_a_page_is_as_the_code_says(writer):
    assert writer.PAGE.read_text(encoding="utf-8") == writer.written(), "run 'make docs'"


def test_every_section_of_the_configuration_is_told():
    names = [name for name, _ in configuration_page.sections()]
    assert {"warehouse", "features", "sources.NAME", "sources.NAME.auth"} <= set(names)
    assert len(names) == len(set(names))


def test_a_command_is_told_with_its_options_and_arguments():
    page = cli_page.written()
    assert "```text\nfhir-features get [OPTIONS] ENTITIES\n```" in page
    assert "| `--features VIEW[:FEATURE]` | May be repeated. Required. |" in page


def test_every_resource_type_is_told():
    meaning = Source.model_fields["resource_types"].description or ""
    assert set(get_args(ResourceType)) == set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)?\b", meaning))


def test_every_name_of_the_package_is_told():
    told = {name.split(".")[0] for _, _, things in python_page.chapters() for name in things}
    assert set(fhir_features.__all__) <= told
