"""What Kubernetes and OpenShift are to read, judged by the schemas that Kubernetes publishes; unknown keys fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from tests.each import each
from tests.unit.states import per_container
from usernsplan import Allocation, IdMap, IdRange, Mapping, Mount, RenderContext, render

if TYPE_CHECKING:
    from types import ModuleType

SCHEMAS: ModuleType = kubernetes_validate
# The first version that has pod.spec.hostUsers as its users get it today, and the last that is known.
VERSIONS = ("1.30", SCHEMAS.latest_version())
SINGLE = Allocation(
    "web",
    "usernsplan-web",
    "single-uid",
    Mapping(*[IdMap.of((0, 1000820000, 1))] * 2),
    IdRange(1000820000, 10000),
)
MOUNTS = (Mount("/srv/a", "/data"), Mount("/srv/b c", "/more", read_only=True))


def document(
    engine: str, allocation: Allocation, asked: RenderContext | None = None
) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(render(engine, allocation, asked).text)
    return found


@each("version", VERSIONS)
@each("allocation", [per_container("web", 589824), SINGLE])
@each(
    "asked",
    [RenderContext(), RenderContext(mounts=MOUNTS, image="nginx")],
)
def test_a_pod_is_one_to_kubernetes(
    version: str, allocation: Allocation, asked: RenderContext
) -> None:
    SCHEMAS.validate(document("kubernetes", allocation, asked), version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_project_is_a_namespace_to_kubernetes(version: str) -> None:
    SCHEMAS.validate(document("openshift", SINGLE), version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_pod_for_restricted_v3_is_one_to_kubernetes(version: str) -> None:
    pod = document("openshift", per_container("web", 589824), RenderContext(image="nginx"))
    SCHEMAS.validate(pod, version, strict=True)
    # What OpenShift's SCC of that name demands: a user namespace, and ids from 1000 to 65534.
    assert pod["metadata"]["annotations"] == {"openshift.io/required-scc": "restricted-v3"}
    assert pod["spec"]["hostUsers"] is False
    context = pod["spec"]["securityContext"]
    assert all(1000 <= context[key] <= 65534 for key in ("runAsUser", "runAsGroup", "fsGroup"))


def test_the_schema_would_object() -> None:
    pod = document("kubernetes", SINGLE)
    pod["spec"]["hostUser"] = False
    with pytest.raises(SCHEMAS.ValidationError, match="hostUser"):
        SCHEMAS.validate(pod, VERSIONS[0], strict=True)
