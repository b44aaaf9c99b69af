"""Types and ranges, and nothing that any other module of ours would have to be imported for."""

import ast
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from bie_jax.config import schema
from bie_jax.files.foreign_text import visible


def test_it_imports_nothing_but_the_standard_library_and_pydantic():
    tree = ast.parse(Path(schema.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports}
    assert {str(name).split(".")[0] for name in names} <= sys.stdlib_module_names | {"pydantic", "pydantic_core"}
    assert "pydantic" in names


def test_a_text_holds_what_is_shown_as_it_stands_and_nothing_else():
    """Two ways to say one thing, since the schema may not ask the other."""
    text = TypeAdapter(schema.Text)
    every = [chr(number) for number in range(sys.maxunicode + 1)]
    shown = "".join(character for character in every if visible(character) == character)
    for start in range(0, len(shown), 4096):
        text.validate_python(shown[start : start + 4096])
    refused = [character for character in every if visible(character) != character]
    assert len(refused) > 2048  # the surrogates are among them
    for character in refused:
        for around in (character, f"a{character}", f"{character}a"):
            with pytest.raises(ValidationError):
                text.validate_python(around)
