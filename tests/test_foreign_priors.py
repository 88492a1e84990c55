"""Priors given as distributions of PyMC and PreliZ."""

import numpy as np
import pymc as pm
import pytest

import hmlm
from hmlm.errors import PriorError
from hmlm.foreign_priors import convert_prior
from hmlm.priors import Prior, check_priors

SAME = [
    (pm.Normal.dist(0, 1), Prior("normal", mu=0, sigma=1)),
    (pm.Normal.dist(0.1, 0.3), Prior("normal", mu=0.1, sigma=0.3)),
    (pm.Normal.dist(0, tau=4), Prior("normal", mu=0, sigma=0.5)),
    (pm.StudentT.dist(nu=3, mu=1, sigma=2), Prior("student-t", nu=3, mu=1, sigma=2)),
    (pm.Cauchy.dist(alpha=1, beta=2.5), Prior("cauchy", alpha=1, beta=2.5)),
    (pm.Flat.dist(), Prior("flat")),
    (pm.Uniform.dist(-1, 3), Prior("uniform", lower=-1, upper=3)),
    (pm.HalfNormal.dist(2.1), Prior("half-normal", sigma=2.1)),
    (pm.HalfStudentT.dist(nu=4, sigma=2.5), Prior("half-student-t", nu=4, sigma=2.5)),
    (pm.HalfCauchy.dist(5), Prior("half-cauchy", beta=5)),
    (pm.HalfFlat.dist(), Prior("half-flat")),
    (pm.Exponential.dist(0.25), Prior("exponential", lam=0.25)),
    (pm.Exponential.dist(scale=2), Prior("exponential", lam=0.5)),
    (pm.Exponential.dist(3), Prior("exponential", lam=3)),
    (pm.Gamma.dist(2, 0.1), Prior("gamma", alpha=2, beta=0.1)),
    (pm.InverseGamma.dist(0.4, 0.3), Prior("inverse-gamma", alpha=0.4, beta=0.3)),
    (pm.LogNormal.dist(0.5, 1.2), Prior("lognormal", mu=0.5, sigma=1.2)),
    (pm.Beta.dist(2, 5), Prior("beta", alpha=2, beta=5)),
    (pm.LKJCorr.dist(n=3, eta=2), Prior("lkj", eta=2)),
]


@pytest.mark.parametrize(("given", "wanted"), SAME, ids=lambda v: getattr(v, "name", ""))
def test_pymc_distribution_is_the_same_prior(given, wanted):
    found = check_priors({"x": given})["x"]
    assert found.name == wanted.name
    assert dict(found.parameters) == pytest.approx(dict(wanted.parameters), rel=1e-12)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (pm.Normal.dist(0, 0.1), (0.3, -0.7)),
        (pm.Gamma.dist(mu=2.1, sigma=1.3), (0.4, 3.0)),
        (pm.Gamma.dist(2.2, 0.7), (0.4, 3.0)),
        (pm.Exponential.dist(0.1), (0.4, 3.0)),
        (pm.ChiSquared.dist(3), (0.4, 3.0)),
        (pm.InverseGamma.dist(mu=2.0, sigma=1.1), (0.4, 3.0)),
        (pm.Beta.dist(mu=0.3, sigma=0.1), (0.2, 0.4)),
        (pm.StudentT.dist(nu=3, mu=0, lam=0.25), (0.3, -0.7)),
        (pm.HalfNormal.dist(tau=0.2), (0.4, 3.0)),
    ],
)
def test_density_is_pymcs(given, words):
    from hmlm.prior_distributions import log_prior_density

    found = check_priors({"x": given})["x"]
    for x in words:
        assert log_prior_density(found, np.array(x)) == pytest.approx(
            float(pm.logp(given, x).eval()), rel=1e-6
        )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (pm.Laplace.dist(0, 1), "laplace of PyMC.*StudentT"),
        (pm.TruncatedNormal.dist(0, 1, lower=0), "truncated_normal of PyMC.*HalfNormal"),
        (pm.Poisson.dist(3), "poisson of PyMC"),
        (pm.Normal.dist(0, 1, shape=3), "array of normal"),
        (pm.Normal.dist([0, 1], 1), "array of normal"),
        (pm.Normal.dist(pm.Normal.dist(0, 1), 1), "mu is itself a random variable"),
        (pm.Normal, r"class pm.Normal.*pm.Normal.dist\(...\)"),
    ],
)
def test_pymc_distribution_that_cannot_be_converted(given, words):
    with pytest.raises(PriorError, match=words) as caught:
        check_priors({"slope": given})
    assert "'slope'" in str(caught.value)


class _PreliZ:
    """A stand-in with the attributes that PreliZ's distributions have."""

    names: tuple[str, ...] = ()

    def __init__(self, *values, **more):
        self.param_names = self.names
        self.is_frozen = False
        for name in self.names:
            setattr(self, name, None)
        given = dict(zip(self.names, values, strict=False))
        if given.keys() >= set(self.names):
            self._update(**given)
        for name, value in more.items():
            setattr(self, name, value)

    def _update(self, **values):
        for name, value in values.items():
            setattr(self, name, np.float64(value))
        self.params = tuple(values.values())
        self.is_frozen = True

    params = ()


def _preliz(kind, names):
    return type(kind, (_PreliZ,), {"names": names, "__module__": "preliz.distributions"})


@pytest.mark.parametrize(
    ("kind", "names", "wanted"),
    [
        ("Normal", ("mu", "sigma"), "normal"),
        ("StudentT", ("nu", "mu", "sigma"), "student-t"),
        ("Cauchy", ("alpha", "beta"), "cauchy"),
        ("Uniform", ("lower", "upper"), "uniform"),
        ("HalfNormal", ("sigma",), "half-normal"),
        ("HalfStudentT", ("nu", "sigma"), "half-student-t"),
        ("HalfCauchy", ("beta",), "half-cauchy"),
        ("Exponential", ("lam",), "exponential"),
        ("Gamma", ("alpha", "beta"), "gamma"),
        ("InverseGamma", ("alpha", "beta"), "inverse-gamma"),
        ("LogNormal", ("mu", "sigma"), "lognormal"),
        ("Beta", ("alpha", "beta"), "beta"),
    ],
)
def test_preliz_distribution_is_the_same_prior(kind, names, wanted):
    values = dict(zip(names, (1.5, 2.5, 3.5), strict=False))
    found = check_priors({"x": _preliz(kind, names)(*values.values())})["x"]
    assert found == Prior(wanted, **values)


def test_preliz_parametrization_of_the_user_does_not_matter():
    # Gamma(mu=2, sigma=1): param_names and params are mu and sigma, alpha and beta are there too.
    gamma = _preliz("Gamma", ("mu", "sigma"))(2.0, 1.0, alpha=np.float64(4), beta=np.float64(2))
    assert check_priors({"x": gamma})["x"] == Prior("gamma", alpha=4, beta=2)


def test_preliz_distribution_that_cannot_be_converted():
    with pytest.raises(PriorError, match="VonMises of PreliZ, which hmlm has no prior for"):
        check_priors({"x": _preliz("VonMises", ("mu", "kappa"))(0.0, 1.0)})
    with pytest.raises(PriorError, match=r"without a value of sigma.*preliz.maxent"):
        check_priors({"x": _preliz("HalfNormal", ("sigma",))()})
    with pytest.raises(PriorError, match="mu is no single number"):
        check_priors({"x": _preliz("Normal", ("mu", "sigma"))(1, 2, mu=np.zeros(2))})


def test_anything_else_is_refused():
    assert convert_prior("x", 3.0) is None
    with pytest.raises(PriorError, match=r"must be an hmlm.Prior.*PyMC or PreliZ, not float"):
        check_priors({"x": 3.0})


def test_a_model_takes_them(sleepstudy):
    model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy)
    other = model.with_priors(
        Days=pm.Normal.dist(0, 20),
        sd_Subject=pm.Exponential.dist(0.05),
        cor=pm.LKJCorr.dist(n=2, eta=4),
        sigma=_preliz("HalfNormal", ("sigma",))(50),
    )
    shown = other.priors.set_index("parameter")["prior"]
    assert shown["Days"] == "normal(mu=0, sigma=20)"
    assert shown["sd_Subject[Days]"] == "exponential(lam=0.05)"
    assert shown["cor_Subject"] == "lkj(eta=4)"
    assert shown["sigma"] == "half-normal(sigma=50)"
    with pytest.raises(PriorError, match="positive values only"):
        model.with_priors(sd=pm.Normal.dist(0, 1))
