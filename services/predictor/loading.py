"""From a version in the registry to a model that is ready to answer: package checked, session made and warmed up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelmill.declare import applied
from modelmill.declare.features import RequestFeature
from modelmill.errors import PackageError, printable
from modelmill.packages import package
from modelmill.packages.package import Manifest
from modelmill.packages.sessions import TENSORS, Session, open_package, require_same
from modelmill.state.connections import AWAY, Redis
from modelmill.state.events import utc_now
from modelmill.state.registry import Registry
from modelmill.storage import Storage
from services.predictor.inference import infer, tensors
from services.predictor.live import ServedModel
from services.predictor.signature import NO_FUNCTIONS, Signature


def load(registry: Registry, storage: Storage, model: str, version: int) -> ServedModel:
    """Load a version of `model`.

    Raises:
        PackageError: for a package with a missing or altered file, whose graph, estimator or functions are not what
            its manifest says, or whose estimator is made of types that are not trusted.
        UnknownName: for a version that the registry does not have.
    """
    folder = registry.version(model, version).package
    manifest, content = package.read(storage, folder)
    try:
        functions = _functions(registry.redis, manifest)
        session = open_package(registry.redis, manifest, content)
        return warmed_up(model, version, manifest, session, functions)
    except AWAY:
        raise
    except (Exception, SystemExit) as error:  # neither ONNX Runtime's nor scikit-learn's errors have a common root
        reason = f"{type(error).__name__}: {printable(error)}"
        raise PackageError(f"package {folder} cannot be served: {reason}", package=folder) from error


def _functions(redis: Redis, manifest: Manifest) -> Mapping[str, RequestFeature]:
    """The functions of computed inputs, from the definitions that the version was trained with, as they were applied.

    Raises:
        UnknownName, DefinitionsError: where these were never applied, or cannot be run here.
        ValueError: for a function that is not the one that the version was trained with.
    """
    computed = [item for item in manifest.inputs if item.needs is not None]
    if not computed:
        return {}
    declared = applied.load(redis, manifest.definitions).request_features
    for item in computed:
        found = declared[item.name].version if item.name in declared else None
        if found != item.version:
            raise ValueError(
                f"request feature {item.name!r} of definitions {manifest.definitions[:8]} is version {found}, but the"
                f" model was trained with {item.version}; train again"
            )
    return declared


def warmed_up(
    name: str,
    version: int,
    manifest: Manifest,
    session: Session,
    functions: Mapping[str, RequestFeature] = NO_FUNCTIONS,
) -> ServedModel:
    """A model that has answered once: its manifest's example, as it did when it was packed.

    Raises:
        ValueError: where its answer, or what it takes, is not what the manifest says.
    """
    outputs = [item.name for item in session.get_outputs()]
    has_probabilities = manifest.task == "classification" and len(outputs) > 1
    model = ServedModel(
        name=name,
        version=version,
        manifest=manifest,
        signature=Signature.of(manifest, functions),
        session=session,
        tensors=_tensors(manifest, session),
        outputs=outputs,
        labels={} if manifest.labels else {label: label for label in manifest.classes},
        class_names=() if manifest.labels or not has_probabilities else tuple(map(_class_name, manifest.classes)),
        label_classes={
            label: tuple(map(_class_name, classes))
            for label, classes in zip(manifest.labels, manifest.classes, strict=False)
        },
        loaded=utc_now(),
    )
    example = [[manifest.example[item.name] for item in manifest.inputs]]
    infer(model, example)
    if manifest.answer:
        require_same(manifest, session.run(model.outputs, tensors(model, example)))
    return model


def _tensors(manifest: Manifest, session: Session) -> Mapping[str, Any]:
    types = {item.name: item.type for item in session.get_inputs()}
    if unknown := set(types.values()) - TENSORS.keys():
        raise ValueError(f"it takes {', '.join(sorted(unknown))}; expected {', '.join(TENSORS)}")
    if manifest.layout == "matrix" and len(types) != 1:
        raise ValueError(f"it has the inputs {', '.join(types)}; expected one, with the layout matrix")
    if manifest.layout == "columns" and types.keys() != {item.name for item in manifest.inputs}:
        expected = ", ".join(item.name for item in manifest.inputs)
        raise ValueError(f"it has the inputs {', '.join(types)}; expected {expected}")
    return {name: TENSORS[kind] for name, kind in types.items()}


def _class_name(label: object) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)
