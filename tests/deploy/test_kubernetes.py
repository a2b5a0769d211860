"""deploy/kubernetes: valid manifests that fit together, and the container as a process of this host."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from tests.conftest import MakeJob, MakeToken
from tests.deploy.container_processes import ContainerProcess, image_entrypoint, image_environment
from tests.eventually import pause, until
from tests.programs.external_programs import needs, run
from tests.programs.ports import free_port
from tests.programs.service_runner import PROJECT, Service
from tests.storage.state.secrets_folders import KubernetesSecret

FOLDER: Final = PROJECT / "deploy" / "kubernetes"
KUSTOMIZATION: Final[dict[str, Any]] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text("utf-8"))
OPTIONAL: Final = "service-monitor.yaml"
"""Its kind is none of Kubernetes' own."""
VERSIONS: Final = ("1.30", "1.37")
START_TIMEOUT_S: Final = 40.0

Manifest = dict[str, Any]


def manifests() -> dict[str, Manifest]:
    """Return the resources by kind."""
    files = [FOLDER / name for name in (*KUSTOMIZATION["resources"], OPTIONAL)]
    found = [yaml.safe_load(file.read_text("utf-8")) for file in files]
    return {manifest["kind"]: manifest for manifest in found}


ALL: Final = manifests()
POD: Final[Manifest] = ALL["Deployment"]["spec"]["template"]["spec"]
CONTAINER: Final[Manifest] = POD["containers"][0]
CONFIG: Final = tomllib.loads((FOLDER / "jobsvc.toml").read_text("utf-8"))


def test_folder_has_no_other_manifest() -> None:
    expected = {*KUSTOMIZATION["resources"], "kustomization.yaml", OPTIONAL}
    assert {file.name for file in FOLDER.glob("*.yaml")} == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_have_only_fields_that_kubernetes_knows(version: str) -> None:
    for kind, manifest in ALL.items():
        if kind != "ServiceMonitor":
            kubernetes_validate.validate(manifest, version, strict=True)


@needs("kubectl")
async def test_kustomize_builds_valid_manifests() -> None:
    done = await run("kubectl", "kustomize", FOLDER)
    assert done.exit_code == 0, done.stderr
    built = {manifest["kind"]: manifest for manifest in yaml.safe_load_all(done.stdout)}
    assert built.keys() == {*ALL, "ConfigMap"} - {"ServiceMonitor"}
    for manifest in built.values():
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)
    pod = built["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "registry.example.com/jobsvc:0.1.0"
    config = next(volume["configMap"] for volume in pod["volumes"] if "configMap" in volume)
    assert config["name"] == built["ConfigMap"]["metadata"]["name"]


def test_all_selectors_match_the_pods() -> None:
    labels = ALL["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert ALL["Service"]["spec"]["selector"] == labels
    assert ALL["Service"]["metadata"]["labels"] == labels
    for selector in (
        ALL["Deployment"]["spec"]["selector"],
        ALL["PodDisruptionBudget"]["spec"]["selector"],
        ALL["NetworkPolicy"]["spec"]["podSelector"],
        ALL["ServiceMonitor"]["spec"]["selector"],
        *(constraint["labelSelector"] for constraint in POD["topologySpreadConstraints"]),
    ):
        assert selector == {"matchLabels": labels}


def test_all_ports_lead_to_the_container() -> None:
    (port,) = CONTAINER["ports"]
    (service_port,) = ALL["Service"]["spec"]["ports"]
    assert service_port["targetPort"] == port["name"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert CONTAINER[probe]["httpGet"]["port"] == port["name"]
    (rule,) = ALL["Ingress"]["spec"]["rules"]
    for path in rule["http"]["paths"]:
        assert path["backend"]["service"] == {
            "name": ALL["Service"]["metadata"]["name"],
            "port": {"name": service_port["name"]},
        }
    assert ALL["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0]["port"] == port["name"]
    assert ALL["ServiceMonitor"]["spec"]["endpoints"][0]["port"] == service_port["name"]


def test_ingress_passes_only_the_page_and_the_api_on() -> None:
    (rule,) = ALL["Ingress"]["spec"]["rules"]
    paths = {path["path"]: path["pathType"] for path in rule["http"]["paths"]}
    assert paths == {"/": "Exact", "/ui/": "Prefix", "/api/": "Prefix"}


def test_links_have_the_host_of_the_ingress() -> None:
    (rule,) = ALL["Ingress"]["spec"]["rules"]
    assert CONFIG["public-url"] == f"https://{rule['host']}"


def test_each_volume_is_mounted_and_only_the_state_is_writable() -> None:
    mounts = {mount["name"]: mount for mount in CONTAINER["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in POD["volumes"]}
    writable = [mount["mountPath"] for mount in mounts.values() if not mount.get("readOnly")]
    assert writable == [image_environment()["JOBSVC_STATE_DIR"]]
    claim = next(v["persistentVolumeClaim"] for v in POD["volumes"] if "persistentVolumeClaim" in v)
    assert claim == {"claimName": ALL["PersistentVolumeClaim"]["metadata"]["name"], "readOnly": True}


def test_pod_meets_the_restricted_security_standard_that_the_namespace_enforces() -> None:
    """See "Pod Security Standards" in the documentation of Kubernetes."""
    labels = ALL["Namespace"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = CONTAINER["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["readOnlyRootFilesystem"] is True


def test_pod_is_not_killed_before_its_downloads_have_had_their_time() -> None:
    program, pause = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert POD["terminationGracePeriodSeconds"] > float(pause) + CONFIG["shutdown-grace"] + 10


@pytest.fixture
def token(make_token: MakeToken) -> str:
    return make_token()


@pytest.fixture
def container(tmp_path: Path, jobs_root: Path, state_dir: Path, token: str) -> ContainerProcess:
    """The container with the pod's volumes: a mounted secret, and a new emptyDir for its group."""
    secret = KubernetesSecret(tmp_path / "secrets")
    secret.replace(
        {"tokens.json": (state_dir / "tokens.json").read_bytes(), "link.key": token_hex(32).encode()}
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty").chmod(0o2777)
    paths = {
        "/etc/jobsvc": tmp_path / "config",
        "/secrets": tmp_path / "secrets",
        "/jobs": jobs_root,
        "/var/lib/jobsvc": tmp_path / "empty",
    }
    assert paths.keys() == {mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    paths["/etc/jobsvc"].mkdir()
    config = (FOLDER / "jobsvc.toml").read_text("utf-8").replace('"/secrets"', f'"{paths["/secrets"]}"')
    (paths["/etc/jobsvc"] / "jobsvc.toml").write_text(config, "utf-8")
    return ContainerProcess(
        [*image_entrypoint(), *CONTAINER["args"]],
        {**image_environment(), **dict(_variables())},
        paths,
        tmp_path / "out",
        {"JOBSVC_PORT": str(free_port())},
    )


def _variables() -> Iterator[tuple[str, str]]:
    """Yield the variables of the container in a pod, without the optional secret."""
    for variable in CONTAINER["env"]:
        source = variable["valueFrom"]
        if source == {"fieldRef": {"fieldPath": "metadata.name"}}:
            yield variable["name"], "jobsvc-5d4f-x7k2p"
        else:
            assert source["secretKeyRef"]["optional"], variable


async def test_container_serves_jobs_and_answers_its_probes(
    container: ContainerProcess, make_job: MakeJob, token: str, tmp_path: Path
) -> None:
    make_job(output=b"a film")
    service = Service(int(container.host_environment["JOBSVC_PORT"]), tmp_path / "empty", token)
    with container.running() as process:
        await until(lambda: b'"serving"' in container.output.read_bytes() or process.poll(), START_TIMEOUT_S)
        assert process.poll() is None, container.output.read_text()
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            await _wait_for_success(service, CONTAINER[probe]["httpGet"]["path"])
        assert (await service.download("job-1")).body == b"a film"
    assert process.returncode == 0
    assert (tmp_path / "empty" / "downloads-jobsvc-5d4f-x7k2p.jsonl").exists()


async def _wait_for_success(service: Service, path: str) -> None:
    """Repeat a probe until it succeeds, as the kubelet does."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while (await service.get(path, token=None)).status != 200:
            await pause()
