"""Metrics per image, intervals over groups, tables and overlays."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cases": ["CaseMetricsHandler"],
        "lesions": ["LesionTableHandler"],
        "metrics": ["case_metrics"],
        "overlays": ["OverlayHandler"],
        "probability": ["LesionProbabilityd"],
        "statistics": ["bootstrap_mean"],
        "threshold": ["BestThresholdHandler", "DiceByThreshold"],
        "timestep_loss": ["TimestepBandLoss"],
    },
)
