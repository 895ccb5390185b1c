"""The notebooks run, and what they show is what they would show today. Run this file to write their outputs anew."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

# Of each output its text, and the picture of a plot; widgets and HTML are for those who run the notebook.
KEPT = ("text/plain", "image/png")
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def executed(notebook: Path, folder: Path) -> nbformat.NotebookNode:
    """A notebook after all of its cells have been run, in a folder of its own."""
    read = nbformat.read(notebook, as_version=4)
    for cell in read.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(
        read, timeout=300, kernel_name="python3", record_timing=False, resources={"metadata": {"path": str(folder)}}
    ).execute()
    return read


def shown(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """The text that each code cell shows."""
    return [
        [output.get("text") or output["data"]["text/plain"] for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_there_are_notebooks():
    assert len(NOTEBOOKS) == 5


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_it_says(notebook: Path, tmp_path: Path):
    now = shown(executed(notebook, tmp_path))
    assert any(now)
    assert now == shown(nbformat.read(notebook, as_version=4)), "run 'make notebooks'"


def write(notebook: Path) -> None:
    """Run a notebook and keep what it shows."""
    with tempfile.TemporaryDirectory() as folder:
        read = executed(notebook, Path(folder))
    read.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for number, cell in enumerate(read.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
        if cell.cell_type == "code":
            for output in cell.outputs:
                if "data" in output:
                    output.data = {kind: data for kind, data in output.data.items() if kind in KEPT}
    nbformat.write(read, notebook)


if __name__ == "__main__":
    for each in NOTEBOOKS:
        write(each)
