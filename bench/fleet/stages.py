"""Writes kwok's configuration files ("stages"): when kwok reports that a pod starts, succeeds or fails."""

import json
from pathlib import Path

from bench.scale.api import Json

FAILING_PERCENT = 5
"""Percentage of pods that fail, as if the trainer crashed. The Job controller replaces these pods."""


def write(folder: Path, *, ending_seconds: float | None) -> Path:
    """Write kwok's configuration of the pods' stages into a file in ``folder``. Return the file's path.

    Pods start at once, and end within ``ending_seconds`` seconds. None: they never end. Pods that succeed end
    at moments that are evenly distributed over this time. Pods that fail end in the first quarter of this
    time, because the Job controller starts a new pod for each of them.
    """
    # kwok manages only the pods of nodes that have a stage themselves.
    stages = [_stage("node", _NOT_RUNNING, "phase: Running", kind="Node")]
    stages += [_stage("pod-start", _PENDING, _STARTED), _stage("pod-delete", _DELETED, None)]
    if ending_seconds is not None:
        stages += [
            _stage("pod-end", _RUNNING, _ended(0), seconds=ending_seconds, weight=100 - FAILING_PERCENT),
            _stage("pod-fail", _RUNNING, _ended(1), seconds=ending_seconds / 4, weight=FAILING_PERCENT),
        ]
    path = folder / ("stages-start.yaml" if ending_seconds is None else "stages-end.yaml")
    path.write_text("\n---\n".join(map(json.dumps, stages)))  # JSON is valid YAML
    return path


_NOT_RUNNING: list[Json] = [{"key": ".status.phase", "operator": "NotIn", "values": ["Running"]}]
_THERE: Json = {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}
_PENDING = [_THERE, {"key": ".status.phase", "operator": "In", "values": ["Pending"]}]
_RUNNING = [_THERE, {"key": ".status.phase", "operator": "In", "values": ["Running"]}]
_DELETED: list[Json] = [{"key": ".metadata.deletionTimestamp", "operator": "Exists"}]

_STARTED = """
conditions:
- {type: Initialized, status: "True", lastTransitionTime: {{ Now | Quote }}}
- {type: Ready, status: "True", lastTransitionTime: {{ Now | Quote }}}
- {type: ContainersReady, status: "True", lastTransitionTime: {{ Now | Quote }}}
containerStatuses:
{{ range .spec.containers }}
- image: {{ .image | Quote }}
  imageID: x
  name: {{ .name | Quote }}
  ready: true
  started: true
  restartCount: 0
  state: {running: {startedAt: {{ Now | Quote }}}}
{{ end }}
initContainerStatuses:
{{ range .spec.initContainers }}
- image: {{ .image | Quote }}
  imageID: x
  name: {{ .name | Quote }}
  ready: true
  restartCount: 0
{{ if eq .restartPolicy "Always" }}
  started: true
  state: {running: {startedAt: {{ Now | Quote }}}}
{{ else }}
  state:
    terminated:
      exitCode: 0
      reason: Completed
      startedAt: {{ Now | Quote }}
      finishedAt: {{ Now | Quote }}
{{ end }}
{{ end }}
phase: Running
startTime: {{ Now | Quote }}
"""


def _ended(code: int) -> str:
    phase, reason = ("Succeeded", "Completed") if code == 0 else ("Failed", "Error")
    return f"""
containerStatuses:
{{{{ range .spec.containers }}}}
- image: {{{{ .image | Quote }}}}
  imageID: x
  name: {{{{ .name | Quote }}}}
  ready: false
  started: false
  restartCount: 0
  state:
    terminated:
      exitCode: {code}
      reason: {reason}
      startedAt: {{{{ Now | Quote }}}}
      finishedAt: {{{{ Now | Quote }}}}
{{{{ end }}}}
phase: {phase}
"""


def _stage(
    name: str,
    matching: list[Json],
    status: str | None,
    *,
    seconds: float = 0.0,
    weight: int = 1,
    kind: str = "Pod",
) -> Json:
    following: Json = {"delete": True} if status is None else {"statusTemplate": status}
    spec: Json = {
        "resourceRef": {"apiGroup": "v1", "kind": kind},
        "selector": {"matchExpressions": matching},
        "weight": weight,
        "next": following,
    }
    if seconds:
        # kwok draws the delay between these two values. With the first value alone the delay would be
        # constant.
        spec["delay"] = {"durationMilliseconds": 1, "jitterDurationMilliseconds": int(seconds * 1000)}
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": spec,
    }
