"""A grid becomes the arms of a comparison, or is refused by the field that is wrong."""

import pytest

from metalora_jax.evaluation.protocol.grid import changed, expand

ARM = {
    "meta": {"inner_steps": 3, "head": None},
    "placement": ({"rank": 4, "alpha": 8.0},),
    "outer": {"learning_rate": 0.01},
}
AXES = {
    "rank": {"1": {"placement.0.rank": 1, "placement.0.alpha": 2.0}, "8": {"placement.0.rank": 8}},
    "K": {"five steps": {"meta.inner_steps": 5}},
}


def config(mode="each", start="meta", axes=AXES, **grid):
    return {
        "arms": {"meta": ARM, "lora": {"placement": ()}},
        "report": {"title": "T", "labels": {"meta": "Meta"}},
        "grid": dict(start=start, mode=mode, axes=axes, **grid),
        "seed": 0,
    }


def test_one_change_at_a_time():
    made = expand(config())
    assert list(made["arms"]) == ["meta", "lora", "rank_1", "rank_8", "K_five_steps"]
    assert made["arms"]["rank_1"]["placement"] == ({"rank": 1, "alpha": 2.0},)
    assert made["arms"]["rank_1"]["meta"] == ARM["meta"]
    assert made["arms"]["K_five_steps"]["meta"]["inner_steps"] == 5
    assert made["report"]["reference"] == "meta"
    assert made["report"]["labels"]["K_five_steps"] == "K: five steps"
    assert made["report"]["groups"] == {
        "rank": ["meta", "rank_1", "rank_8"],
        "single changes": ["meta", "K_five_steps"],
    }
    assert made["seed"] == 0
    assert ARM["placement"][0]["rank"] == 4


def test_every_combination_with_the_start_among_them():
    axes = {
        "rank": {"4": {"placement.0.rank": 4}, "8": {"placement.0.rank": 8}},
        "K": {"3": {"meta.inner_steps": 3}, "5": {"meta.inner_steps": 5}},
    }
    made = expand(config("product", axes=axes))
    assert list(made["arms"]) == ["meta", "lora", "rank_4-K_5", "rank_8-K_3", "rank_8-K_5"]
    assert made["arms"]["rank_8-K_5"]["placement"][0]["rank"] == 8
    assert made["arms"]["rank_8-K_5"]["meta"]["inner_steps"] == 5
    assert made["report"]["labels"]["meta"] == "rank 4, K 3"
    assert "groups" not in made["report"]


def test_a_whole_section_can_change():
    other = {"method": "reptile"}
    assert changed(ARM, {"meta": other, "outer.learning_rate": None}) == {
        "meta": other,
        "placement": ({"rank": 4, "alpha": 8.0},),
        "outer": {"learning_rate": None},
    }


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (dict(mode="all"), "grid.mode: no mode named 'all'; choose from each, product"),
        (dict(start="mta"), "grid.start: no arm named 'mta'; choose from meta, lora"),
        (dict(axes={}), "grid.axes: 'axes' has nothing to vary"),
        (dict(axes={"rank": {}}), "grid.axes: 'rank' has nothing to vary"),
        (dict(axes={"rank": {"1": {"placement.1.rank": 1}}}), "no field 'placement.1.rank'; '1' is none of: 0"),
        (dict(axes={"K": {"1": {"meta.inner_step": 1}}}), "no field 'meta.inner_step'; .* none of: inner_steps"),
        (dict(axes={"K": {"1": {"meta.inner_steps.x": 1}}}), "'x' is none of: nothing"),
        (dict(axes={"K": {"3": {"meta.inner_steps": 3}}}), "'K_3' appears twice"),
        (
            dict(axes={"K": {"a b": {"outer.learning_rate": 1}, "a/b": {"outer.learning_rate": 2}}}),
            "'K_a_b' appears twice",
        ),
        (dict(mode="product", axes=dict(a=AXES["rank"], b=AXES["rank"])), "another axis both set 'placement.0.alpha'"),
        (dict(modes="each"), "no field grid.modes"),
    ],
)
def test_what_is_wrong_is_named(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        expand(config(**changes))


def test_a_config_without_a_grid_is_another_command_s():
    with pytest.raises(ValueError, match="the config has no section `grid`: see configs"):
        expand({key: value for key, value in config().items() if key != "grid"})
