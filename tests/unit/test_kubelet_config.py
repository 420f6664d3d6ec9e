"""KubeletConfiguration: the two keys that count, in everything that the kubelet takes for YAML."""

from __future__ import annotations

import pytest

from tests.each import each
from usernsplan.errors import InvalidFileError
from usernsplan.formats.kubelet_config import KubeletConfig, parse

# As kubeadm writes it, shortened.
KUBEADM = b"""\
apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
clusterDNS:
- 10.96.0.10
cpuManagerReconcilePeriod: 0s
kind: KubeletConfiguration
logging:
  flushFrequency: 0
memorySwap: {}
"""


@each(
    ("raw", "found"),
    [
        (b"", KubeletConfig()),
        (b"# nothing\n", KubeletConfig()),
        (KUBEADM, KubeletConfig()),
        (
            KUBEADM + b"maxPods: 250\nuserNamespaces:\n  idsPerPod: 131072\n",
            KubeletConfig(131072, 250, 14),
        ),
        (b'{"kind": "KubeletConfiguration", "maxPods": 7}', KubeletConfig(None, 7)),
        (b'{"userNamespaces": {"idsPerPod": 65536}}', KubeletConfig(65536, None, 1)),
        (b"userNamespaces:\nmaxPods: null\n", KubeletConfig()),
        (b"userNamespaces: {other: 5}\n", KubeletConfig()),
    ],
)
def test_what_a_file_sets(raw: bytes, found: KubeletConfig) -> None:
    assert parse(raw, "config.yaml") == found


@each(
    ("raw", "said"),
    [
        (b"userNamespaces:\n  idsPerPod: 100000\n", ":2: userNamespaces.idsPerPod: 100000 is not"),
        (b"userNamespaces: {idsPerPod: 0}\n", ":1: userNamespaces.idsPerPod: 0 is not"),
        (b"userNamespaces: {idsPerPod: 4294967296}\n", "4294967296 is not"),
        (b"userNamespaces: {idsPerPod: '65536'}\n", "is not a whole number"),
        (b"userNamespaces: {idsPerPod: 0x10000}\n", "not a plain decimal number"),
        (b"userNamespaces: 65536\n", ":1: userNamespaces: expected keys and values"),
        (b"- maxPods\n", ":1: userNamespaces: expected keys and values"),
        (b"maxPods: -1\n", ":1: maxPods: -1"),
        (b"maxPods: 1\nmaxPods: 2\n", ":2: maxPods: duplicate key"),
        (b"maxPods: [\n", "not YAML"),
        (b"\xff\n", "not UTF-8"),
        (b"a: &a [1]\nb: *a\n", "stands for more than one value"),
    ],
)
def test_what_the_kubelet_may_read_otherwise_is_an_error(raw: bytes, said: str) -> None:
    with pytest.raises(InvalidFileError) as caught:
        parse(raw, "config.yaml")
    assert said in str(caught.value)
