"""What a run was made of: written down by content, and refused for a report where it is not pinned."""

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import metalora_jax
from metalora_jax.evaluation.reports import provenance
from metalora_jax.evaluation.reports.provenance import FILE, Inputs, checkout, examine, keep, read
from metalora_jax.evaluation.reports.records import RecordError
from tests.evaluation.test_records import change

CONFIG = {"seed": 0, "report": {"title": "A"}, "workers": 2}
INPUTS = Inputs(
    code="c" * 64,
    config=provenance.digest(CONFIG),
    base="b" * 16,
    source="package",
    statistics="5" * 16,
    data={"validation": "v" * 64, "test": "7" * 64},
    libraries={"jax": "1.0"},
)
ADAPTED = INPUTS._replace(adapter="a" * 16, data=INPUTS.data | {"training": "d" * 64}, choices={"short": ["sgd", 0.1]})
CLEAN = ("e" * 40, [])


@pytest.fixture(autouse=True)
def clean_checkout(monkeypatch):
    monkeypatch.setattr(provenance, "checkout", lambda root: CLEAN)


def episodes(*inputs):
    return [change(fingerprint=each.fingerprint, episode_seed=i) for i, each in enumerate(inputs)]


def test_pinned_inputs_pass_and_are_shown(tmp_path):
    keep(tmp_path, [INPUTS, ADAPTED])
    standing = examine(tmp_path, episodes(INPUTS, ADAPTED, ADAPTED), CONFIG)
    assert not standing.problems
    assert not standing.cautions
    assert standing.lines[ADAPTED.fingerprint].inputs == ADAPTED
    assert standing.lines[ADAPTED.fingerprint].commit == CLEAN[0]
    assert [carrier.episodes for carrier in standing.carriers] == [1, 2]


def test_hosts_that_write_at_once_lose_no_line(tmp_path, monkeypatch):
    def slowly(run_dir):
        found = read(run_dir)
        time.sleep(0.2)
        return found

    monkeypatch.setattr(provenance, "read", slowly)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda each: keep(tmp_path, [each]), (INPUTS, ADAPTED)))
    assert set(read(tmp_path)) == {INPUTS.fingerprint, ADAPTED.fingerprint}


@pytest.mark.parametrize("field", [f for f in Inputs._fields if f not in ("data", "libraries", "choices")])
def test_the_fingerprint_is_of_every_input(field):
    assert INPUTS._replace(**{field: "other"}).fingerprint != INPUTS.fingerprint


def test_what_only_shows_a_run_is_not_part_of_its_config():
    assert provenance.digest(CONFIG | {"report": {}, "workers": 9, "films": 1}) == provenance.digest(CONFIG)
    assert provenance.digest(CONFIG | {"seed": 1}) != provenance.digest(CONFIG)
    assert provenance.digest({"tasks": ("a",)}) == provenance.digest({"tasks": ["a"]})  # as config.json gives it back


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"source": "lerobot/smolvla_base"}, "the base lerobot/smolvla_base is a name on the hub, whose content can"),
        ({"source": "lerobot/smolvla_base@main"}, "is a name on the hub, whose content can change"),
        ({"data": {"test": "7" * 64, "training": None}}, "the training demonstrations have no digest"),
    ],
)
def test_loose_inputs_are_refused_by_name(tmp_path, fields, problem):
    loose = INPUTS._replace(**fields)
    keep(tmp_path, [loose])
    [found] = examine(tmp_path, episodes(loose), CONFIG).problems
    assert problem in found


def test_a_commit_on_the_hub_is_pinned(tmp_path):
    named = INPUTS._replace(source=f"lerobot/smolvla_base@{'0' * 40}")
    keep(tmp_path, [named])
    assert not examine(tmp_path, episodes(named), CONFIG).problems


def test_uncommitted_code_is_refused_until_the_same_code_is_committed(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "checkout", lambda root: (CLEAN[0], ["meta/maml.py"]))
    keep(tmp_path, [INPUTS])
    assert "the code differs from its commit in meta/maml.py" in examine(tmp_path, episodes(INPUTS), CONFIG).problems[0]
    assert "meta/maml.py" in provenance.doubts("")[0]
    monkeypatch.setattr(provenance, "checkout", lambda root: CLEAN)
    keep(tmp_path, [INPUTS])
    assert not examine(tmp_path, episodes(INPUTS), CONFIG).problems


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"code": "0" * 64}, "code"),
        ({"statistics": "0" * 16}, "statistics"),
        ({"libraries": {"jax": "2.0"}}, "libraries"),
        ({"data": {"validation": "v" * 64, "test": "0" * 64}}, "test demonstrations"),
    ],
)
def test_a_run_of_two_kinds_is_refused(tmp_path, fields, name):
    other = INPUTS._replace(**fields)
    keep(tmp_path, [INPUTS, other])
    [problem] = examine(tmp_path, episodes(INPUTS, other), CONFIG).problems
    assert problem == f"the episodes differ in their {name}: run them again in a new directory"
    assert not examine(tmp_path, episodes(other), CONFIG).problems  # a line that nothing was run under does no harm


def test_unknown_fingerprints_and_another_config_are_refused(tmp_path):
    keep(tmp_path, [INPUTS])
    [problem] = examine(tmp_path, episodes(ADAPTED), CONFIG).problems
    assert "is not in provenance.jsonl" in problem
    [problem] = examine(tmp_path, episodes(INPUTS), CONFIG | {"seed": 1}).problems
    assert "config.json is not the config" in problem
    [problem] = examine(tmp_path, episodes(INPUTS), {}).problems
    assert "config.json is not the config" in problem


def test_a_config_whose_fields_were_renamed_since_is_that_of_the_run(tmp_path):
    keep(tmp_path, [INPUTS])
    renamed = {"random_seed" if name == "seed" else name: value for name, value in CONFIG.items()} | {"new_name": 1}
    [problem] = examine(tmp_path, episodes(INPUTS), renamed).problems
    assert "config.json is not the config" in problem
    line = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(line | {"renamed": provenance.digest(renamed)}) + "\n")
    assert not examine(tmp_path, episodes(INPUTS), renamed).problems
    [problem] = examine(tmp_path, episodes(INPUTS), CONFIG).problems  # neither the old one, nor any other
    assert "config.json is not the config" in problem


def test_arms_that_learned_from_different_demonstrations_are_named(tmp_path):
    other = ADAPTED._replace(data=INPUTS.data | {"training": "0" * 64})
    keep(tmp_path, [ADAPTED, other])
    standing = examine(tmp_path, episodes(ADAPTED, other), CONFIG)
    assert not standing.problems
    assert "trained on different demonstrations" in standing.cautions[0]


def test_a_run_recorded_without_the_file_is_a_draft_and_alone(tmp_path):
    unlisted = [change(fingerprint="0123456789abcdef", episode_seed=99)]
    standing = examine(tmp_path, unlisted, CONFIG)
    assert ["1 episode recorded without provenance.jsonl" in each for each in standing.problems] == [True]
    keep(tmp_path, [INPUTS])
    assert "report them separately" in examine(tmp_path, unlisted + episodes(INPUTS), CONFIG).problems[0]


def test_a_lost_file_is_no_run_without_one(tmp_path):
    keep(tmp_path, [INPUTS])
    (tmp_path / FILE).unlink()
    [problem] = examine(tmp_path, episodes(INPUTS), CONFIG).problems
    assert "is not in provenance.jsonl" in problem


def test_an_edited_line_is_refused_by_number(tmp_path):
    keep(tmp_path, [INPUTS, ADAPTED])
    path = tmp_path / FILE
    text = path.read_text()
    for damaged in (text.replace('"seed":0', ""), text.replace("7" * 64, "8" * 64, 1), text[:-30], text + "[]\n"):
        if damaged == text:
            continue
        path.write_text(damaged)
        with pytest.raises(RecordError, match=r"provenance\.jsonl:\d: .*restore"):
            read(tmp_path)


def test_keeping_again_changes_nothing(tmp_path):
    keep(tmp_path, [INPUTS])
    before = (tmp_path / FILE).read_bytes()
    keep(tmp_path, [INPUTS])
    assert (tmp_path / FILE).read_bytes() == before
    keep(tmp_path, [ADAPTED])
    assert (tmp_path / FILE).read_bytes().startswith(before)
    assert {file.name for file in tmp_path.iterdir()} == {FILE, f".{FILE}.lock"}


def test_sources(tmp_path):
    for name, source in (("", "package"), (str(tmp_path), "directory"), ("owner/name", "owner/name")):
        inputs = provenance.inputs({}, "b", name, "s", {})
        assert (inputs.base, inputs.source, inputs.statistics) == ("b", source, "s")


def test_the_code_is_the_whole_package(monkeypatch):
    asked = []
    monkeypatch.setattr(provenance, "checkout", lambda root: asked.append(root) or CLEAN)
    assert provenance.doubts("") == []
    assert asked == [Path(metalora_jax.__file__).parent]


def test_checkouts(tmp_path):
    root = tmp_path / "repository" / "package"
    root.mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (tmp_path / "repository" / "notes.md").write_text("")

    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(root.parent), *identity, *arguments], check=True, capture_output=True)

    assert checkout(root) == (None, [])
    git("init")
    assert checkout(root) == (None, [])  # in a checkout, but not of it: an environment inside somebody's repository
    git("add", ".")
    git("commit", "-m", "first")
    commit, changed = checkout(root)
    assert len(commit) == 40
    assert changed == []
    (root.parent / "notes.md").write_text("new")  # not the package
    assert checkout(root) == (commit, [])
    (root / "new.py").write_text("x = 1")
    assert checkout(root) == (commit, ["package/new.py"])


def test_lines_are_plain_json(tmp_path):
    keep(tmp_path, [ADAPTED])
    line = json.loads((tmp_path / FILE).read_text())
    assert line["inputs"]["data"]["training"] == "d" * 64
    assert line["fingerprint"] == ADAPTED.fingerprint
    assert len(line["fingerprint"]) == provenance.DIGITS != provenance.UNLISTED_DIGITS


@pytest.mark.parametrize(
    ("tried", "which"), [((0.1, 1.0), "smallest"), ((0.01, 0.1), "largest"), ((0.01, 0.1, 1.0), "")]
)
def test_a_rate_at_the_edge_of_its_search_is_said(tmp_path, tried, which):
    keep(tmp_path, [ADAPTED])
    cautions = examine(tmp_path, episodes(ADAPTED), CONFIG | {"search": {"sgd": tried}}).cautions
    assert [f"0.1 of sgd is the {which} that was tried" in line for line in cautions] == ([True] if which else [])


def test_one_fingerprint_for_two_methods_is_refused(tmp_path):
    keep(tmp_path, [ADAPTED])
    two = [*episodes(ADAPTED), change(fingerprint=ADAPTED.fingerprint, method="another")]
    problems = examine(tmp_path, two, CONFIG).problems
    assert any("carry one fingerprint" in problem for problem in problems)
