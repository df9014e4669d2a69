"""From a metrics Dataset to features: select, aggregate, standardize, PCA."""

from bayesphase.views.aggregation import aggregate
from bayesphase.views.components import pca
from bayesphase.views.scaling import ConstantMetricWarning, standardize
from bayesphase.views.selection import WEIGHT_METRICS, MetricLeftOutWarning, features

__all__ = [
    "WEIGHT_METRICS",
    "ConstantMetricWarning",
    "MetricLeftOutWarning",
    "aggregate",
    "features",
    "pca",
    "standardize",
]
