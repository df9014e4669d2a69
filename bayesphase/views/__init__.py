"""From a metrics Dataset to features: select, aggregate, standardize, PCA."""

from bayesphase.views.aggregation import aggregate
from bayesphase.views.components import pca
from bayesphase.views.overlap import subspace_overlap
from bayesphase.views.scaling import ConstantMetricWarning, standardize
from bayesphase.views.selection import WEIGHT_METRICS, MetricLeftOutWarning, features
from bayesphase.views.turning import turning_points

__all__ = [
    "WEIGHT_METRICS",
    "ConstantMetricWarning",
    "MetricLeftOutWarning",
    "aggregate",
    "features",
    "pca",
    "standardize",
    "subspace_overlap",
    "turning_points",
]
