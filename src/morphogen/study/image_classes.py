"""What a study needs of the classes of its images, before anything trains."""

from __future__ import annotations

from morphogen.errors import InputError
from morphogen.sampling.gates import CLASSIFIED
from morphogen.study.arms import arm
from morphogen.study.bench import Bench
from morphogen.study.kinds import classifiers_among


def refuse_classes(bench: Bench) -> None:
    """Refuse images without a class where a judge, an arm or a gate needs one, and parts of a split that lack a class.

    Raises:
        InputError: There are such.
    """
    from morphogen.classifiers.labels import class_ids, classes_of

    config, judges = bench.config, classifiers_among(bench.config.judges)
    needing = [f"--judges {judge}" for judge in judges]
    needing += [f"--arms {name}" for name in config.arms if "oversampled" in arm(name).parts]
    needing += [f"--gates {gate}" for gate in config.gates if gate in CLASSIFIED]
    if not needing:
        return
    try:
        classes = classes_of([bench.dataset])
    except InputError as error:
        raise InputError(f"{needing[0]}: {error}") from None
    for repetition in bench.splits.repetitions:
        for part, ids in (("training", repetition.train), ("test", repetition.test)):
            present = {record.label for record in bench.dataset.select(ids)}
            for name in (name for name in classes if name not in present):
                fault = f"the {part} part of {repetition.label} holds no image of class {name!r}"
                raise InputError(f"{needing[0]}: {config.data}: {fault}; annotate more, or leave that class out")
    for dataset in bench.tests.values() if judges else ():
        class_ids(dataset, classes)
