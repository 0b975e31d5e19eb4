"""A study of offline error against success, on a random base, made-up demonstrations and made-up outcomes."""

import json

import numpy as np
import pytest

from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.prediction import Prediction, recorded
from metalora_jax.evaluation.offline import against_success as study
from metalora_jax.evaluation.offline import agreement_report, measure, rivals
from metalora_jax.evaluation.protocol import experiment
from metalora_jax.evaluation.reports.records import RecordError, read_episodes
from metalora_jax.evaluation.rollout import Outcome
from tests.evaluation.fake_world import make_world
from tests.tiny_base import INSTRUCTIONS, make_base, make_demos

HEADS = dict(pattern="action_.*", kind="lora", rank=2, alpha=4.0)
CONFIG = dict(
    cameras=("agentview",),
    control=dict(execute=2, max_steps=9),
    tasks=tuple(INSTRUCTIONS),
    conditions=dict(none={}, turned=dict(yaw=1.0)),
    placement=(HEADS,),
    shots=1,
    held_out=2,
    first_demo=100,
    learning_rates=(0.01, 0.1),
    steps=(0, 1, 3),
    frames=3,
    noise_draws=1,
    max_norm=1.0,
    episodes=4,
    offline=dict(stride=2, samples=2),
)
POLICIES = 5


def roll_out(jobs, *_):
    """More steps, more success; backwards."""
    for job in reversed(jobs):
        for rollout in job.rollouts:
            episode = rollout.key[0]
            success = episode.episode_seed % 4 < episode.steps
            yield Outcome(rollout.key, success, 1.0, 7, np.zeros((7, 4), np.float32), None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The config, and what stands in for a simulator while it lasts."""
    root = tmp_path_factory.mktemp("base")
    bases.save(root / "base", make_base())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "world", lambda _: make_world(INSTRUCTIONS))
        patch.setattr(study, "_recorded", lambda own: {cell: make_demos(cell.task, 3) for cell in own.cells})
        patch.setattr(experiment.rollout, "run", roll_out)
        yield study.Study.from_config(CONFIG | dict(base=str(root / "base")))


@pytest.fixture(scope="module")
def finished(made, tmp_path_factory):
    return study.run(made, tmp_path_factory.mktemp("run") / "run")


def test_every_policy_is_measured_and_run(made, finished):
    rows, episodes = study.read(finished / study.OFFLINE), read_episodes(finished / study.EPISODES)
    assert len(rows) == 4 * POLICIES
    assert len(episodes) == 4 * POLICIES * made.episodes
    assert all(set(row.measures) == set(study.MEASURES) for row in rows)
    assert {row.made for row in rows} == set(made.policies)
    assert len({(row.cell, row.measures["scaled"]) for row in rows}) == len(rows)


def test_measures_in_closed_form():
    """Off by two standard deviations in the first step on what was held out, exact on what was learned from."""
    demos, base = make_demos("reach", 3), make_base()
    seen = recorded({"reach": demos}, base.preprocessor)
    scale, unseen = base.statistics.action_std, seen.demo < 2
    off = np.zeros_like(seen.actions)
    off[unseen, 0] = 2 * scale
    sides = Prediction(seen.actions + np.stack([off, -off]), seen.actions + off / 2, np.where(unseen, 5.0, 3.0))
    far = Prediction((seen.actions + 9 * scale)[None], seen.actions + 9 * scale)
    known = rivals.Meaning(np.zeros(4, bool), "")
    result = measure.assembled(base, seen, demos, {"own": sides, rivals.HOLD: far}, known)
    steps = [6 - 1, 7 - 1]  # frames of the held-out episodes: one step less is ahead of each than of the one before
    chunk = base.sizes.chunk
    share = np.mean([n / sum(min(chunk, left) for left in range(1, n + 1)) for n in steps])  # of real steps, the first
    two = np.mean([n / sum(min(2, left) for left in range(1, n + 1)) for n in steps])
    wanted = dict(scaled=2 * share, worst_joint=2 * share, units=2 * share * scale.mean(), first_step=2.0)
    wanted |= dict(executed=2 * two, root_mean_square=2 * np.sqrt(share), spread=2 * share, no_noise=share)
    wanted |= dict(mean_of_draws=0, joints=0, loss=5, learned_error=0, learned_loss=3)
    assert study.measured(result, "own", held_out=2, execute=2) == pytest.approx(wanted, abs=1e-5)


def test_a_second_start_does_what_is_missing_alone(made, finished, monkeypatch):
    before = (finished / study.OFFLINE).read_text(), (finished / study.EPISODES).read_text()
    log = finished / study.EPISODES
    log.write_text("".join(before[1].splitlines(keepends=True)[:-3]))
    ran = []
    monkeypatch.setattr(experiment.rollout, "run", lambda jobs, *_: roll_out(ran.extend(jobs) or jobs))
    monkeypatch.setattr(study, "_measured", lambda *_: pytest.fail("measured again"))
    study.run(made, finished)
    assert sum(len(job.rollouts) for job in ran) == 3
    assert (finished / study.OFFLINE).read_text() == before[0]
    assert sorted(log.read_text().splitlines()) == sorted(before[1].splitlines())


def test_the_report(finished):
    page = agreement_report.write_report(finished)
    summary = json.loads((page.parent / "summary.json").read_text())
    assert summary["policies"] == 4 * POLICIES
    steps = summary["agreement"]["gradient steps, the most of them"]
    assert steps["within"]["value"] == pytest.approx(1)
    assert steps["best"] == 1
    assert steps["chosen"]["value"] == 0.75
    assert {row["steps"]: row["success"] for row in summary["by_steps"]} == {0: 0, 1: 0.25, 3: 0.75}
    assert "data:image/png" in page.read_text()


def test_cells_that_are_not_whole_are_left_out_and_said(finished, tmp_path):
    for name in (study.OFFLINE, study.CONFIG, "provenance.jsonl"):
        (tmp_path / name).write_text((finished / name).read_text())
    with pytest.raises(RecordError, match=r"no episodes\.jsonl"):
        agreement_report.write_report(tmp_path)
    lines = (finished / study.EPISODES).read_text().splitlines(keepends=True)
    (tmp_path / study.EPISODES).write_text("".join(line for line in lines if '"draw":2' not in line) + lines[0][:9])
    page = agreement_report.write_report(tmp_path)
    assert "1 of 4 cells" in page.with_name("report.md").read_text()
    (tmp_path / study.EPISODES).write_text(lines[0])
    with pytest.raises(RecordError, match="no cell is whole"):
        agreement_report.write_report(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(steps=(1, 3)), r"config.steps is \(1, 3\); give 0"),
        (dict(steps=(0, 3, 3)), r"rising order"),
        (dict(learning_rates=()), "learning_rates, tasks and conditions need an entry"),
        (dict(episodes=0), "config.episodes is 0; it must be positive"),
        (dict(conditions=dict(odd=dict(joint_offset=(1.0,)))), "joint_offset does not fit"),
        (dict(offline=dict(strid=1)), "did you mean stride"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(made, change, said):
    with pytest.raises(ValueError, match=said):
        study.Study.from_config(CONFIG | dict(base="") | change)
