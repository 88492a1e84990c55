"""Random models, and their densities in PyMC's coordinates and in those of the compiled kernels."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from support import central_difference
from test_kernel import conditional_effects

import hmlm
from hmlm import Prior
from hmlm.default_priors import resolve_priors
from hmlm.families import FAMILIES, PARAMETERS
from hmlm.likelihoods.gaussian import gaussian_sums, known_sigma2
from hmlm.likelihoods.glmm_pack import pack_rows, rows_cover
from hmlm.likelihoods.optimum import best_point
from hmlm.likelihoods.posterior import kernel_covers, pack
from hmlm.likelihoods.preliminary import preliminary
from hmlm.likelihoods.rows import make_rows
from hmlm.likelihoods.threads import one_blas_thread

POPULATION = ["1", "x", "x + f", "f", "0 + f", "0 + x", "x * f", "x + v", "x + offset(z)"]
EFFECTS = ["1", "1", "x", "0 + x", "f", "x + v"]
SHAPES = ("normal", "beta", "half-normal", "gamma", "lognormal")
DEEP = ["{e} | g", "{e} || g", "{e} | g/c"]


def coefficient_priors(draw):
    scale = draw(st.sampled_from([0.7, 2.0]))
    return draw(
        st.sampled_from(
            [
                Prior("normal", mu=0.2, sigma=scale),
                Prior("student-t", nu=4, mu=-0.1, sigma=scale),
                Prior("cauchy", alpha=0.1, beta=scale),
                Prior("flat"),
            ]
        )
    )


def positive_priors(draw, first=0):
    scale = draw(st.sampled_from([0.6, 1.5]))
    return draw(
        st.sampled_from(
            [
                Prior("half-flat"),  # not for a shape, whose likelihood does not end it
                Prior("half-normal", sigma=scale),
                Prior("half-student-t", nu=3, sigma=scale),
                Prior("half-cauchy", beta=scale),
                Prior("exponential", lam=1 / scale),
                Prior("gamma", alpha=2.5, beta=2 / scale),
                Prior("inverse-gamma", alpha=3, beta=2 * scale),
                Prior("lognormal", mu=-0.2, sigma=scale),
                Prior("uniform", lower=0.05 * scale, upper=20 * scale),
            ][first:]
        )
    )


def share_priors(draw):
    return draw(
        st.sampled_from(
            [
                Prior("beta", alpha=1.5, beta=2.5),
                Prior("beta", alpha=1, beta=1),
                Prior("uniform", lower=0, upper=1),
            ]
        )
    )


def make_table(seed, groups, size, spread):
    """Draw a table with an outcome for every family: unbalanced, nested and crossed factors."""
    rng = np.random.default_rng(seed)
    n = groups * size
    g = np.sort(rng.integers(0, groups, n))
    g[:groups] = np.arange(groups)
    g.sort()
    x = rng.normal(size=n).round(2)
    eta = 0.4 + 0.4 * x + spread * rng.normal(size=groups)[g]
    share = 1 / (1 + np.exp(-eta))
    counts = rng.poisson(np.exp(np.minimum(eta, 3)))
    counts[rng.random(n) < 0.2] = 0
    counts[:3] = 0, 1, 2
    trials = rng.integers(1, 9, n)
    yes = (rng.random(n) < share).astype(int)
    yes[:2] = 0, 1
    kind = rng.integers(0, 3, n)
    grade = np.digitize(eta + rng.logistic(size=n), [-1, 0.3, 1.5])
    kind[:3], grade[:4] = np.arange(3), np.arange(4)
    return pd.DataFrame(
        {
            "g": [f"g{k}" for k in g],
            "c": [f"c{k}" for k in rng.integers(0, 2, n)],
            "h": [f"h{k}" for k in np.r_[:4, rng.integers(0, 4, n - 4)]],
            "x": x,
            "v": rng.uniform(-1, 1, n).round(2),
            "z": rng.uniform(-0.3, 0.3, n).round(1),
            "f": np.where(np.arange(n) % 3 == 0, "a", "b"),
            "real": 6 + eta + rng.normal(size=n),
            "s": rng.uniform(0.3, 1.5, n).round(2),
            "w": rng.uniform(0.4, 2.5, n).round(2),
            "binary": yes,
            "hits": rng.binomial(trials, share),
            "n": trials,
            "count": counts,
            "many": rng.poisson(40 + 2 * eta),
            "positive": np.exp(1 + eta / 4 + 0.3 * rng.normal(size=n)),
            "unit": rng.beta(2, 3, n).clip(0.01, 0.99),
            "ordered": grade,
            "category": np.array(["p", "q", "r"])[kind],
        }
    )


@st.composite
def models(draw, names=tuple(FAMILIES)):
    """Draw what `hmlm.Model` takes: formula, family, priors and settings, and the table."""
    family = FAMILIES[draw(st.sampled_from(names))]
    link = draw(st.sampled_from(family.links))
    table = {
        "seed": draw(st.integers(0, 10**6)),
        "groups": draw(st.integers(3, 5)),
        "size": draw(st.integers(5, 9)),
        "spread": draw(st.sampled_from([0.0, 0.5, 1.5])),
    }
    outcome, settings = family.outcome, {}
    if outcome == "trials":
        outcome = "p(hits, n)"
    if outcome == "count" and link == "identity":
        outcome = "many"
    # Means that must be positive are kept so by large intercepts and no slopes.
    tight = link in ("identity", "inverse") and family.outcome in ("count", "positive")
    tight = (tight and family.name != "lognormal") or link == "inverse"
    tight = tight or (link == "log" and family.outcome == "real")
    population = "1" if tight else draw(st.sampled_from(POPULATION))
    effects = "1" if tight else draw(st.sampled_from(EFFECTS))
    terms = [draw(st.sampled_from(DEEP)).format(e=effects)]
    if draw(st.booleans()) and "/" not in terms[0]:
        terms.append(draw(st.sampled_from(["1 | h", "1 | h", "x | h" if not tight else "1 | h"])))
    free, priors = list(family.parameters), {}
    if family.name == "gaussian" and link == "identity":
        road = draw(st.sampled_from(["plain", "plain", "weights", "se"]))
        if road == "weights":
            settings["weights"] = "w"
        if road == "se":
            outcome, free = "se(real, s)", []
    formula = f"{outcome} ~ {population} + " + " + ".join(f"({t})" for t in terms)
    if free and draw(st.integers(0, 3)) == 0 and not tight:
        name = draw(st.sampled_from(free))
        free.remove(name)
        own = draw(st.sampled_from(["x", "1 + (1 | g)", "f + (1 | h)", "x + (x | g)"]))
        formula += f"; {name} ~ {own}"
        # Without these the few rows of a group give it a precision of 1e12, where no density of
        # doubles has a digit left: lgamma(a + b) - lgamma(a) - lgamma(b).
        priors = {f"{name}_Intercept": Prior("normal", mu=0.5, sigma=0.7)}
        if "x" in own:
            priors[f"{name}_x"] = Prior("normal", sigma=0.4)
        if "|" in own:
            priors[f"{name}_sd"] = Prior("half-normal", sigma=0.4)
    if not tight and draw(st.booleans()) and family.outcome not in ("ordered", "category"):
        if "0 +" not in population:
            priors["Intercept"] = coefficient_priors(draw)
        if "x" in population:
            priors["x"] = coefficient_priors(draw)
    if draw(st.booleans()) and family.outcome != "category":
        priors["sd" if draw(st.booleans()) else "sd_g"] = positive_priors(draw)
    if draw(st.booleans()) and effects not in ("1", "0 + x") and "||" not in terms[0]:
        priors["cor_g"] = Prior("lkj", eta=draw(st.sampled_from([1.0, 1.5, 4.0])))
    for name in free:
        if draw(st.booleans()):
            positive = PARAMETERS[name].link == "log"
            priors[name] = positive_priors(draw, 1) if positive else share_priors(draw)
    if family.outcome == "ordered" and draw(st.booleans()):
        priors["cutpoints"] = coefficient_priors(draw)
    pooling = draw(st.sampled_from(["partial"] * 8 + ["none", "complete"]))
    if pooling != "partial":
        none = pooling == "none"  # then the kernel wants normal priors of every group's own terms
        priors = {
            k: v
            for k, v in priors.items()
            if not re.search(r"(^|_)(sd|cor)(_|$)", k) and not (none and v.name not in SHAPES)
        }
    return {
        "formula": formula,
        "family": str(family) if link == family.links[0] else f"{family.name}({link})",
        "priors": priors,
        "pooling": pooling,
        "table": table,
        **settings,
    }


def draw_case(key, names=tuple(FAMILIES)):
    """Draw one case by Hypothesis, seeded by a key.

    The first that Hypothesis draws is always the simplest, and what comes next always begins with
    another value: a number that is not used.
    """
    cases = []

    @seed(key)
    @settings(
        max_examples=2,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32), models(names))
    def keep(_, case):
        cases.append(case)

    keep()
    return cases[-1]


def make_model(case):
    """Make the model that a case describes; refused ones raise an HmlmError."""
    settings = {k: v for k, v in case.items() if k not in ("table", "pooling", "formula")}
    model = hmlm.Model(case["formula"], make_table(**case["table"]), **settings)
    return model if case["pooling"] == "partial" else model.with_pooling(case["pooling"])


class KernelDensity:
    """Log densities of parameters from the compiled kernel, whichever `hmlm.NUTS` would take."""

    def __init__(self, design, rows=False):
        priors = resolve_priors(design)
        self.design = design
        self.integrated = not rows and not kernel_covers(design, priors)
        if self.integrated:
            sums = gaussian_sums(design)
            point, theta, _ = best_point(sums, reml=True, sigma2=known_sigma2(design))
            self.posterior = pack(design, sums, priors, theta, point)
        else:
            assert rows_cover(design, priors) == ""
            made = make_rows(design)
            self.posterior = pack_rows(design, made, priors, preliminary(design, made, priors))
        self._signed = self._sd_coordinates()

    def values(self, x):
        """Return the parameters at many coordinates at once, and the effects if they are any."""
        found = self.posterior.parameters(x)
        return found if self.integrated else {**found, **self.posterior.effects(x)}

    def at(self, x):
        return {k: v[0] for k, v in self.values(x[None]).items()}

    def natural(self, x):
        """Return parameters as one vector for every row of x."""
        found = self.values(x)
        return _flat([v for v in self.design.variables if v.name in found], found, len(x))

    def jacobian(self, x):
        """Return d natural / d x; no step takes an sd through zero, where its size has a kink."""
        return jacobian(self.natural, x, np.min(abs(x[self._signed]) / 3, initial=1e-3))

    def _sd_coordinates(self):
        """Return the coordinates of the sds that have a sign."""
        found, at = [], len(self.posterior.beta0)
        for k, block in enumerate(self.posterior.blocks):
            if self.integrated:
                scales, first = self.posterior.scales[k], at
                at += len(scales) + sum(s * (s - 1) // 2 for s in block.parts)
            else:
                scales, first = block.scales, block.first_sd
            found += [first + j for j, scale in enumerate(scales) if scale.turn]
        return np.array(found, dtype=int)


def _flat(variables, found, n):
    """Return n draws of variables as rows; of correlation matrices the lower triangle."""
    pieces = [np.empty((n, 0))]
    for variable in variables:
        value = np.asarray(found[variable.name])
        if variable.kind == "cor":
            row, column = np.tril_indices(value.shape[-1], -1)
            value = value[..., row, column]
        pieces.append(value.reshape(n, -1))
    return np.concatenate(pieces, axis=1)


def jacobian(function, x, step=1e-3):
    """Return d function / d x to the fourth order, from one call at many points."""
    at = np.array([k * step * e for e in np.eye(len(x)) for k in (1, -1, 2, -2)])
    values = np.asarray(function(x + at)).reshape(len(x), 4, -1)
    return ((8 * (values[:, 0] - values[:, 1]) - (values[:, 2] - values[:, 3])) / (12 * step)).T


class PymcDensity:
    """Log density of the same parameters from the PyMC model, at its own random variables.

    The random variables stand for themselves, without the transforms that a sampler wants. Graphs
    are evaluated in plain Python: of a density that is used a few times, compiling is all the time.
    """

    def __init__(self, model):
        import pytensor
        from pytensor.compile.mode import Mode

        self.design = design = model.design
        self.priors = resolve_priors(design)
        self.parameters = [v for v in design.variables if v.kind != "group"]
        how = {"mode": Mode(linker="py", optimizer=None), "on_unused_input": "ignore"}
        with pytensor.config.change_flags(cxx="", traceback__limit=0):
            pm_model = self.model = model.build(centered=True)
            for variable in pm_model.free_RVs:
                own = variable.type.make_variable(variable.name)
                del pm_model.values_to_rvs[pm_model.rvs_to_values[variable]]
                pm_model.values_to_rvs[own] = variable
                pm_model.rvs_to_values[variable] = own
                pm_model.rvs_to_transforms[variable] = None
            inputs = [pm_model.rvs_to_values[v] for v in pm_model.free_RVs]
            wanted = pm_model.replace_rvs_by_values([pm_model[v.name] for v in self.parameters])
            outputs = [pm_model.logp(), *wanted]
            self._both = pm_model.compile_fn(outputs, inputs=inputs, point_fn=False, **how)

    def at(self, found):
        """Return the log density of random variables at parameters and effects, and parameters."""
        values = []
        for variable in self.model.free_RVs:
            name, _, label = variable.name.partition("[")
            value = self._random_variable(name, label.removesuffix("]"), found)
            values.append(np.asarray(value, dtype=float))
        total, *parameters = self._both(*values)
        names = [v.name for v in self.parameters]
        return float(total), dict(zip(names, parameters, strict=True))

    def log_jacobian(self, found):
        """Return log |d (parameters, effects) / d random variables|, to a constant.

        A correlation matrix R = LL' has |dR / dL| = prod L_ii^(n - i); effects are themselves, or
        factor @ z; coefficients are centred ones less a multiple of others.
        """
        total = 0.0
        for p in self.design.predictors:
            for block in p.blocks if self.design.spec.pooling == "partial" else ():
                cor = found.get(p.named(f"cor_{block.group}"), np.eye(len(block.columns)))
                L = np.diagonal(np.linalg.cholesky(cor))
                for part in block.slices:
                    own = L[part]
                    total += np.arange(len(own))[::-1] @ np.log(own)
                if p.name:
                    sd = found[p.named(f"sd_{block.group}")]
                    total += len(block.levels) * np.log(sd * L).sum()
        return total

    def _random_variable(self, name, label, found):
        for p in self.design.predictors:
            own = self.priors.predictor(p.name)
            if name == p.named("beta_centered") or (
                name == p.named("beta") and own.centered_intercept
            ):
                beta = found[p.named("beta")]
                centred = beta + own.constant * (own.x_means @ beta)
                return centred[list(p.terms).index(label)] if label else centred
            if name == p.named("beta") and label:
                return found[name][list(p.terms).index(label)]
            for block in p.blocks:
                sd = p.named(f"sd_{block.group}")
                if name == sd and label:
                    return found[sd][list(block.columns).index(label)]
                b = p.named(f"b_{block.group}")
                if name == b and label:
                    return found[b][:, list(block.columns).index(label)]
                if name in (p.named(f"chol_{block.group}"), p.named(f"z_{block.group}")):
                    cor = found.get(p.named(f"cor_{block.group}"), np.eye(len(block.columns)))
                    if name.endswith(f"z_{block.group}") and name == p.named(f"z_{block.group}"):
                        factor = found[sd][:, None] * np.linalg.cholesky(cor)
                        return np.linalg.solve(factor, found[b].T).T
                    part = block.slices[int(label)] if label else slice(None)
                    return np.linalg.cholesky(cor[part, part])
        if name == "cutpoints_centered":
            return found["cutpoints"] - self.priors.x_means @ found["beta"]
        return found[name]


def log_det(matrix):
    return np.linalg.slogdet(matrix)[1]


def compare(case, start=0, points=3):
    """Return how far the kernel is from PyMC: of differences of log densities, and of slopes.

    Both are densities of the same parameters; each is turned into the density of the parameters
    themselves by the Jacobian of its coordinates. Integrated effects are put back by
    p(y, theta) = p(y, b, theta) / p(b | y, theta), at the conditional means of b.
    """
    model = make_model(case)
    design = model.design
    with one_blas_thread():
        theirs = PymcDensity(model)
        return [
            _compare_one(ours, theirs, np.random.default_rng(start), points)
            for ours in kernels_of(design)
        ]


def kernels_of(design):
    """Return the density of every kernel that takes a model."""
    kernels = [KernelDensity(design)]
    if kernels[0].integrated and rows_cover(design, resolve_priors(design)) == "":
        kernels.append(KernelDensity(design, rows=True))
    return kernels


def beside(ours, theirs, x):
    """Return parameters here and there, PyMC's density, and what makes it one of x."""
    found, conditional = ours.at(x), 0.0
    if ours.integrated:
        found, conditional = _with_effects(ours.design, found)
    total, there = theirs.at(found)
    rest = log_det(ours.jacobian(x)) - theirs.log_jacobian(found) - conditional
    return found, there, total, rest


def log_sizes(design, found):
    """Return the largest |log| of precisions, shapes and degrees of freedom with own formulas."""
    sizes = [0.0]
    for p in design.predictors:
        if p.name in PARAMETERS and PARAMETERS[p.name].link == "log":
            eta = p.X @ found[p.named("beta")] if p.terms else np.zeros(len(design.y))
            for block in p.blocks:
                eta = eta + (block.Z * found[p.named(f"b_{block.group}")][block.index]).sum(axis=1)
            sizes.append(np.abs(eta).max())
    return max(sizes)


def centre_of(ours):
    """Return the kernel's start, nearer to zero where a precision there is out of all measure.

    Of log gamma(a + b) - log gamma(a) - log gamma(b) at 1e10 PyMC has no digit left.
    """
    x = ours.posterior.start
    for _ in range(20):
        if ours.integrated or log_sizes(ours.design, ours.at(x)) < 10:
            return x
        x = x / 2
    raise AssertionError("precisions out of all measure")


def _compare_one(ours, theirs, rng, points):
    post, differences, centre = ours.posterior, [], centre_of(ours)
    assert np.isfinite(post.log_density(post.start)[0]), "the kernel's density at its start"

    for share in np.linspace(1, 0, points):  # the last point is the centre
        x = centre + 0.15 * share * rng.normal(size=post.dim)
        value, gradient = post.log_density(x)
        found, there, total, rest = beside(ours, theirs, x)
        if not np.isfinite(value) or not np.isfinite(total):  # a mean that is not positive
            assert np.isfinite(value) == np.isfinite(total)
            continue
        here = _flat(theirs.parameters, found, 1)
        there = _flat(theirs.parameters, there, 1)
        np.testing.assert_allclose(there, here, rtol=1e-6, atol=1e-8)
        differences.append(value - total - rest)
    # At the centre: the slope along a random direction, and the gradient of the kernel itself.
    e = rng.normal(size=post.dim)
    e /= np.linalg.norm(e)
    h = 1e-3
    up, down, up2, down2 = (
        sum(beside(ours, theirs, x + t * e)[2:]) for t in (h, -h, 2 * h, -2 * h)
    )
    slope = (8 * (up - down) - (up2 - down2)) / (12 * h)
    own = central_difference(lambda v: post.log_density(v)[0], x, 1e-5)
    return {
        "density": np.ptp(differences) / max(1.0, abs(value)),
        "slope": abs(gradient @ e - slope) / max(1.0, np.abs(gradient).max()),
        "own": np.abs(own - gradient).max() / max(1.0, np.abs(gradient).max()),
        "points": len(differences),
        "dim": post.dim,
        "integrated": ours.integrated,
    }


def _with_effects(design, found):
    if not design.blocks or design.spec.pooling != "partial":
        return found, 0.0
    means, log_density = conditional_effects(design, {"sigma": 1.0, **found})
    return {**found, **{f"b_{g}": m for g, m in means.items()}}, log_density
