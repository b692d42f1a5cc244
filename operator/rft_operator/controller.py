"""One reconciliation of one RFTJob: read, decide, write the status, then change the child objects."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from rft_api.job import RFTJob, RFTJobSpec
from rft_api.lifecycle import Stop
from rft_api.validation import CheckResult, check
from rft_operator import metrics
from rft_operator.cluster import Cluster, ClusterError, Conflict, NotFound, NotLeading
from rft_operator.cpu_limits import CpuLimits
from rft_operator.decision import ChildKind, Decision
from rft_operator.events import WarningEvents
from rft_operator.informer import InformerCache
from rft_operator.ingest.cache import Chains
from rft_operator.ingest.identity import callers
from rft_operator.ingest.reports import Reports
from rft_operator.logs import LINES, last_lines
from rft_operator.nodes import PLACING_SECONDS, Nodes
from rft_operator.objects.config import CA_KEY, ca_config_map, claim, config_map, run_config
from rft_operator.objects.job import child_job
from rft_operator.objects.names import Owner, owner_of
from rft_operator.objects.platform import Platform
from rft_operator.objects.pod import Image
from rft_operator.observe import (
    Observed,
    RawState,
    observe,
    refreshed,
    waits_for_a_node,
    with_claim,
)
from rft_operator.obstacles import needed
from rft_operator.queue import Key
from rft_operator.reconcile import baseline_to_read, reconcile
from rft_operator.recorder import EventRecorder
from rft_operator.server import Servers
from rft_operator.settings import Settings
from rft_operator.status import merge_patch
from rft_operator.workloads import Workloads
from rft_planner.kind_labels import extended
from rft_run.cluster_text import ClusterObject
from rft_run.config import TRAINER_CONTAINER
from rft_run.report import ReportAnswer

_log = logging.getLogger(__name__)
AGAIN_AFTER_CONFLICT_SECONDS = 0.2
Request = Callable[[dict[str, Any]], dict[str, Any]]
"""A function that sends a manifest to the API server. It creates the object and returns it, or it makes a dry
run and returns the manifest."""


class NotMade(Exception):
    """The API server refused to create a child object. The message is for users; ``error`` is the response of
    the API server.
    """

    def __init__(self, message: str, error: ClusterError) -> None:
        super().__init__(message)
        self.error = error


class Controller:
    """The reconciler of RFTJobs. Its methods block. Several threads may use it, but no two of them may
    process the same key at once. The work queue ensures this.
    """

    def __init__(
        self,
        cluster: Cluster,
        reports: Reports,
        settings: Settings,
        chains: Chains,
        recorder: EventRecorder | None = None,
    ) -> None:
        """Make a controller with an empty cache.

        - ``chains``: a cache that maps pods to their RFTJobs. The controller fills it for the ingest, the
          server that receives the trainers' reports. So the ingest need not read these objects.
        - ``recorder``: posts the Events in threads of its own. None: each reconciliation posts its Events
          itself, and waits for the answers of the API server.
        """
        self._cluster = cluster
        self._recorder = recorder or EventRecorder(cluster.create, background=False)
        self._chains = chains
        self._reports = reports
        self._settings = settings
        kueue = (cluster.workloads, cluster.pending_workloads) if settings.read_kueue else (None, None)
        self._workloads = Workloads(*kueue)
        self._events = WarningEvents(cluster.obstacles)
        self._cpu_limits = CpuLimits(cluster.quotas, cluster.limit_ranges)
        self._servers = Servers(cluster.server_version, cluster.has_group, settings.assigns_users)
        self._refused: dict[Key, str] = {}
        """For each RFTJob, the message about the last child object that the API server refused to create. It
        is dropped once the creation succeeds."""
        table = extended(settings.accelerator_labels)
        self._nodes = Nodes(cluster.nodes if settings.read_nodes else None, table=table)
        self._nodes_of_pods = Nodes(cluster.nodes if settings.read_nodes else None)
        """A cache of the nodes, used to find out whether the node of a running pod still answers. It is
        separate from ``_nodes``, the cache for plans."""
        self._uids: dict[Key, str] = {}
        self._written: dict[Key, str] = {}
        self._cache = InformerCache()
        self._counts = False
        """Whether the operator counts the failures of pods itself. This is necessary if the API server drops
        a Job's ``podFailurePolicy``.
        """
        self.ca_bundle: str | None = None
        """The CA certificates of the ingest, as PEM text for the ConfigMap of each run. ``None`` if the
        ingest is off."""

    def is_own_write(self, key: Key, version: str) -> bool:
        """Return whether a watch event was caused by the operator's own newest patch of the status.

        ``version`` is the resource version of the RFTJob in the event.
        """
        return self._written.get(key) == version

    def on_update(self, key: Key, document: Mapping[str, Any]) -> None:
        """Cache an RFTJob that a watch delivered. Thread-safe."""
        metrics.JOBS.observe(key, document)
        self._cache.update(key, document)

    def on_delete(self, key: Key) -> None:
        """Drop the cached state of an RFTJob that was deleted. Thread-safe."""
        metrics.JOBS.forget(key)
        self._cache.invalidate(key)

    def on_child_event(
        self, key: Key, pods_version: str = "", *, job_or_pod: bool = False, version: str = ""
    ) -> None:
        """Invalidate the cached children of an RFTJob, because one of them changed. Thread-safe.

        The arguments are those of ``InformerCache.invalidate_children``.
        """
        self._cache.invalidate_children(key, pods_version, job_or_pod=job_or_pod, version=version)

    def process(self, key: Key) -> float | None:
        """Reconcile an RFTJob once. Return the seconds after which to requeue the key, or ``None`` if the key
        is not requeued.

        After a Conflict, the key is requeued after ``AGAIN_AFTER_CONFLICT_SECONDS``. Raises ClusterError if a
        request fails in another way.
        """
        started = time.monotonic()
        try:
            requeue_after = self._reconcile(key)
        except ClusterError as error:
            self._cache.invalidate(key)
            if not isinstance(error, Conflict):
                raise
            # Another client wrote in between, so the cached state was stale. The next reconciliation reads
            # the RFTJob and its children again.
            _log.debug("%s/%s: %s", *key, error)
            metrics.RECONCILES.labels("conflict").inc()
            return AGAIN_AFTER_CONFLICT_SECONDS
        metrics.RECONCILES.labels("done").inc()
        metrics.RECONCILE_SECONDS.observe(time.monotonic() - started)
        return requeue_after

    def _reconcile(self, key: Key) -> float | None:
        """Decide from the cached state of an RFTJob, and write the status.

        If nothing is cached, or if child objects must change, read all child objects and decide again. Return
        the seconds until the next reconciliation, or ``None``, as ``process`` does.
        """
        seen = self._cached(key)
        if seen is not None:
            document, observed = seen
            owner = owner_of(document)
            observed = self._completed(key, replace(observed, received=self._reports.get(owner.uid)))
            checked = check(document)
            decision = self._decide(document, observed, checked)
            if not decision.acts:
                self._publish(key, owner, document, decision)
                return decision.requeue_after
            return self._reconcile_uncached(key, (document, checked))
        return self._reconcile_uncached(key)

    def _cached(self, key: Key) -> tuple[dict[str, Any], Observed] | None:
        """Return the cached RFTJob, and the observed state of its children.

        If the Job and the pods are stale, read them again first. Return ``None`` if all children must be read
        again.
        """
        revision, cached = self._cache.revision(key), self._cache.snapshot(key)
        if cached is None:
            return None
        if not cached.stale:
            return cached.document, cached.observed
        if baseline_to_read(cached.document) is not None:
            return None  # the cache does not notice changes of the baseline, which is another RFTJob
        owner = owner_of(cached.document)
        job, pods = self._cluster.child_and_pods(owner, self._cache.pods_version(key))
        observed = refreshed(owner, cached.observed, job, pods)
        if observed is not None and waits_for_a_node(observed):
            observed = with_claim(owner, observed, self._cluster.claim(owner.namespace, owner.child))
        if observed is None:
            return None
        self._chains.put(*callers(cached.document, observed))
        self._cache.refresh(key, revision, observed)
        return cached.document, observed

    def _reconcile_uncached(
        self, key: Key, known: tuple[dict[str, Any], CheckResult] | None = None
    ) -> float | None:
        """Read the children of an RFTJob, make the decision, and carry it out. If the RFTJob does not exist
        any more, drop what is stored about it.

        Return the seconds until the next reconciliation, or ``None``, as ``process`` does. ``known`` is the
        RFTJob that was already checked in this reconciliation, with the result of the check. If the RFTJob
        has not changed since then, the check is not repeated.
        """
        revision = self._cache.revision(key)
        document = self._cache.job(key) or self._cluster.job(*key)
        if document is None:
            metrics.JOBS.forget(key)
            self._cache.remove(key)
            self._reports.forget(self._uids.pop(key, ""))
            self._workloads.of(key, None)
            self._events.of(key, frozenset())
            self._refused.pop(key, None)
            self._written.pop(key, None)
            return None
        owner = owner_of(document)
        self._uids[key] = owner.uid
        checked = known[1] if known is not None and known[0] == document else check(document)
        self._reports.set_answer(owner.uid, answer_of(checked.job))
        raw = self._read(key, owner, document)
        observed = observe(owner, raw, self.ca_bundle, self._reports.get(owner.uid))
        observed = self._completed(key, replace(observed, refused=self._refused.get(key, "")))
        self._chains.put(*callers(document, observed))
        decision = self._decide(document, observed, checked)
        if observed.child is not None and not decision.acts:
            self._cache.store(key, revision, observed)
        if self._publish(key, owner, document, decision):
            created = self._act(key, owner, raw, decision)
            if created:
                self._cache_created(key, revision, owner, raw, created)
        return decision.requeue_after

    def _cache_created(
        self, key: Key, revision: int, owner: Owner, raw: RawState, created: dict[ChildKind, dict[str, Any]]
    ) -> None:
        """Cache the children of an RFTJob after some of them were created. Then the watch events about the
        created children cause no reads.

        ``raw`` has the children before the creation, and ``created`` has the new ones by their kinds.
        """
        now = replace(
            raw,
            job=created.get(ChildKind.JOB, raw.job),
            config=created.get(ChildKind.CONFIG, raw.config),
            ca=created.get(ChildKind.CA, raw.ca),
            claim=created.get(ChildKind.CLAIM, raw.claim),
        )
        observed = observe(owner, now, self.ca_bundle, None)
        if observed.child is None:
            return
        versions = frozenset(str(made["metadata"]["resourceVersion"]) for made in created.values())
        self._cache.store_created(key, revision, observed, versions)

    def _read(self, key: Key, owner: Owner, document: dict[str, Any]) -> RawState:
        """Read the child objects of an RFTJob, and its baseline: the earlier RFTJob with which it is
        compared. If the status of the RFTJob has no phase, read only the baseline.

        The status is written before the first child is created, so an RFTJob without a phase has no children.
        If children exist nevertheless, creating a child raises a Conflict. The next reconciliation then reads
        all children.
        """
        baseline = baseline_to_read(document)
        if (document.get("status") or {}).get("phase"):
            return self._cluster.state(owner, baseline, self._cache.pods_version(key))
        return RawState(baseline=self._cluster.job(owner.namespace, baseline) if baseline else None)

    def _publish(self, key: Key, owner: Owner, document: dict[str, Any], decision: Decision) -> bool:
        """Write the status and post the Events of a decision. Return whether the RFTJob still exists."""
        exists = self._write_status(key, document, decision.status)
        for note in decision.notes if exists else ():
            self._recorder.record(owner, note)
        return exists

    def _decide(self, document: dict[str, Any], observed: Observed, checked: CheckResult) -> Decision:
        now, seconds = datetime.now(UTC), self._settings.no_progress_seconds
        defaults = self._settings.job_defaults
        decision = reconcile(document, observed, now, seconds, checked, defaults)
        if decision.log_of is None:
            return decision
        lines = self._last_lines(document["metadata"]["namespace"], decision.log_of)
        if not lines:
            return decision
        return reconcile(document, replace(observed, last_lines=lines), now, seconds, checked, defaults)

    def _last_lines(self, namespace: str, pod: str) -> tuple[str, ...]:
        """Return the newest lines of a trainer's log.

        Return no lines if the setting ``read_logs`` is false, or if the log cannot be read.
        """
        if not self._settings.read_logs:
            return ()
        try:
            return last_lines(self._cluster.log(namespace, pod, TRAINER_CONTAINER, LINES))
        except ClusterError as error:
            _log.info("%s/%s: the trainer's log cannot be read: %s", namespace, pod, error)
            return ()

    def poll_workloads(self) -> list[Key]:
        """Read the Kueue Workloads of suspended child Jobs. Return the RFTJobs whose Workload changed."""
        return self._workloads.poll()

    def _with_workload(self, key: Key, observed: Observed) -> Observed:
        """Return ``observed`` with the Kueue Workload of the child Job, if the Job is suspended."""
        waits = observed.child is not None and observed.child.suspended and not observed.child.deleting
        uid = observed.child.uid if observed.child is not None and waits else None
        return replace(observed, workload=self._workloads.of(key, uid))

    def _completed(self, key: Key, observed: Observed) -> Observed:
        """Return ``observed`` with data that explain the state of the pods: nodes, Kueue Workload and
        Events.
        """
        return self._with_events(key, self._with_workload(key, self._with_nodes(observed)))

    def poll_events(self) -> list[Key]:
        """Read the Events that say why pods of waiting jobs do not start. Return the RFTJobs whose Events
        changed.
        """
        return self._events.poll()

    def _with_events(self, key: Key, observed: Observed) -> Observed:
        """Return ``observed`` with the Events that may explain why a pod does not start."""
        return replace(observed, obstacles=self._events.of(key, needed(observed.child, observed.pods)))

    def _with_nodes(self, observed: Observed) -> Observed:
        """Return ``observed`` with the nodes, if they are needed for a plan or to explain the state of a
        pod.
        """
        if any(pod.unschedulable for pod in observed.pods):
            return replace(observed, nodes=self._nodes.get(PLACING_SECONDS))
        if any(pod.phase == "Running" and (pod.deleting or not pod.ready) for pod in observed.pods):
            return replace(observed, nodes=self._nodes_of_pods.get(PLACING_SECONDS))
        if observed.child is None:
            return replace(observed, nodes=self._nodes.for_a_plan())
        return observed

    def _write_status(self, key: Key, document: dict[str, Any], status: ClusterObject) -> bool:
        patch = merge_patch(document.get("status") or {}, status)
        if not patch:
            return True
        try:
            written = self._cluster.patch_status(document, patch)
        except NotFound:
            # The RFTJob was deleted after it was read. If the watch was interrupted, the event of the
            # deletion may be lost.
            metrics.JOBS.forget(key)
            self._cache.invalidate(key)
            return False
        self._written[key] = written["metadata"]["resourceVersion"]
        self._cache.update(key, written)
        metrics.JOBS.observe(key, written)
        metrics.STATUS_WRITES.inc()
        return True

    def _act(
        self, key: Key, owner: Owner, raw: RawState, decision: Decision
    ) -> dict[ChildKind, dict[str, Any]]:
        """Create, change and delete the children of an RFTJob as decided.

        Return the created objects by their kinds. If the Job existed before, or if objects were deleted,
        return an empty dict: then all children must be read again. Raises ClusterError if a request fails.
        """
        created: dict[ChildKind, dict[str, Any]] = {}
        try:
            self._ask(owner, decision)
            for part in decision.ensure:
                created[part] = self._ensure(owner, raw, decision, part)
        except NotMade as refused:
            self._refused[key] = str(refused)
            self._cache.invalidate_children(key)  # the next reconciliation reports the refusal
            raise refused.error from refused
        self._refused.pop(key, None)
        for part in decision.remove:
            self._remove(owner, raw, part)
        if raw.job is None:
            return {} if decision.remove else created
        child_uid = raw.job["metadata"]["uid"]
        try:
            if decision.delete_child:
                self._cluster.delete_child(owner.namespace, owner.child, child_uid)
            elif decision.patch_child is not None:
                self._cluster.patch_child(owner.namespace, owner.child, child_uid, decision.patch_child)
        except NotFound:
            pass
        return {}

    def _remove(self, owner: Owner, raw: RawState, part: ChildKind) -> None:
        found = {ChildKind.JOB: raw.job, ChildKind.CONFIG: raw.config, ChildKind.CA: raw.ca}[part]
        assert found is not None
        name, uid = found["metadata"]["name"], found["metadata"]["uid"]
        remove = self._cluster.delete_child if part is ChildKind.JOB else self._cluster.delete_config
        with suppress(NotFound):
            remove(owner.namespace, name, uid)

    def _ask(self, owner: Owner, decision: Decision) -> None:
        """Check by dry runs that the API server would create the child Job and the claims of a run.

        Raises NotMade if the API server refuses one of them. The check comes before the first object is
        created. So a refused run leaves no snapshot and no claim behind, and the user can still correct the
        spec. If the Job is the only object to create, no dry run is made, because no other object is created
        before the Job.
        """
        parts = decision.ensure
        if ChildKind.JOB not in parts or len(parts) == 1:
            return
        self._put(self._manifest(owner, decision, ChildKind.JOB), self._takes)
        if ChildKind.CLAIM in parts:
            self._put(self._manifest(owner, decision, ChildKind.CLAIM), self._takes)
        self._put_cache(owner, decision.pod_spec, self._takes)

    def _takes(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Check by a dry run that the API server would create the object ``manifest``. Return ``manifest``.

        If the API server refuses the object, raise the error that the creation would raise. If an admission
        webhook does not support dry runs, only log this.
        """
        if not self._cluster.takes(manifest):
            metadata = manifest["metadata"]
            said = "%s %s/%s is created without a dry run, because an admission webhook does not support it"
            _log.info(said, manifest["kind"], metadata["namespace"], metadata["name"])
        return manifest

    def _ensure(self, owner: Owner, raw: RawState, decision: Decision, part: ChildKind) -> dict[str, Any]:
        """Create a child object, or replace one that is out of date. Return the new object."""
        if part is ChildKind.CA and raw.ca is not None:
            version = raw.ca["metadata"]["resourceVersion"]
            data = {CA_KEY: self.ca_bundle}
            return self._cluster.merge_data("ConfigMap", owner.namespace, owner.ca, version, data)
        if part is ChildKind.CONFIG and raw.config is not None:
            # The ConfigMap is immutable, so it is replaced. Until the new one exists, the RFTJob's own spec
            # is used.
            with suppress(NotFound):
                self._cluster.delete_config(owner.namespace, owner.child, raw.config["metadata"]["uid"])
        if part is ChildKind.JOB:
            self._put_cache(owner, decision.pod_spec, self._cluster.create)
        made = self._put(self._manifest(owner, decision, part), self._cluster.create)
        if part is ChildKind.JOB:
            self._counts = "podFailurePolicy" not in made.get("spec", {})
        return made

    def _put_cache(self, owner: Owner, spec: RFTJobSpec | None, request: Request) -> None:
        """Create or check the PersistentVolumeClaim in which models from the hub are cached. Do nothing if
        ``spec`` has no template for this claim, or if the claim exists.

        ``request`` creates the claim, or only checks by a dry run that it can be created. Only the pods need
        this claim. So it is created just before the child Job, and reconciliations do not read it.
        """
        cache = spec.model.cache if spec is not None else None
        if cache is None or cache.claim_template is None:
            return
        try:
            self._put(claim(owner, cache.claim_template, owner.cache), request)
        except Conflict as error:
            if "already exists" not in str(error):
                raise
        except NotMade:
            # If a run resumes, the claim exists already. But if the quota is used up, the API server refuses
            # the claim before it checks whether the name is taken.
            if self._cluster.claim(owner.namespace, owner.cache) is None:
                raise

    def _put(self, manifest: dict[str, Any], request: Request) -> dict[str, Any]:
        """Send an object by ``request``, a function that creates it or only checks it by a dry run.

        Return the result of ``request``. Raises NotMade if the API server refuses the object, Conflict if its
        name is taken, and another ClusterError if the request was not sent or not answered.
        """
        try:
            return request(manifest)
        except Conflict:
            raise
        except ClusterError as error:
            if isinstance(error, NotLeading) or not error.status:
                raise  # not a refusal: the request was not sent, or not answered
            # For example, a quota or a policy refuses the object, or an admission webhook does not answer.
            # The message of NotMade has the cause, and the status shows this message.
            what = f"{manifest['kind']} {manifest['metadata']['name']}"
            raise NotMade(f"{what} cannot be created: {error}.", error) from error

    def _manifest(self, owner: Owner, decision: Decision, part: ChildKind) -> dict[str, Any]:
        spec, plan, settings = decision.pod_spec, decision.plan, self._settings
        if decision.spec is None or spec is None or plan is None:
            raise AssertionError("a child object can only be created with a valid spec and a plan")
        if part is ChildKind.CLAIM and spec.storage.claim_template is not None:
            return claim(owner, spec.storage.claim_template)
        if part is ChildKind.CONFIG:
            run = run_config(owner, decision.spec, plan, settings.ingest_url, decision.defaults)
            return config_map(owner, run)
        if part is ChildKind.CA:
            return ca_config_map(owner, self.ca_bundle or "")
        image = Image(settings.trainer_image, settings.image_pull_policy)
        reports = settings.ingest_url is not None
        server = self._servers.get()
        platform = Platform(
            cpu_limit=self._cpu_limits.asked_for(owner.namespace),
            sidecars=server.sidecars,
            replaces_pods=server.replaces_pods,
            assigns_users=server.assigns_users,
        )
        return child_job(owner, spec, plan, image, reports=reports, counts=self._counts, platform=platform)


def answer_of(job: RFTJob | None) -> ReportAnswer:
    """Return the operator's answer to each report of a trainer: the settings that may change during a run.

    If ``job`` is None, because the spec is invalid, the answer is empty.
    """
    return ReportAnswer(stop=job.spec.stop or Stop()) if job is not None else ReportAnswer()
