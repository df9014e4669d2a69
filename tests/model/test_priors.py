import numpy as np
import pymc as pm
import pytest

from bayesphase.model.priors import Prior, choose


def test_repr_is_the_call_that_makes_it():
    prior = Prior("Normal", mu=np.array([0.0, 1.5]), sigma=2.0)
    assert repr(prior) == "Prior('Normal', mu=[0.0, 1.5], sigma=2.0)"
    again = Prior.parse(repr(prior))
    assert again.distribution == "Normal"
    np.testing.assert_array_equal(again.parameters["mu"], [0.0, 1.5])


@pytest.mark.parametrize("value", [1e-9, 123456789.123, 1 / 3])
def test_repr_records_the_very_number(value):
    again = Prior.parse(repr(Prior("HalfNormal", sigma=value)))
    assert again.parameters["sigma"] == value


@pytest.mark.parametrize(
    "text", ["Normal(mu=0)", "Prior(__import__('os').name)", "Prior('Normal', mu=f())", "3", "("]
)
def test_parse_reads_nothing_else(text):
    with pytest.raises(ValueError, match="not a prior as it is recorded"):
        Prior.parse(text)


def test_build_adds_the_variable_to_the_model():
    with pm.Model(coords={"state": range(3)}) as model:
        Prior("HalfNormal", sigma=0.5).build("scale", ("state",))
    assert model.named_vars_to_dims["scale"] == ("state",)
    point = {"scale_log__": np.log([0.1, 0.2, 0.3])}
    by_hand = pm.logp(pm.HalfNormal.dist(0.5), np.array([0.1, 0.2, 0.3])).eval().sum()
    assert model.compile_logp(jacobian=False)(point) == pytest.approx(by_hand)


def test_build_names_what_pymc_does_not_have():
    with (
        pm.Model(),
        pytest.raises(ValueError, match="prior of 'mean' names 'Gausian', which is no"),
    ):
        Prior("Gausian", mu=0).build("mean", ())


@pytest.mark.parametrize("name", ["sample", "Model", "Deterministic", "math"])
def test_build_refuses_what_is_no_distribution(name):
    with pm.Model(), pytest.raises(ValueError, match=f"names {name!r}, which is no PyMC distrib"):
        Prior(name).build("mean", ())


def test_given_priors_replace_defaults():
    defaults = {"mean": Prior("Normal", mu=0, sigma=1), "scale": Prior("HalfNormal", sigma=1)}
    given = Prior("Gamma", alpha=2, beta=1)
    chosen = choose(defaults, {"scale": given})
    assert chosen == {"mean": defaults["mean"], "scale": given}
    assert choose(defaults, None) == defaults
    assert defaults["scale"] is not given


def test_unknown_variables_and_things_that_are_no_prior():
    defaults = {"mean": Prior("Normal", mu=0, sigma=1)}
    with pytest.raises(ValueError, match=r"priors names \['means'\], but .* \['mean'\]"):
        choose(defaults, {"means": Prior("Normal")})
    with pytest.raises(TypeError, match=r"prior of 'mean' must be a bayesphase.Prior, .* got 3.0"):
        choose(defaults, {"mean": 3.0})


@pytest.mark.parametrize(
    ("prior", "positive"),
    [
        (Prior("Normal", mu=[1.0, 2.0], sigma=0.3), False),
        (Prior("HalfNormal", sigma=0.3), True),
        (Prior("LogNormal", mu=0.5, sigma=1.2), True),
        (Prior("Gamma", alpha=1.0, beta=3.0), True),
        (Prior("InverseGamma", alpha=2.0, beta=[0.2, 0.4]), True),
        (Prior("Beta", alpha=21.0, beta=1.0), False),
        (Prior("Dirichlet", a=[21.0, 1.0, 0.5]), False),
    ],
)
def test_a_wider_prior_has_the_square_root_of_the_density(prior, positive):
    rng = np.random.default_rng(1)
    points = rng.dirichlet(np.ones(3), 6)
    if prior.distribution != "Dirichlet":
        points = points[:, :2]
    logs = []
    for one in (prior, prior.wider()):
        distribution = getattr(pm, one.distribution).dist(**one.parameters)
        value = pm.logp(distribution, points).eval()
        if positive and one.distribution != "HalfNormal":  # it is of numbers, the others of logs
            value = value + np.log(points)
        logs.append(value)
    left = logs[1] - 0.5 * logs[0]
    np.testing.assert_allclose(left, np.broadcast_to(left[0], left.shape), atol=1e-12)
    assert not np.allclose(logs[0] - logs[0][0], logs[1] - logs[1][0])


def test_not_every_prior_has_a_wider_one():
    assert Prior("Normal", mu=0.0, tau=2.0).wider() is None
    assert Prior("Weibull", alpha=1.0, beta=2.0).wider() is None
