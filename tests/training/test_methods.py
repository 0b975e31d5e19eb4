"""The words of a config: each has an effect, or is refused."""

import jax.numpy as jnp
import pytest

from metalora_jax.training import methods


def build(**words):
    usual = dict(inner_steps=1, optimizer="sgd", inner_learning_rate=0.1, max_norm=1.0)
    usual |= dict(same_draws=False, micro_batch=None, head=None)
    return methods.build(lambda theta, batch, key: jnp.zeros(()), methods.MetaConfig.from_config(usual | words))


@pytest.mark.parametrize("method", ["maml", "fomaml", "reptile", "multitask"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_plain_methods_learn_theta_alone(method, optimizer):
    assert set(build(method=method, optimizer=optimizer).init({"w": jnp.ones(2)})) == {"theta"}


@pytest.mark.parametrize("words", [{"method": "maml"}, {"method": "fomaml"}, {"method": "anil", "head": ["w"]}])
@pytest.mark.parametrize(("optimizer", "shape"), [("learned", ()), ("learned_each", (2,))])
def test_learned_rates_start_at_the_rate(words, optimizer, shape):
    rates = build(optimizer=optimizer, inner_learning_rate=0.3, **words).init({"w": jnp.ones(2)})["log_rates"]["w"]
    assert rates.shape == shape
    assert jnp.allclose(jnp.exp(rates), 0.3)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"method": "anil"}, r"meta\.head selects what method 'anil' adapts"),
        ({"method": "fomaml", "head": ["w"]}, r"meta\.head .* not for 'fomaml'"),
        ({"method": "reptile", "optimizer": "learned"}, "'learned' has no effect with method 'reptile'"),
        ({"method": "multitask", "optimizer": "learned"}, "'learned' has no effect with method 'multitask'"),
        (
            {"method": "fomaml", "optimizer": "adagrad"},
            "no inner optimizer named 'adagrad'; choose learned, learned_each, sgd, adam",
        ),
        ({"method": "mamml"}, "no meta-method named 'mamml'; choose anil, maml, fomaml, reptile, multitask"),
    ],
)
def test_words_without_effect_are_refused(words, complaint):
    with pytest.raises(ValueError, match=complaint):
        build(**words)
