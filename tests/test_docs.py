"""The documentation holds together: links lead somewhere, the README is short, the site's pages are all there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "configs" / "README.md",
    *sorted((ROOT / "docs").glob("**/*.md")),
]
PAGES += sorted((ROOT / "third_party").glob("*.md")) + sorted((ROOT / "experiments" / "results").glob("*/README.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
README_LINES = 120


def links(page: Path) -> list[str]:
    """The relative links of a page, as they stand there; none from code."""
    found = LINK.findall(CODE.sub("", page.read_text()))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as MkDocs and GitHub make them of plain words."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def broken(page: Path) -> list[str]:
    """The links of a page that lead to no file, or to no heading of it."""
    found = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        generated = target.name == "api.md"  # its anchors come from docstrings; `mkdocs build --strict` knows them
        if not target.exists() or (anchor and not generated and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert broken(page) == []


def test_the_check_bites(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A heading\n[a](b.md) [c](page.md#a-heading) [d](#none) [e](https://e.org/f) `[g](h.md)`\n")
    assert broken(page) == ["b.md", "#none"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page):
    named = re.findall(
        r"(?<![\w/.])(?:metalora_jax|tests|configs|docs|experiments)/[\w/.-]+\.(?:py|md|ipynb)\b", page.read_text()
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


def test_every_page_is_in_the_navigation():
    named = set(re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert named == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").glob("**/*.md")}


def test_every_module_in_the_api_exists():
    for name in re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), name
