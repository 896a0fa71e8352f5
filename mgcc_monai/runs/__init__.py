"""Running the bundle: options, checks before a run, its record, and all stages by one command."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["config", "options", "preflight"],
    submod_attrs={
        "best_weights": ["BestWeights", "install_weights"],
        "config": ["written"],
        "preflight.table": ["check"],
        "record": ["RunRecord"],
        "settings": ["build", "bundle_folder", "config_folder", "own_weights", "read_run", "read_settings", "resize"],
        "show": ["show_run"],
        "tracking": ["run_name", "track"],
    },
)
