"""The files that configure the project agree with each other and with what is there."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from pybtex.database import parse_file

import convergent

pytestmark = pytest.mark.smoke

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "book/how_to_use.md", "environment.yml")]
INSTRUCTIONS = DOCUMENTS + WORKFLOWS
# What commands in the documents write, or what each reader has for themselves.
MADE_LATER = re.compile(r"^(_build|\.venv|data/cache)(/|$)|^(out|mine)\.ipynb$|^notebooks/NN_name\.ipynb$")
# Repositories of others that our texts may name. A link to ours is never listed here.
OTHERS = {"astral-sh/ruff-pre-commit", "kynan/nbstripout", "rgeirhos/texture-vs-shape"}


def read_yaml(name: str):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def direct_requirements(project) -> list[Requirement]:
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    every = [Requirement(text) for group in groups for text in group]
    return [requirement for requirement in every if requirement.name != project["name"]]


@pytest.fixture(scope="module")
def constraints() -> dict[str, Version]:
    """The tested version of each package; a line that is not `name==version` fails here."""
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if text := line.split("#")[0].strip():
            requirement = Requirement(text)
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", f"constraints.txt does not fix a version of {requirement.name}: {line}"
            pinned[canonicalize_name(requirement.name)] = Version(specifier.version)
    return pinned


@pytest.fixture(scope="module")
def conda_packages() -> dict[str, str]:
    listed = [entry for entry in read_yaml("environment.yml")["dependencies"] if isinstance(entry, str)]
    return dict((entry.split("=", 1) + [""])[:2] for entry in listed)


@pytest.fixture(scope="module")
def bibliography():
    return parse_file(ROOT / "book/references.bib").entries


def code_in(path: Path) -> str:
    """What a document sets as code: spans and fenced blocks of Markdown, the whole of a YAML file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".md":
        return text
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, flags=re.S | re.M)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    return "\n".join(fenced + spans)


def files_named_in(path: Path) -> set[str]:
    """Paths from the repository's root that a document sets as code or links to."""
    code = code_in(path)
    start = r"(?<![\w$./<-])"
    with_ending = rf"{start}((?:[\w.-]+/)*[\w.-]+\.(?:md|py|ipynb|yml|yaml|toml|txt|cff|bib|png))(?![\w/])"
    in_folder = rf"{start}((?:book|notebooks|lib|data|tests|benchmarks|\.github)/[\w./-]*)"
    found = set(re.findall(with_ending, code)) | set(re.findall(in_folder, code))
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")) if path.suffix == ".md" else []
    found |= {link.split("#")[0] for link in links if "://" not in link}
    return {name for name in found if not MADE_LATER.search(name)}


def make_targets_named_in(path: Path) -> set[str]:
    return set(re.findall(r"\bmake ([a-z][\w-]*)", code_in(path)))


def markdown_of_the_book() -> Iterator[tuple[Path, str]]:
    """Every page of prose, and the prose of every notebook."""
    for page in sorted((ROOT / "book").glob("*.md")):
        yield page, page.read_text(encoding="utf-8")
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        yield notebook, "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def texts() -> Iterator[Path]:
    """The files in which an address of the repository could stand."""
    endings = {".md", ".py", ".ipynb", ".yml", ".yaml", ".toml", ".cff", ".js"}
    places = [ROOT.glob("*"), ROOT.glob(".*"), (ROOT / "book/_static").glob("*")]
    places += [(ROOT / folder).rglob("*") for folder in ("notebooks", "lib", "data/zoo", "benchmarks", ".github")]
    places += [(ROOT / "book").glob("*"), (ROOT / "data").glob("*.md")]
    yield from (path for place in places for path in sorted(place) if path.suffix in endings and path.is_file())


# --- one Python, one version, one address ------------------------------------------------------------


def test_conda_and_the_workflows_use_one_python_that_the_package_allows(project, conda_packages):
    images = {job.get("container") for path in WORKFLOWS for job in read_yaml(name_of(path))["jobs"].values()}
    tested = {re.fullmatch(r"python:(\d+\.\d+)-\w+", image)[1] for image in images - {None}}
    assert tested == {conda_packages["python"]}, f"workflows: {tested}, environment.yml: {conda_packages['python']}"
    assert SpecifierSet(project["requires-python"]).contains(f"{tested.pop()}.99"), (
        "the image of a Python holds its last patch"
    )


def test_the_readme_asks_for_the_python_that_the_package_allows(project):
    asked = re.findall(r"(\d\.\d+\.\d+) or newer", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert asked
    assert {f">={version}" for version in asked} == {project["requires-python"]}


def test_conda_installs_this_checkout_and_the_processor_build_of_torch(project, conda_packages):
    assert {"pytorch-cpu", "torchvision", "pip"} <= set(conda_packages)
    (by_pip,) = [entry["pip"] for entry in read_yaml("environment.yml")["dependencies"] if isinstance(entry, dict)]
    (extra,) = re.fullmatch(r"-e \.\[(\w+)\]", *by_pip).groups()
    assert extra in project["optional-dependencies"]


def test_one_version_stands_in_package_metadata_citation_and_changelog(project):
    newest = re.search(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.M)[1]
    stated = {
        "pyproject.toml": project["version"],
        "convergent.__version__": convergent.__version__,
        "CITATION.cff": read_yaml("CITATION.cff")["version"],
        "CHANGELOG.md, newest heading": newest,
    }
    assert len(set(stated.values())) == 1, f"versions differ: {stated}"


def test_every_link_to_this_repository_follows_the_configuration():
    """The address is set in _config.yml; a fork changes it there and finds the rest here."""
    address = read_yaml("_config.yml")["repository"]["url"]
    ours = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", address)[1]
    hosts = r"(?:github\.com|raw\.githubusercontent\.com|colab\.research\.google\.com/github|mybinder\.org/v2/gh)"
    followed, behind = set(), []
    for path in texts():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for found in re.findall(rf"{hosts}[/:]([\w.-]+/[\w.-]+)", line):
                repository = found.rstrip(".").removesuffix(".git")
                if repository == ours:
                    followed.add(name_of(path))
                elif repository not in OTHERS:
                    behind.append(f"{name_of(path)}:{number} names {repository}")
    assert not behind, f"_config.yml says {ours}. Change these, or add repositories of others to OTHERS:\n" + "\n".join(
        behind
    )
    assert {"README.md", "CITATION.cff"} <= followed


def test_badges_open_notebooks_that_exist_on_the_configured_branch():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    badges = re.findall(
        r"colab[^)\s]*/blob/([^/]+)/([^)\s]+)|v2/gh/[^/]+/[^/]+/([^?]+)\?urlpath=lab/tree/([^)\s]+)", readme
    )
    targets = [
        (colab_branch or binder_branch, colab or binder) for colab_branch, colab, binder_branch, binder in badges
    ]
    assert len(targets) >= 2, "README.md has no badge for Colab or none for Binder"
    for branch, notebook in targets:
        assert branch == read_yaml("_config.yml")["repository"]["branch"]
        assert (ROOT / notebook).is_file(), f"a badge in README.md opens {notebook}, which is not here"


# --- files that machines read ------------------------------------------------------------------------


def test_every_yaml_file_parses_to_a_mapping():
    folders = [ROOT, ROOT / ".github", ROOT / ".github/workflows"]
    files = [path for folder in folders for ending in ("*.yml", "*.yaml", "*.cff") for path in folder.glob(ending)]
    assert len(files) >= 7
    for path in files:
        assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict), name_of(path)


def test_the_citation_has_what_the_format_demands(project):
    citation = read_yaml("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["license"] == project["license"]["text"]
    assert citation["repository-code"] == read_yaml("_config.yml")["repository"]["url"]
    assert citation["message"]
    for work in [citation, *citation["references"]]:
        assert work["title"]
        assert work["type"]
        for author in work["authors"]:
            assert set(author) in ({"name"}, {"family-names", "given-names"}), f"{work['title']}: {author}"


def test_pre_commit_uses_the_tested_versions(constraints):
    for repository in read_yaml(".pre-commit-config.yaml")["repos"]:
        tool = repository["repo"].rsplit("/", 1)[1].removesuffix("-pre-commit")
        assert Version(repository["rev"]) == constraints[tool], f"{tool} in .pre-commit-config.yaml"


# --- what the instructions name ----------------------------------------------------------------------


@pytest.mark.parametrize("document", INSTRUCTIONS, ids=name_of)
def test_every_file_that_the_instructions_name_exists(document):
    missing = sorted(name for name in files_named_in(document) if not (ROOT / name).exists())
    assert not missing, f"{name_of(document)} names what is not here: {', '.join(missing)}"


@pytest.mark.parametrize("document", INSTRUCTIONS, ids=name_of)
def test_every_make_target_that_the_instructions_name_exists(document):
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    unknown = make_targets_named_in(document) - targets
    assert not unknown, f"{name_of(document)} names targets that the Makefile lacks: {', '.join(sorted(unknown))}"


def test_the_readers_of_instructions_above_find_files_and_targets():
    """Guards the two tests above: a pattern that matches nothing would let them pass."""
    assert {"book/build.py", "LICENSE-text", "constraints.txt", "lib/convergent/"} <= files_named_in(ROOT / "README.md")
    assert {"book", "test", "smoke"} <= make_targets_named_in(ROOT / "README.md")
    assert make_targets_named_in(ROOT / ".github/workflows/tests.yml") == {"lint", "test"}


# --- dependencies ------------------------------------------------------------------------------------


def test_every_direct_dependency_has_a_tested_version_within_its_bounds(direct_requirements, constraints):
    wrong = []
    for requirement in direct_requirements:
        tested = constraints.get(canonicalize_name(requirement.name))
        if tested is None:
            wrong.append(f"{requirement.name} is not in constraints.txt")
        elif not requirement.specifier.contains(tested, prereleases=True):
            wrong.append(f"{requirement} excludes {tested}, the version in constraints.txt")
    assert not wrong, "\n".join(wrong)


def test_jupyter_book_stays_below_version_two(direct_requirements):
    (book,) = [requirement for requirement in direct_requirements if requirement.name == "jupyter-book"]
    assert not book.specifier.contains("2.0.0"), "version 2 ignores _config.yml and _toc.yml"


# --- sources -----------------------------------------------------------------------------------------


def test_every_source_has_author_title_and_year(bibliography):
    for key, entry in bibliography.items():
        assert entry.persons.get("author"), f"{key} has no author"
        assert entry.fields.get("title"), f"{key} has no title"
        assert re.fullmatch(r"(1[89]|20)\d\d", entry.fields.get("year", "")), f"{key} has no year"


def test_every_arxiv_number_and_doi_is_well_formed_and_its_own(bibliography):
    forms = {"eprint": r"\d{4}\.\d{4,5}", "doi": r"10\.\d{4,}/\S+"}
    for field, form in forms.items():
        given = {key: entry.fields[field] for key, entry in bibliography.items() if field in entry.fields}
        assert given
        assert all(re.fullmatch(form, value) for value in given.values()), given
        assert len(set(given.values())) == len(given), f"two entries share one {field}"


def test_every_citation_has_its_source(bibliography):
    cited = {
        (name_of(path), key.strip())
        for path, text in markdown_of_the_book()
        for keys in re.findall(r"\{cite[:\w]*\}`([^`]+)`", text)
        for key in keys.split(",")
    }
    assert {"kapoor2025", "isola2025", "srivastava2025", "guth2024"} <= {key for _, key in cited}
    unknown = sorted(f"{name} cites {key}" for name, key in cited if key not in bibliography)
    assert not unknown, f"not in book/references.bib: {', '.join(unknown)}"
