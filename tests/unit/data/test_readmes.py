"""What the READMEs and the messages of `data/` point at is there."""

import re
from pathlib import Path

import pytest

from data.studies.known import STUDIES

REPOSITORY = Path(__file__).resolve().parents[3]
READMES = [path.relative_to(REPOSITORY) for path in sorted((REPOSITORY / "data").rglob("README.md"))]

_LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
_PATH = re.compile(r"`((?:bie_jax|configs|data|experiments|tests)/[\w./-]*)`")
_IN_A_MESSAGE = re.compile(r"data/[\w/]+/README\.md|data/README\.md")
_MODULE = re.compile(r"`(data(?:\.\w+)+)`")


@pytest.mark.parametrize("readme", READMES, ids=str)
def test_links_and_paths_of_a_readme(readme):
    text = (REPOSITORY / readme).read_text()
    links = [link for link in _LINK.findall(text) if "://" not in link]
    missing = [link for link in links if not (REPOSITORY / readme.parent / link).exists()]
    missing += [path for path in _PATH.findall(text) if not (REPOSITORY / path).exists()]
    assert not missing


def test_the_readme_names_every_known_set():
    text = (REPOSITORY / "data/README.md").read_text()
    known = text[text.index("## Known sets") :]
    assert [name for name in re.findall(r"`(\w+)`", known.partition(":")[0])] == list(STUDIES)


def test_paths_and_modules_that_the_code_names():
    missing = []
    for file in [*(REPOSITORY / "data").rglob("*.py"), REPOSITORY / "bie_jax/input/known_sets.py"]:
        text = file.read_text()
        missing += [(file.name, path) for path in _IN_A_MESSAGE.findall(text) if not (REPOSITORY / path).exists()]
        for name in _MODULE.findall(text):
            parts = name.split(".")
            # A module, or something in one: `data.limits`, `data.sources.download.bring`.
            modules = [REPOSITORY.joinpath(*parts[:depth]) for depth in (len(parts), len(parts) - 1)]
            found = modules[0].is_dir() or any(module.with_suffix(".py").exists() for module in modules)
            missing += [] if found else [(file.name, name)]
    assert not missing
