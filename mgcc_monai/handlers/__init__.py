"""Handlers for the ignite engines of MONAI."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checkpoint": ["ResumableCheckpoint"],
        "clip": ["GradientClipping"],
        "detail": ["DetailPhase"],
        "discriminator": ["DiscriminatorStep"],
        "ema": ["EMA"],
        "ending": ["TrainingEnd"],
        "finite_guard": ["FiniteGuard"],
        "load_weights": ["LoadWeights"],
        "memory": ["OutOfMemory", "is_out_of_memory"],
        "preemption": ["Preempted"],
        "preview": ["ReconstructionPreview", "SamplePreview"],
        "progress": ["BatchProgress", "TrainingProgress"],
        "seed": ["IterationSeed"],
        "training_log": ["TrainingLog"],
        "training_run": ["TrainingRun"],
    },
)
